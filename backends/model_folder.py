"""A model's folder in diffusers' format, which may come from anywhere: what is looked at before any
library reads it, and the revision that it stands for."""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from wordlight.backends.progress import tell
from wordlight.backends.progress_bar import ProgressBar
from wordlight.backends.regular_files import open_regular, read_json_file

#: The endings of all that makes a model: weights, configurations, tokenizer.
_MODEL_FILES = {".safetensors", ".msgpack", ".json", ".txt", ".model"}
INDEX = "model_index.json"
#: Where components come from. diffusers would import any other module that an index names.
_LIBRARIES = ("diffusers", "transformers")
#: Files of which one of each group makes a tokenizer that knows words.
_VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("tokenizer.model",),
    ("vocab.txt",),
)
#: Tokenizers that read bytes, and need no vocabulary.
_OF_BYTES = ("ByT5Tokenizer", "PerceiverTokenizer")
#: In megabytes, of a model whose loading takes long enough to be watched.
_LARGE = 1000
#: More than any network has.
_MOST_LAYERS = 1000
#: Names of such numbers: `num_layers`, `layers_per_block`, but not `block_out_channels`.
_LAYERS = re.compile(r"(layers|blocks|per_block)$")


class ModelLoadError(ValueError):
    """A name, folder or object that no backend can load as a model."""


def is_there(folder: Path) -> bool:
    """Return whether a folder exists; a name too long for a folder is of none."""
    try:
        return folder.exists()
    except OSError:
        return False


def revision_of(folder: Path) -> str:
    """Twelve hexadecimal digits: a digest of the names and contents of all the model's files.

    With it, results can't be taken for those of other weights under the same name. Raises
    ModelLoadError for a file that can't be read.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in _MODEL_FILES):
        digest.update(path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape"))
        digest.update(b"\0")
        try:
            with open_regular(path) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ModelLoadError(f"{path} can't be read: {error.strerror}") from None
    return digest.hexdigest()[:12]


def stored_dtype(folder: Path, part: str) -> str | None:
    """Return the dtype that most numbers of a part's safetensors files have, as NumPy and PyTorch
    call it; None where there are no such files, or they hold something else than floats.

    float32 for a model that this package trained and stored as float16 to be small: its
    ``training.json`` says so, and by how little that moves its pictures.
    """
    training = folder / "training.json"
    if training.is_file() and "half_precision" in _read(training):
        return "float32"
    files = [one for one in (folder / part).glob("*.safetensors") if "." not in one.stem]
    numbers: Counter[str] = Counter()
    for file in files:
        try:
            with safe_open(file, framework="numpy") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dictionary
                    tensor = opened.get_slice(name)
                    numbers[tensor.get_dtype()] += math.prod(tensor.get_shape())
        except (SafetensorError, OSError):
            return None  # Whoever reads the weights says so.
    most = max(numbers, key=lambda kind: numbers[kind], default="")
    return {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}.get(most)


@contextmanager
def loading_bar(folder: Path, parts: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr while a large folder's weights are loaded, in megabytes; gives what
    is called with each part that is done. Nothing is shown where stderr is no terminal."""
    sizes = {
        part: sum(one.stat().st_size for one in (folder / part).glob("*.safetensors")) // 10**6
        for part in parts
    }
    total = sum(sizes.values())
    quiet = total < _LARGE or not sys.stderr.isatty()
    with ProgressBar[object](
        desc=f"loading {folder.name}", total=total, unit="MB", disable=quiet
    ) as bar:

        def done(part: str) -> None:
            bar.update(sizes.get(part, 0))
            if total:
                tell("loading", bar.n, total)

        yield done


def check_model_folder(
    folder: Path, knows_library: Callable[[str], bool] = lambda name: name in _LIBRARIES
) -> dict[str, Any]:
    """The index of a folder that can be given to a library: it has no code of its own, nothing to
    wait for, vocabularies for its tokenizers, and networks that its files can be the weights of.

    Args:
        folder: in diffusers' format.
        knows_library: whether components may be of a library beside diffusers and transformers.

    Raises:
        ModelLoadError: for the first of these that doesn't hold.
    """
    index = read_index(folder)
    _check_plain(folder)
    for part, library, name in components(folder, index):
        place = folder / part
        if library not in _LIBRARIES and not knows_library(library):
            raise ModelLoadError(_own_code(folder / INDEX, f"its {part} is of {library!a}"))
        if not place.is_dir():
            # No prediction needs these, and many folders leave them out.
            if part in ("safety_checker", "feature_extractor", "image_encoder"):
                continue
            raise ModelLoadError(f"{folder} lacks its {part}: there is no folder {place}")
        if code := sorted(path.name for path in place.glob("*.py")):
            raise ModelLoadError(_own_code(place, code[0]))
        _check_part(place, has_words=name not in _OF_BYTES)
    return index


def read_index(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's index; raises ModelLoadError where it holds no model."""
    path = folder / INDEX
    if folder.is_file() and folder.suffix in (".safetensors", ".ckpt"):
        raise ModelLoadError(
            f"{folder} is a single file, and a model is a folder in diffusers' format: have "
            "diffusers read it, pipe = StableDiffusionPipeline.from_single_file(...), and take "
            "load(pipe), or the folder that pipe.save_pretrained(...) writes"
        )
    if not path.is_file():
        raise ModelLoadError(f"{folder} is no model: a diffusers folder has a {INDEX}")
    index = _read(path)
    kind = index.get("_class_name")
    if isinstance(kind, list):
        raise ModelLoadError(_own_code(path, f"its pipeline is {kind!a}"[:100]))
    if not isinstance(kind, str) or not kind:
        raise ModelLoadError(f"{path} is damaged: it doesn't name a pipeline's class")
    return index


def components(folder: Path, index: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The parts that an index names, each with the library and the name of its class."""
    for part, what in index.items():
        # [library, class], of nothing where a part was left out; the rest are settings.
        if part.startswith("_") or not isinstance(what, list) or not any(what):
            continue
        if len(what) != 2 or not all(isinstance(one, str) for one in what):
            # Settings can be lists too.
            if (folder / part).is_dir():
                raise ModelLoadError(f"{folder / INDEX} is damaged: {part} is {what!a}"[:300])
            continue
        if not part.isidentifier():
            raise ModelLoadError(f"{folder / INDEX} is damaged: no part is called {part!a}"[:300])
        yield part, what[0], what[1]


def _check_plain(place: Path) -> list[Path]:
    """The files of a folder; raises ModelLoadError for one that can't be opened or read to its
    end."""
    files = [path for path in sorted(place.iterdir()) if not path.is_dir()]
    for path in files:
        try:
            open_regular(path).close()
        except OSError as error:
            raise ModelLoadError(f"{path} can't be read: {error.strerror}") from None
    return files


def _check_part(place: Path, *, has_words: bool) -> None:
    for path in _check_plain(place):
        if path.suffix == ".json" and "auto_map" in (found := _read(path)):
            raise ModelLoadError(_own_code(path, f"auto_map {found['auto_map']!a}"[:100]))
    if has_words and place.name.startswith("tokenizer") and not _has_vocabulary(place):
        either = ", or ".join(" and ".join(names) for names in _VOCABULARIES)
        raise ModelLoadError(f"{place} has no vocabulary: it should hold {either}")
    config = place / "config.json"
    if config.is_file():
        weights = sum(
            path.stat().st_size for path in place.iterdir() if path.suffix in _WEIGHT_FILES
        )
        if weights:
            _check_size(config, _read(config), weights)


#: Pickles too: whoever reads the folder says that they aren't read.
_WEIGHT_FILES = (".safetensors", ".msgpack", ".bin")


def _has_vocabulary(place: Path) -> bool:
    return any(all((place / name).is_file() for name in names) for names in _VOCABULARIES)


def _check_size(path: Path, config: Any, weights: int) -> None:
    """Raise ModelLoadError for sizes whose weights can't be a file of ``weights`` bytes.

    Building such a network takes the machine's memory before its weights are looked at.
    """
    for key, value in _numbers(config):
        if value > (_MOST_LAYERS if _LAYERS.search(key) else max(weights, _least_bound(key))):
            raise ModelLoadError(
                f"{path} asks for {key} {value:.3g}, which no network of its "
                f"{weights} bytes of weights has"
            )


def _least_bound(key: str) -> float:
    """Return what any network's number of a name may be, however small the network is."""
    if "theta" in key or key.endswith(("_id", "_ids")):
        return math.inf  # no size
    return 300_000 if "position" in key else 10_000  # rotations have no weights


def _numbers(config: Any) -> Iterator[tuple[str, int]]:
    """Every whole number of a configuration, with the name that it goes by; however deep it is."""
    left: list[tuple[str, Any]] = [("", config)]
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            left += [(str(name), one) for name, one in value.items()]
        elif isinstance(value, list):
            left += [(key, one) for one in value]
        elif isinstance(value, int) and not isinstance(value, bool):
            yield key, value


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json_file(path)
    except OSError as error:
        raise ModelLoadError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise ModelLoadError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ModelLoadError(f"{path} is damaged: not a JSON object")
    return found


def _own_code(where: Path, what: str) -> str:
    return (
        f"{where} asks for code of its own ({what}), and no code from a model's folder is run here"
    )
