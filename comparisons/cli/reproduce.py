"""``wordlight reproduce``: a paper's tables, made again."""

from __future__ import annotations

from functools import partial

from wordlight.comparisons.cli.arguments import Commands, add_command, add_options, add_output
from wordlight.comparisons.cli.study import run


def add_to(commands: Commands, *, with_papers: bool = True) -> None:
    """Add the command with its papers, or without them, where another command was typed."""
    parser = add_command(commands, "reproduce", "make a paper's tables again")
    if not with_papers:
        return
    # It takes a second: not for other commands.
    from wordlight.comparisons.studies.daam_paper import DaamPaper

    papers = parser.add_subparsers(title="papers", metavar="PAPER", required=True)
    for kind in (DaamPaper,):
        one = add_command(papers, kind.name, kind.line, kind.epilog)
        add_options(one, kind, leave_out=kind.left_out)
        add_output(one, bars="progress bars")
        one.set_defaults(run=partial(run, kind))
