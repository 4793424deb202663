"""Progress bars: lines in a log, in place in a terminal of any width."""

import os
import pty
import re
import subprocess
import sys

import pytest

from wordlight.backends import progress_bar
from wordlight.backends.progress_bar import ProgressBar


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    now = [0.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_every_ten_seconds_and_one_at_the_end(clock, capsys):
    for _ in ProgressBar(range(100), desc="drawing", unit="images"):
        clock[0] += 0.5
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "drawing: 20 of 100 images, 10 s, about 40 s left"
    assert lines[-1] == "drawing: 100 of 100 images, 50 s"
    assert len(lines) == 5


def test_the_last_of_a_log_is_said_once(clock, capsys):
    with ProgressBar(desc="drawing", total=5, unit="images") as bar:
        clock[0] = 24.0
        bar.update(5)
    assert capsys.readouterr().err == "drawing: 5 of 5 images, 24 s\n"


def test_what_was_done_before_does_not_count_for_the_pace(clock, capsys):
    with ProgressBar(desc="making maps", total=100, initial=50, unit="cells") as bar:
        clock[0] = 20.0
        bar.update(10)
        bar.say("2 failed")
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "making maps: 60 of 100 cells, 20 s, about 1 min 20 s left",
        "making maps: 60 of 100 cells, 20 s, 2 failed",
    ]


def test_an_unknown_total_and_an_empty_one(capsys):
    with ProgressBar(desc="comparing", unit="steps") as bar:
        bar.update()
    assert list(ProgressBar([], desc="reading")) == []
    assert list(ProgressBar(iter("ab"), desc="reading")) == ["a", "b"]
    told = capsys.readouterr().err.splitlines()
    assert told == ["comparing: 1 step, 0 s", "reading: 0 of 0, 0 s", "reading: 2, 0 s"]


def test_disabled_it_is_silent_and_still_counts(capsys):
    bar = ProgressBar("abc", desc="x", disable=True)
    assert list(bar) == ["a", "b", "c"]
    assert bar.n == 3
    assert capsys.readouterr() == ("", "")


SCRIPT = """
from wordlight.backends.progress_bar import ProgressBar
with ProgressBar(desc="making maps", total=3, unit="cells") as bar:
    for _ in ProgressBar(range(3), desc="steps"):
        bar.update()
"""


@pytest.mark.parametrize("width", [30, 100])
def test_in_a_terminal_it_fits_the_width(width):
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(width), "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs, env=env)
    process.wait(60)
    os.close(theirs)
    seen = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(ours)
    # Moving up and clearing a line begin another one; colours take no room.
    text = re.sub(r"\x1b\[[0-9;?]*[ABK]", "\n", seen.decode())
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert any("making maps" in line and "3/3" in line for line in lines), lines
    assert max(map(len, lines)) <= width
