"""The app, driven by two users in headless Chromium."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import chromium

CHROMIUM = chromium.find()
pytestmark = chromium.needed
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
_PATIENCE = 60_000


@pytest.fixture(scope="module")
def address():
    """The app in a process of its own, serving a slow toy model."""
    script = Path(__file__).with_name("slow_model.py")
    server = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, cwd=script.parents[3]
    )
    said = server.stdout.readline()
    assert "http://127.0.0.1:" in said, said
    yield said.split()[3]
    server.terminate()
    server.wait(20)
    server.stdout.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


class User:
    """A person at the app's page."""

    def __init__(self, browser, address):
        self.page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        self.page.set_default_timeout(_PATIENCE)
        self.page.goto(address)

    def ask(self, prompt, steps):
        page = self.page
        page.locator("#prompt textarea").fill(prompt)
        box = page.get_by_label("Steps")
        if not box.is_visible():
            page.get_by_role("button", name="More").click()
        box.fill(str(steps))
        page.locator("#explain").click()

    def sees(self, text):
        self.page.locator("#status", has_text=text).wait_for()

    @property
    def viewer(self):
        return self.page.frame_locator("#viewer iframe")


def test_two_users_at_once_and_one_cancels(browser, address):
    one, other = User(browser, address), User(browser, address)
    one.ask("a red circle", 150)
    one.sees("of 150")
    other.ask("a blue square <script>alert(1)</script>", 3)
    other.sees("1 before you")
    one.page.locator("#cancel").click()
    one.sees("Cancelled.")
    other.sees("Done.")
    assert other.viewer.get_by_text("square").first.is_visible()
    assert other.viewer.get_by_text("<script>").first.is_visible(), "markup is text"
    with other.page.expect_download() as download:
        other.page.get_by_role("link", name="kB").or_(
            other.page.locator("#files a[download]")
        ).first.click()
    assert download.value.suggested_filename == "image.png"
    # The page of the one who cancelled lives on: bad prompts, memory, then a good one.
    one.ask("  ", 3)
    one.sees("The prompt is empty")
    one.ask("memory", 3)
    one.sees("Memory ran out")
    one.ask("a fault", 3)
    one.sees("ZeroDivisionError")
    one.ask("a red circle", 3)
    one.sees("Done.")


def test_a_pixel_ranks_the_words(browser, address):
    user = User(browser, address)
    user.ask("a red circle", 2)
    user.sees("Done.")
    ranked = user.viewer.locator("body")
    before = ranked.inner_text()
    user.viewer.get_by_alt_text("Image of the prompt").click(position={"x": 20, "y": 20})
    user.page.wait_for_timeout(300)
    assert ranked.inner_text() != before


@pytest.mark.slow
def test_a_closed_page_frees_the_line(browser, address):
    gone, stays = User(browser, address), User(browser, address)
    gone.ask("a red circle", 200)
    gone.sees("of 200")
    stays.ask("a circle", 2)
    stays.sees("before you")
    gone.page.close()
    stays.sees("Done.")
