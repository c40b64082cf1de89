"""The Streams view: every stream of the server with its figures, and the page of one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.conftest import FAST_RECONNECT
from tests.browser.dashboard_page import DashboardPage
from tests.browser.publishing import publish
from tests.support.conditions import eventually
from tests.support.server import ServerProcess

pytestmark = pytest.mark.slow

TELEMETRY = """
[[streams]]
name = "telemetry"
topics = ["sensors/#"]
storage = "memory"
retention = { age = "7d", bytes = "64MiB" }
"""


def test_streams_and_their_figures_are_listed(serve: Callable[..., ServerProcess], dashboard: DashboardPage) -> None:
    """One row a stream in the order of the configuration; what has no Kafka shows a dash, not a zero."""
    server = serve(FAST_RECONNECT + TELEMETRY)
    publish(server.mqtt_port, [("sensors/p1/temp", number) for number in range(30)])
    dashboard.page.goto(f"{server.http_url}/streams")
    rows = dashboard.page.locator("[data-stream]")
    eventually(lambda: rows.count() == 3, what="the streams")

    names = rows.evaluate_all("rows => rows.map((row) => row.dataset.stream)")
    assert names == ["telemetry", "system", "default"]
    first = rows.first
    assert first.locator('[data-title="Kept"]').inner_text() == "7 d"
    assert " of 64 MiB" in first.locator('[data-title="Stored"]').inner_text()
    assert first.locator('[data-title="Kafka"]').inner_text() == "–"


def test_the_page_of_one_stream_follows_it(serve: Callable[..., ServerProcess], dashboard: DashboardPage) -> None:
    """From the list by a press; its figures are asked for again by themselves; its topics lead to Live."""
    server = serve(FAST_RECONNECT + TELEMETRY)
    publish(server.mqtt_port, [("sensors/p1/temp", number) for number in range(30)])
    dashboard.page.goto(f"{server.http_url}/streams")
    dashboard.page.get_by_role("link", name="telemetry").click()
    eventually(lambda: dashboard.rows("main h1") == ["telemetry"], what="its page")
    assert dashboard.page.evaluate("location.pathname + location.search") == "/stream?name=telemetry"

    cells = dashboard.page.locator(".partitions tbody tr")
    eventually(lambda: cells.all_inner_texts() == ["0\t0\t30\t30"], what="its partition")
    publish(server.mqtt_port, [("sensors/p1/temp", number) for number in range(12)])
    eventually(lambda: cells.all_inner_texts() == ["0\t0\t42\t42"], what="what came since")

    dashboard.page.get_by_role("button", name="sensors/#").click()
    eventually(lambda: dashboard.tree() == {"sensors/p1/temp": "11"}, what="its topics in Live")
    dashboard.page.go_back()
    eventually(lambda: dashboard.rows("main h1") == ["telemetry"], what="its page again")


def test_a_stream_that_does_not_exist_is_said(serve: Callable[..., ServerProcess], dashboard: DashboardPage) -> None:
    """With a way to those that do."""
    server = serve()
    dashboard.page.goto(f"{server.http_url}/stream?name=nowhere")
    eventually(lambda: dashboard.rows("main h1") == ["nowhere"], what="its name")
    assert "There is no stream of this name" in dashboard.rows("main")[0]
    dashboard.page.get_by_role("link", name="All streams").click()
    eventually(lambda: dashboard.rows("main h1") == ["Streams"], what="the list")
