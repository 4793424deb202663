"""Stored arrays: what was damaged, or copied from elsewhere, is never read as another number."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import save

from wordlight.backends.arrays_file import FileFormatError, read_arrays, write_arrays

ARRAYS = {"maps": np.arange(6, dtype=np.float32).reshape(2, 3), "image": np.zeros((1, 2), np.uint8)}
FACTS = {"prompt": "a dog", "axes": {"step": [0, 1]}}
LABEL = {"run": "abc", "sample": "0001"}


@pytest.fixture
def path(tmp_path):
    write_arrays(tmp_path / "x.safetensors", "maps", 2, ARRAYS, FACTS, LABEL)
    return tmp_path / "x.safetensors"


def described(path, change):
    """Change what a file says of itself, and leave its arrays as they are."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["wordlight"] = change(header["__metadata__"]["wordlight"])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_what_was_written_comes_back(path):
    arrays, facts = read_arrays(path, "maps", 2, LABEL)
    assert facts == FACTS
    np.testing.assert_array_equal(arrays["maps"], ARRAYS["maps"])
    np.testing.assert_array_equal(arrays["image"], ARRAYS["image"])


def test_every_flipped_bit_is_named_or_changes_nothing(path):
    whole = path.read_bytes()
    named = 0
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        path.write_bytes(data)
        try:
            arrays, facts = read_arrays(path, "maps", 2, LABEL)
        except FileFormatError as error:
            named += str(path) in str(error)
            continue
        assert facts == FACTS
        assert arrays.keys() == ARRAYS.keys()
        assert all((arrays[name] == ARRAYS[name]).all() for name in ARRAYS)
    assert named > 0.9 * len(whole)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ({"run": "abd", "sample": "0001"}, r"made for something else \(run abc, not abd\)"),
        ({"run": "abc", "sample": "0001", "method": "daam"}, r"\(method none, not daam\)"),
        ({"run": "abc"}, "more than was asked for"),
    ],
)
def test_what_was_kept_for_something_else_is_refused(path, label, said):
    with pytest.raises(FileFormatError, match=said):
        read_arrays(path, "maps", 2, label)
    write_arrays(path, "maps", 2, ARRAYS, FACTS)
    with pytest.raises(FileFormatError, match="doesn't say what it was made for"):
        read_arrays(path, "maps", 2, LABEL)


def test_a_description_that_was_changed_is_refused(path):
    described(path, lambda text: text.replace("a dog", "a cat"))
    with pytest.raises(FileFormatError, match="its checksum is of other contents"):
        read_arrays(path, "maps", 2)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"kind":"maps","version":' + "9" * 6000 + "}", "[]", "{}", '{"kind": "maps"}'],
    ids=["deep", "digits", "list", "empty", "short"],
)
def test_descriptions_that_are_none(path, text):
    described(path, lambda _: text)
    with pytest.raises(FileFormatError):
        read_arrays(path, "maps", 2)


@pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1)])
def test_types_that_numpy_lacks(path, kind, size):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header = {
        "__metadata__": header["__metadata__"],
        "maps": {"dtype": kind, "shape": [2, 3], "data_offsets": [0, 6 * size]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(6 * size))
    with pytest.raises(FileFormatError, match="is damaged"):
        read_arrays(path, "maps", 2)


@pytest.mark.skipif(
    not hasattr(os, "mkfifo"),
    reason="Windows has no named pipes in folders to be refused; runs on every POSIX system",
)
def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "x.safetensors", "maps", 2)


def test_files_of_the_first_version_are_read_where_no_label_is_asked_for(tmp_path):
    # As releases before labels and checksums wrote them.
    path = tmp_path / "old.safetensors"
    header = json.dumps({"kind": "maps", "version": 1, "facts": {"words": 2}})
    path.write_bytes(save({"a": np.arange(3.0)}, metadata={"wordlight": header}))
    arrays, facts = read_arrays(path, "maps", 2)
    assert arrays["a"].tolist() == [0, 1, 2]
    assert facts == {"words": 2}
    with pytest.raises(FileFormatError, match="doesn't say what it was made for"):
        read_arrays(path, "maps", 2, {"image": "1"})
