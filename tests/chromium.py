"""A headless Chromium, spoken to over a pipe by the DevTools protocol: no driver, no port."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE = 120.0


def find() -> str | None:
    """The Chromium of this machine, ``$CHROMIUM`` or one on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


#: Marks tests that drive a browser.
needed = pytest.mark.skipif(
    find() is None,
    reason=(
        "a page is looked at in Chromium, and this machine has none; runs as soon as one is on the "
        "path or named by $CHROMIUM, which .ci/run sees to"
    ),
)


class Page:
    """One page, with all that it said on the console and asked of the network."""

    def __init__(self, process: subprocess.Popen[bytes], asked: int, answered: int) -> None:
        self._process, self._asked, self._answered = process, asked, answered
        self._rest = b""
        self._count = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and what it gives."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._asked, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._count:
                assert "error" not in heard, heard
                found: dict[str, Any] = heard["result"]
                return found
            self.events.append(heard)

    def _hear(self) -> dict[str, Any]:
        until = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            assert self._process.poll() is None, "Chromium has ended"
            assert time.monotonic() < until, "Chromium doesn't answer"
            self._rest += os.read(self._answered, 1 << 20)
        message, self._rest = self._rest.split(b"\0", 1)
        heard: dict[str, Any] = json.loads(message)
        return heard

    def open(self, path: Path) -> None:
        """Load a file and wait until it is there."""
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._hear())

    def show(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Give the screen a width, and the reader's wish for dark pages."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, waited for where it is a promise."""
        found = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        until = time.monotonic() + _PATIENCE
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < until, f"never true: {expression}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.evaluate("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def place_of(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """Where an element is on the screen, at shares of its width and height."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'nearest'});"
            " const b = e.getClientRects()[0]; return [b.x, b.y, b.width, b.height]; })()"
        )
        return box[0] + x * box[2], box[1] + y * box[3]

    def hover(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Move the mouse onto an element."""
        left, top = self.place_of(selector, x, y)
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=left, y=top)
        self.settle()

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click on an element with the mouse."""
        self.hover(selector, x, y)
        left, top = self.place_of(selector, x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask(
                "Input.dispatchMouseEvent", type=kind, x=left, y=top, button="left", clickCount=1
            )
        self.settle()

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key by its name: ``Tab``, ``ArrowLeft``, ``Enter``."""
        text = {"Enter": "\r", "Space": " "}.get(key)
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "End": 35, "Home": 36}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        facts = {
            "key": " " if key == "Space" else key,
            "code": key,
            "windowsVirtualKeyCode": codes[key],
            "modifiers": 8 if shift else 0,
        }
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.ask("Input.dispatchKeyEvent", **facts, **down)
        self.ask("Input.dispatchKeyEvent", **facts, type="keyUp")
        self.settle()

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What stands on the console as an error or a warning."""
        said = [e["params"] for e in self.events if e.get("method") == "Log.entryAdded"]
        thrown = [e for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        called = [e for e in self.events if e.get("method") == "Runtime.consoleAPICalled"]
        return [json.dumps(s["entry"]) for s in said] + [json.dumps(e) for e in thrown + called]

    def requests(self) -> list[str]:
        """Every address that was asked for, but those that hold their own data."""
        asked = [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith("data:")]


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a Chromium with an empty profile, which ends with the block."""
    program = find()
    assert program is not None
    to_child, asked = os.pipe()
    answered, from_child = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            program,
            "--headless",
            "--remote-debugging-pipe",
            "--no-sandbox",  # a container's root has no other way
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={profile}",
        ]
        # Chromium reads commands from file 3 and answers on file 4. (The first pipe's ends have the
        # lower numbers, so that the first redirection doesn't overwrite the second's.)
        script = f'exec "$@" 3<&{to_child} 4>&{from_child}'
        process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *command],
            pass_fds=(to_child, from_child),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        try:
            yield Page(process, asked, answered)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(asked)
            os.close(answered)
