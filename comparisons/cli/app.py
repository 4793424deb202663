"""``wordlight app``: models and methods in a browser."""

from __future__ import annotations

import argparse
import socket
import sys
from typing import TYPE_CHECKING

from wordlight.backends.embedded import EMBEDDED
from wordlight.comparisons.cli.arguments import Commands, add_command, add_options
from wordlight.comparisons.runs.options import ModelOptions, whole_number

if TYPE_CHECKING:
    from wordlight.comparisons.app.jobs import JobQueue

_EPILOG = """\
It needs the extra `app` (pip install 'wordlight[app]'). Without --host only this machine reaches
it. Users wait in one line: one job runs at a time.

examples:
  wordlight app
  wordlight app --model path/to/model --model scenes --port 8000
"""
_LOOPBACK = "127.0.0.1"
#: What all models have in common.
_OF_MODELS = ("framework", "device", "dtype", "scheduler")


def add_to(commands: Commands, line: str) -> None:
    """Add the command, with its line in the overview."""
    parser = add_command(commands, "app", line, _EPILOG)
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help=(
            "a model that users can choose (embedded, a folder or a Hub id); repeatable "
            f"(default: {', '.join(EMBEDDED)})"
        ),
    )
    add_options(parser, ModelOptions, only=_OF_MODELS)
    parser.add_argument(
        "--host",
        default=_LOOPBACK,
        help="the address to listen at; 0.0.0.0 is every address of this machine "
        f"(default: {_LOOPBACK})",
    )
    parser.add_argument(
        "--port",
        type=whole_number(0, 65535),
        default=7860,
        help="the port to listen at; 0 is any free one (default: 7860)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serve the app until it is interrupted."""
    from wordlight.comparisons.app.jobs import JobQueue

    how = ModelOptions.typed(arguments, only=_OF_MODELS)
    workshop = JobQueue(
        arguments.model or list(EMBEDDED),
        lambda model: ModelOptions(model, **how).load(),
    )
    serve(workshop, host=arguments.host, port=arguments.port)


def serve(workshop: JobQueue, *, host: str, port: int) -> None:
    """Serve a workshop's app until it is interrupted.

    Raises ValueError where Gradio isn't installed, OSError for a port in use.
    """
    try:
        from wordlight.comparisons.app.page import build_app, theme
    except ImportError as error:
        raise ValueError(f"the app needs Gradio ({error}): pip install 'wordlight[app]'") from None
    if host not in (_LOOPBACK, "localhost", "::1"):
        print(f"wordlight: anybody who reaches {host} can use this machine", file=sys.stderr)
    app = build_app(workshop)
    _, address, _ = app.launch(
        server_name=host,
        server_port=port or _free_port(host),
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size="20mb",
        footer_links=[],
        theme=theme(),
        ssr_mode=False,
    )
    print(f"wordlight is at {address} (Ctrl-C ends it)", flush=True)
    app.block_thread()


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listening:
        return int(listening.getsockname()[1])
