"""``wordlight reproduce``: a paper's tables, made again."""

from __future__ import annotations

from functools import partial

from wordlight.comparisons.cli.arguments import Commands, add_command, add_options, add_output
from wordlight.comparisons.cli.study import run
from wordlight.comparisons.studies.daam_paper import DaamPaper


def add_to(commands: Commands, line: str) -> None:
    """Add the command with its papers, and its line in the overview."""
    parser = add_command(commands, "reproduce", line)
    papers = parser.add_subparsers(title="papers", metavar="PAPER", required=True)
    for kind in (DaamPaper,):
        one = add_command(papers, kind.name, kind.line, kind.epilog)
        add_options(one, kind, leave_out=kind.left_out)
        add_output(one, bars="progress bars")
        one.set_defaults(run=partial(run, kind))
