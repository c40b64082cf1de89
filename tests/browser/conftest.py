"""Fixtures of the browser tests: real Chromium, the built dashboard, a real server; parts only, no assertions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from bridge.routes.pages import DIST
from tests.browser.dashboard_page import DashboardPage
from tests.support.faulty_proxy import FaultyProxy
from tests.support.server import ServerProcess

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FAST_RECONNECT = "[live]\nretry_ms = 50\nheartbeat_s = 1\n"
"""So that cuts and silences are seen in seconds; the page is told of the heartbeat in its address."""


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}, and CI must run the browser tests")
    pytest.skip(what)


# One browser for a module and not for the session: its event loop must not be there when asynchronous tests run.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    path = os.environ.get("HEADRACE_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        _missing("there is no Chromium on this machine (HEADRACE_CHROMIUM may name one)")
    if not (DIST / "index.html").is_file():
        _missing("the dashboard is not built: make dashboard")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile: no storage, no cache."""
    made = browser.new_context(viewport={"width": 1440, "height": 900})
    yield made
    made.close()


@pytest.fixture
def dashboard(context: BrowserContext) -> DashboardPage:
    """A tab, nothing opened yet."""
    return DashboardPage(context.new_page())


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts a server with this configuration and environment; it is stopped at the end."""
    started: list[ServerProcess] = []

    def start(config: str = FAST_RECONNECT, environment: Mapping[str, str] | None = None) -> ServerProcess:
        server = ServerProcess(tmp_path / f"data{len(started)}", config=config, environment=environment)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.close()


@pytest.fixture
def proxied(serve: Callable[..., ServerProcess]) -> Iterator[tuple[ServerProcess, FaultyProxy]]:
    """A server and a proxy before its HTTP port."""
    server = serve()
    with FaultyProxy(server.http_port) as proxy:
        yield server, proxy
