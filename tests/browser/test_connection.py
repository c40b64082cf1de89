"""Cuts, silence, restarts, hidden tabs: nothing is missing, nothing comes twice, and what is lost is said."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.browser.conftest import FAST_RECONNECT
from tests.browser.dashboard_page import CAN_HIDE, DashboardPage
from tests.browser.publishing import publish
from tests.support.conditions import eventually
from tests.support.faulty_proxy import FaultyProxy
from tests.support.server import ServerProcess

pytestmark = pytest.mark.slow

TOPIC = "sensors/p1/count"
CUTS = 20
MESSAGES = 10_000
HEARTBEAT_S = 1


@pytest.mark.timeout(180)
def test_twenty_cuts_in_10000_messages_lose_and_repeat_none(
    proxied: tuple[ServerProcess, FaultyProxy], dashboard: DashboardPage
) -> None:
    """10,000 distinct offsets, 0 repeated; each batch is cut at another place, inside an event or between two."""
    server, proxy = proxied
    dashboard.open(f"http://127.0.0.1:{proxy.port}/?b=sensors/p1")
    batch = MESSAGES // CUTS
    for cut in range(CUTS):
        proxy.cut_after(7 + cut * 5_003)
        # A batch is smaller than what a slow reader may have waiting, so that nothing is conflated.
        publish(server.mqtt_port, [(TOPIC, cut * batch + number) for number in range(batch)])
        eventually(lambda done=(cut + 1) * batch: dashboard.count("received") >= done, 30, f"batch {cut}")  # type: ignore[misc]

    assert dashboard.count("received") == MESSAGES
    assert dashboard.count("repeated") == 0
    assert dashboard.count("opened") > CUTS
    assert dashboard.rows(".tail .row.loss") == []
    # Newest first and without a hole: the page shows the records in the order of the log.
    assert [int(text) for text in dashboard.tail()[:5]] == [MESSAGES - 1 - place for place in range(5)]


def test_one_gap_is_one_row_one_mark_and_one_break_in_each_plot(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """A memory stream begins anew at a restart: the page says so once, everywhere."""
    volatile = '[[streams]]\nname = "volatile"\ntopics = ["sensors/#"]\nstorage = "memory"\n'
    server = serve(FAST_RECONNECT + volatile)
    fields = [f"/{name}" for name in ("temp", "hum")]

    def send(start: int) -> None:
        publish(server.mqtt_port, [(TOPIC, {"temp": number, "hum": -number}) for number in range(start, start + 3)])

    dashboard.open(server.http_url)
    send(0)
    eventually(lambda: [dashboard.points(TOPIC, field) for field in fields] == [3, 3], what="both plots")
    assert dashboard.page.locator(".marks .mark").count() == 0

    server.restart()
    eventually(lambda: dashboard.count("opened") == 2 and dashboard.phase() == "live", 20, "the page is back")
    send(10)

    eventually(lambda: [dashboard.points(TOPIC, field) for field in fields] == [6, 6], what="points on both sides")
    eventually(lambda: [dashboard.breaks(TOPIC, field) for field in fields] == [1, 1], what="a break in each plot")
    assert dashboard.page.locator(".tail .row.loss").count() == 1
    assert dashboard.page.locator(".marks .mark").count() == 1
    assert "the stream began anew" in dashboard.rows(".tail .row.loss")[0]


def test_a_black_hole_is_noticed_within_three_heartbeats(
    proxied: tuple[ServerProcess, FaultyProxy], dashboard: DashboardPage
) -> None:
    """A connection that is open and says nothing is dead; afterwards nothing is missing."""
    server, proxy = proxied
    dashboard.open(f"http://127.0.0.1:{proxy.port}/?heartbeat_s={HEARTBEAT_S}")
    publish(server.mqtt_port, [(TOPIC, number) for number in range(10)])
    eventually(lambda: dashboard.count("received") == 10, what="the first messages")

    proxy.black_hole()
    dashboard.wait_for_phase("waiting", "connecting", timeout_s=3 * HEARTBEAT_S + 1)
    assert "Reconnecting" in dashboard.rows(".status[data-phase]")[0]

    publish(server.mqtt_port, [(TOPIC, number) for number in range(10, 20)])
    proxy.black_hole(False)
    eventually(lambda: dashboard.count("received") == 20, 20, "what came meanwhile")
    assert dashboard.count("repeated") == 0
    dashboard.wait_for_phase("live")


def test_a_hidden_tab_draws_nothing_and_misses_nothing(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """0 changes of the DOM while hidden; shown again, all points are there."""
    server = serve()
    dashboard.page.add_init_script(CAN_HIDE)
    dashboard.open(server.http_url)
    publish(server.mqtt_port, [(TOPIC, number) for number in range(10)])
    eventually(lambda: dashboard.points(TOPIC) == 10, what="the plot")

    dashboard.set_hidden(True)
    dashboard.count_changes("html")
    publish(server.mqtt_port, [(TOPIC, number) for number in range(10, 210)])
    # A second reader has seen them all: the page was sent them, too.
    with httpx.stream("GET", f"{server.http_url}/api/v1/events?topic={TOPIC}&since=-1h") as response:
        lines = response.iter_lines()
        seen = 0
        while seen < 210:
            seen += next(lines).startswith('data: {"topic"')
    assert dashboard.changes() == 0, dashboard.what_changed()

    dashboard.set_hidden(False)
    eventually(lambda: dashboard.points(TOPIC) == 210, what="all points")
    assert dashboard.changes() > 0
    assert dashboard.tail()[0] == "209"
    assert dashboard.count("opened") == 1


def test_an_event_source_resumes_over_a_restart_of_the_server(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """What any program in a browser gets from `EventSource` alone: each offset once, over a crash too."""
    server = serve()
    page = dashboard.page
    page.goto(f"{server.http_url}/docs")
    page.evaluate(
        """(topic) => {
            window.offsets = [];
            window.source = new EventSource('/api/v1/events?topic=' + encodeURIComponent(topic));
            window.source.addEventListener('message', (event) => window.offsets.push(JSON.parse(event.data).offset));
            return new Promise((resolve) => { window.source.onopen = resolve; });
        }""",
        TOPIC,
    )

    def offsets() -> list[int]:
        return list(page.evaluate("window.offsets"))

    publish(server.mqtt_port, [(TOPIC, number) for number in range(20)])
    eventually(lambda: len(offsets()) == 20, what="the first twenty")
    server.kill()
    server.start()
    publish(server.mqtt_port, [(TOPIC, number) for number in range(20, 40)])
    eventually(lambda: len(offsets()) >= 40, 20, "the next twenty")
    server.restart()
    publish(server.mqtt_port, [(TOPIC, number) for number in range(40, 60)])
    eventually(lambda: len(offsets()) >= 60, 20, "the last twenty")

    assert offsets() == list(range(offsets()[0], offsets()[0] + 60))
