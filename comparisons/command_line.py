"""The command line at its former address: ``python -m wordlight.comparisons.command_line``."""

from __future__ import annotations

import sys

from wordlight.comparisons.cli.main import main as main

if __name__ == "__main__":
    sys.exit(main())
