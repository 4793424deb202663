"""``wordlight study``: what can be asked of a model, or of all methods on it."""

from __future__ import annotations

import argparse
import json
import shlex
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from wordlight.comparisons.cli.arguments import Commands, add_command, add_options, add_output
from wordlight.comparisons.cli.compare import status_of, warnings_on_stderr
from wordlight.comparisons.studies import STUDIES

if TYPE_CHECKING:
    from wordlight.comparisons.studies.daam_paper import DaamPaper
    from wordlight.comparisons.studies.faithfulness import Faithfulness
    from wordlight.comparisons.studies.study import Study

    Kind: TypeAlias = type[Study] | type[Faithfulness] | type[DaamPaper]


def add_to(commands: Commands, line: str) -> None:
    """Add the command with its studies, and its line in the overview."""
    parser = add_command(commands, "study", line)
    studies = parser.add_subparsers(title="studies", metavar="STUDY", required=True)
    for kind in STUDIES:
        one = add_command(studies, kind.name, kind.line, kind.epilog)
        add_options(one, kind, leave_out=kind.left_out)
        add_output(one, bars="progress bar")
        one.set_defaults(run=partial(run, kind))


def run(kind: Kind, arguments: argparse.Namespace) -> int:
    """Do a study, or a reproduction, and print what it found."""
    command = shlex.join(arguments.command_line)
    with warnings_on_stderr():
        found = kind.asked(arguments, progress=not arguments.quiet, command=command).run()
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        print(found.text)
    comparison = getattr(found, "comparison", None)
    return 0 if comparison is None else status_of(comparison)
