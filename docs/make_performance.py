"""Runs the commands of docs/performance.md and puts what they print below each: minutes, on a
machine with nothing else to do. A part whose command fails here (no such device) stays as it is."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

from pages import fill

PAGE = Path(__file__).parent / "performance.md"
ROOT = PAGE.parents[1]
#: A command on the page, and the name of the part below it.
_PART = re.compile(r"^```sh\npython (benchmarks/[^\n]+)\n```\n\n<!-- (\S+) -->$", re.MULTILINE)


def parts(page: Path) -> dict[str, str]:
    """The page's commands, without ``python``, by the names of their parts."""
    return {name: command for command, name in _PART.findall(page.read_text("utf-8"))}


def main() -> None:
    """Run all commands, or those of some parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", metavar="PART", help="(default: all of the page)")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default: this one's)")
    options = parser.parse_args()
    known = parts(options.page)
    for name in options.only or known:
        if name not in known:
            parser.error(f"{options.page} has no part {name}: {', '.join(known)}")
        command = [sys.executable, *shlex.split(known[name])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        else:
            # Tables as they are, anything else in columns.
            table = "\n| " in f"\n{done.stdout}"
            text = done.stdout.strip()
            fill(options.page, name, text if table else f"```\n{text}\n```")


if __name__ == "__main__":
    main()
