"""``wordlight completion``: what makes a shell complete commands and options."""

from __future__ import annotations

import argparse

import shtab

from wordlight.comparisons.cli.arguments import Commands, add_command

_EPILOG = """\
examples:
  wordlight completion bash > ~/.local/share/bash-completion/completions/wordlight
  wordlight completion zsh > ~/.zfunc/_wordlight     # a folder of your $fpath
"""


def add_to(commands: Commands, line: str) -> None:
    """Add the command, with its line in the overview."""
    parser = add_command(commands, "completion", line, _EPILOG)
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="the shell")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the script."""
    from wordlight.comparisons.cli.main import build_parser

    print(shtab.complete(build_parser(), arguments.shell))
