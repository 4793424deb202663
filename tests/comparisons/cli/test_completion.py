"""Shells complete commands and options."""

import shutil
import subprocess

import pytest

from wordlight.comparisons.cli.main import main

ASK = """
source "$1"
COMP_WORDS=(wordlight {words})
COMP_CWORD={place}
COMP_LINE="wordlight {words}"
COMP_POINT=${{#COMP_LINE}}
_shtab_wordlight
printf "%s\\n" "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(
    shutil.which("bash") is None,
    reason="bash itself reads the script, and isn't here; runs as soon as it is on the path",
)
@pytest.mark.parametrize(
    ("words", "expected"), [("compl", "completion"), ("attribute --negat", "--negative-prompt")]
)
def test_bash_completes(words, expected, tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "wordlight"
    script.write_text(capsys.readouterr().out)
    line = ASK.format(words=words, place=len(words.split()))
    done = subprocess.run(
        ["bash", "-c", line, "bash", str(script)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [expected], done.stderr


def test_another_shell_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["completion", "cmd"])
    assert "zsh" in capsys.readouterr().err
