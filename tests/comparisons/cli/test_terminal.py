"""What the command line prints, and what it does with errors that nobody foresaw."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from wordlight.comparisons.cli import main as command_line
from wordlight.comparisons.cli import methods
from wordlight.comparisons.cli.terminal import escaped, escaped_output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with\ttab\nand Straße", "plain, with\ttab\nand Straße"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb", r"a\u202eb"),
        ("\udcff", r"\udcff"),
    ],
)
def test_a_terminal_obeys_nothing(text, shown, capsys):
    assert escaped(text) == shown
    with escaped_output():
        print(text)
        print(text, file=sys.stderr)
        sys.stderr.write("\x1b[A")  # as progress bars do
    captured = capsys.readouterr()
    assert captured.out == f"{shown}\n"
    assert captured.err == f"{shown}\n\x1b[A"


def test_what_an_encoding_lacks_is_escaped():
    assert escaped("Straße", "ascii") == r"Stra\xdfe"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("bad\nnumber"), 2, "wordlight: error: bad number"),
        (OSError(5, "Input/output error"), 2, "wordlight: error: [Errno 5] Input/output error"),
        (TypeError("no"), 70, "wordlight: error: TypeError: no (raised in main.py:"),
        (RecursionError("deep"), 70, "wordlight: error: RecursionError: deep (raised in"),
        (MemoryError(), 70, "wordlight: error: MemoryError: MemoryError (raised in"),
        (KeyboardInterrupt(), 130, "wordlight: stopped"),
    ],
)
def test_every_error_is_one_line(error, status, said, capsys, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(methods, "run", fail)
    monkeypatch.delenv("WORDLIGHT_DEBUG", raising=False)
    assert command_line.main(["methods"]) == status
    printed = capsys.readouterr().err
    assert printed.startswith(said)
    assert printed.count("\n") == 1
    if status != 130:
        monkeypatch.setenv("WORDLIGHT_DEBUG", "1")
        assert command_line.main(["methods"]) == status
        assert "Traceback" in capsys.readouterr().err


def test_an_error_of_our_own_names_the_file_at_hand(capsys, monkeypatch, tmp_path):
    other, bad = tmp_path / "other.json", tmp_path / "items.jsonl"
    other.touch()
    bad.touch()

    def read(path):
        raise TypeError("no")

    def fail(_, folder=tmp_path, settings=other):
        read(bad)

    monkeypatch.setattr(methods, "run", fail)
    monkeypatch.delenv("WORDLIGHT_DEBUG", raising=False)
    assert command_line.main(["methods"]) == 70
    assert f"TypeError: no (at {bad}, raised in" in capsys.readouterr().err


def test_a_prompt_that_is_no_text(capsys, tmp_path):
    for typed in (["\udcff"], ["a", "--negative-prompt", "\udcff"]):
        arguments = ["attribute", *typed, "--quiet", "-o", str(tmp_path / "o")]
        assert command_line.main(arguments) == 2
        assert capsys.readouterr().err.startswith("wordlight: error: the prompt is no text")


def command(*typed):
    return [sys.executable, "-m", "wordlight.comparisons.cli.main", *typed]


def test_a_closed_stdout():
    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command("models")],
        stderr=subprocess.PIPE,
        text=True,
        timeout=100,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(
    os.name == "nt",
    reason="Windows can't send SIGINT to one process; runs on every POSIX system",
)
def test_ctrl_c_while_it_is_imported():
    """From the moment on at which the module's own lines run."""
    code = (
        "import signal, sys, wordlight.comparisons.cli.main as m; run = m._run; "
        # Jobs that a shell starts in the background ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "m._run = lambda argv: (print('here', flush=True), run(argv))[1]; "
        "sys.exit(m.main(['methods']))"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "here\n"
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=100)
    assert (running.returncode, said) == (130, "wordlight: stopped\n")
