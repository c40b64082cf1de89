"""The time bar: what was then is what was sent until then, a replay keeps order and pace, silence is not loss."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from tests.browser.dashboard_page import DashboardPage
from tests.browser.publishing import publish
from tests.browser.server_clock import other_clock
from tests.support.conditions import eventually, throughout
from tests.support.server import ServerProcess

pytestmark = pytest.mark.slow

TOPICS = ("plant/hall1/temp", "plant/hall1/hum", "plant/hall2/temp", "plant/hall2/door")
Message = tuple[str, object]


def messages(first: int, count: int) -> list[Message]:
    """Some for each topic, each with a payload of its own."""
    return [(TOPICS[number % len(TOPICS)], number) for number in range(first, first + count)]


def moment_after() -> int:
    """A millisecond in which nothing is sent any more, after what was acknowledged; in it nothing new comes."""
    moment_ms = time.time_ns() // 1_000_000 + 1
    eventually(lambda: time.time_ns() // 1_000_000 > moment_ms, what="the next millisecond")
    return moment_ms


def state_of(sent: list[Message]) -> dict[str, str]:
    """The latest value of each topic, as the page writes it."""
    return {topic: str(payload) for topic, payload in sent}


def test_at_a_moment_tree_tail_and_values_are_what_was_sent_until_then(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """At T everything is computed from the log; it equals what the devices had sent, topic by topic."""
    server = serve()
    before = messages(0, 41)
    publish(server.mqtt_port, before)
    moment_ms = moment_after()
    publish(server.mqtt_port, [*messages(41, 30), ("plant/hall3/new", 1)])

    dashboard.open_past(f"{server.http_url}/?t={moment_ms}")

    assert dashboard.tree() == state_of(before)
    rows = dashboard.tail()
    assert rows == [str(payload) for _, payload in reversed(before)][: len(rows)]
    assert dashboard.moment().startswith("Past · ")
    for topic in TOPICS:
        dashboard.open_past(f"{server.http_url}/?t={moment_ms}&b={topic}")
        points = sum(sent_topic == topic for sent_topic, _ in before)
        eventually(lambda: dashboard.points(topic) == points, what=f"{points} points of {topic}")  # noqa: B023
        assert dashboard.rows(".tile .now") == [state_of(before)[topic]]


def test_each_step_back_takes_one_message_away(serve: Callable[..., ServerProcess], dashboard: DashboardPage) -> None:
    """`,` and `.` walk over the messages; each stop shows the state of its own moment."""
    server = serve()
    sent = messages(0, 6)
    for message in sent:
        publish(server.mqtt_port, [message])
        moment_after()
    dashboard.open(server.http_url)

    for end in (5, 4, 3):
        dashboard.page.keyboard.press(",")
        eventually(lambda: dashboard.tail()[:1] == [str(end - 1)], what=f"{end} messages")  # noqa: B023
        dashboard.wait_for_past()
        assert dashboard.tree() == state_of(sent[:end])
    dashboard.page.keyboard.press(".")
    eventually(lambda: dashboard.tree() == state_of(sent[:4]), what="one message on")
    dashboard.page.keyboard.press("l")
    eventually(lambda: dashboard.tree() == state_of(sent), what="now")
    assert dashboard.mode == "live"


def test_in_the_past_nothing_live_is_drawn(serve: Callable[..., ServerProcess], dashboard: DashboardPage) -> None:
    """0 changes of the DOM in the views while messages come; live again, all of them are there."""
    server = serve()
    publish(server.mqtt_port, messages(0, 20))
    moment_ms = moment_after()
    dashboard.open_past(f"{server.http_url}/?t={moment_ms}")
    dashboard.wait_for_phase("live")
    page = dashboard.page
    eventually(lambda: [dashboard.points(topic) for topic in TOPICS] == [5] * len(TOPICS), what="the plots")
    eventually(lambda: page.locator(".plot .earlier").count() == 0, what="their histories")
    dashboard.count_changes()

    publish(server.mqtt_port, messages(20, 200))
    eventually(lambda: dashboard.count("received") >= 200, what="the messages, in the worker")
    assert dashboard.changes() == 0, dashboard.what_changed()
    assert dashboard.tree() == state_of(messages(0, 20))

    page.get_by_role("button", name="Live", exact=True).click()
    eventually(lambda: dashboard.tree() == state_of(messages(0, 220)), what="what is now")
    assert "t=" not in page.evaluate("location.search")


def test_a_pause_changes_nothing_and_loses_nothing(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """0 changes of the DOM in the views; going on, every message is there."""
    server = serve()
    publish(server.mqtt_port, messages(0, 20))
    dashboard.open(f"{server.http_url}/?b=plant")
    eventually(lambda: dashboard.tree() == state_of(messages(0, 20)), what="the tree")
    page = dashboard.page
    eventually(lambda: dashboard.points(TOPICS[0]) == 5, what="the plots")
    eventually(lambda: page.locator(".plot .earlier").count() == 0, what="their histories")

    page.keyboard.press("Space")
    eventually(lambda: dashboard.mode == "paused", what="the pause")
    dashboard.count_changes()
    publish(server.mqtt_port, messages(20, 400))
    eventually(lambda: dashboard.moment() == "○ Paused · 400 new", what="the count of what is new")
    assert dashboard.changes() == 0

    page.keyboard.press("Space")
    eventually(lambda: dashboard.tree() == state_of(messages(0, 420)), what="what came meanwhile")
    eventually(lambda: dashboard.points(TOPICS[0]) == 105, what="all points")
    assert dashboard.count("received") == 400
    assert dashboard.count("opened") == 1


def test_a_plot_of_more_messages_than_points_hides_none_of_their_values(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """What is before the last thousands comes as lowest and highest values, now and at a moment."""
    server = serve()
    values = [900, -900, *(number % 50 for number in range(5_000))]
    for start in range(0, len(values), 1_000):
        publish(server.mqtt_port, [(TOPICS[0], value) for value in values[start : start + 1_000]])
    moment_ms = moment_after()
    plot = dashboard.page.locator(".plot[data-points]")

    def summary() -> str:
        plot.blur()
        plot.focus()
        return plot.get_attribute("aria-label") or ""

    dashboard.open(f"{server.http_url}/?b={TOPICS[0]}")
    eventually(lambda: "-900 to 900" in summary(), 20, "all values, live")
    assert dashboard.points(TOPICS[0]) >= 4_096
    dashboard.open_past(f"{server.http_url}/?b={TOPICS[0]}&t={moment_ms}")
    eventually(lambda: "-900 to 900" in summary(), 20, "all values, at the moment")
    assert dashboard.points(TOPICS[0]) < 1_000


@pytest.mark.timeout(120)
def test_a_replay_keeps_order_and_pace(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage, tmp_path: Path
) -> None:
    """×10: the order of the log, and event time ÷ wall time between 8 and 12."""
    # An hour ago time flew: one second of ours was ten of the server's.
    server = serve(environment=other_clock(tmp_path / "clock", behind_s=3600, speed=10))
    started_s = time.monotonic()
    for number in range(40):
        publish(server.mqtt_port, [(TOPICS[0], number)])
        # Spread over four of our seconds: 40 of the server's.
        eventually(lambda due=(number + 1) / 10: time.monotonic() - started_s >= due, what="its turn")  # type: ignore[misc]
    server.environment = {}
    server.restart()
    records = httpx.get(f"{server.http_url}/api/v1/streams/default/records").json()["records"]
    time_ms = [time_of(record["time"]) for record in records]
    assert [record["payload"] for record in records] == list(range(40))
    assert time_ms[-1] - time_ms[0] > 30_000, "the server's time did not fly"

    dashboard.page.set_viewport_size({"width": 1440, "height": 2600})
    # A page that hung while the first messages came has seen too little of the pace to judge it by.
    for _ in range(3):
        seen = replayed(dashboard, f"{server.http_url}/?t={time_ms[0] - 1}", count=len(records))
        if seen[0][0] < 5:
            break
    assert dashboard.tail() == [str(number) for number in reversed(range(40))]
    (first, first_at_ms), (last, last_at_ms) = seen[0], seen[-1]
    assert (first < 5, last) == (True, 39)
    assert 8 <= (time_ms[last] - time_ms[first]) / (last_at_ms - first_at_ms) <= 12


def replayed(dashboard: DashboardPage, url: str, *, count: int) -> list[tuple[int, float]]:
    """Which message was the newest, and when (ms), over a replay at ×10 of `count` messages from before the first."""
    page = dashboard.page
    dashboard.open_past(url)
    assert dashboard.tail() == []
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                const newest = document.querySelector('.tail .row .payload')?.textContent;
                if (newest === undefined || newest === window.seen.at(-1)?.[0]) return;
                window.seen.push([newest, performance.now()]);
            }).observe(document.querySelector('main'), {subtree: true, childList: true, characterData: true});
        }"""
    )
    page.keyboard.press("3")
    eventually(lambda: dashboard.moment().startswith("×10 · "), what="the replay")
    eventually(lambda: len(dashboard.tail()) == count, 60, "all messages again")
    seen = [(int(text), at_ms) for text, at_ms in page.evaluate("window.seen")]
    assert [number for number, _ in seen] == sorted(number for number, _ in seen)
    return seen


def time_of(text: str) -> int:
    """Epoch milliseconds of a time of the API."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def test_a_replay_ends_where_now_is(serve: Callable[..., ServerProcess], dashboard: DashboardPage) -> None:
    """The event `live` makes the page live: it says so, and goes on with what comes."""
    server = serve()
    publish(server.mqtt_port, messages(0, 20))
    moment_ms = moment_after()
    publish(server.mqtt_port, messages(20, 20))

    dashboard.page.goto(f"{server.http_url}/?t={moment_ms}&x=max")
    eventually(lambda: dashboard.mode == "live", 20, "now")
    eventually(lambda: "Caught up with now" in dashboard.rows(".status[data-phase]")[0], what="that it caught up")
    publish(server.mqtt_port, messages(40, 20))
    eventually(lambda: dashboard.tree() == state_of(messages(0, 60)), what="what is now")
    assert "t=" not in dashboard.page.evaluate("location.search")


def test_an_hour_without_messages_is_no_loss(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage, tmp_path: Path
) -> None:
    """0 marks on the bar and 0 breaks in the plot; the bar says that nothing was sent."""
    server = serve(environment=other_clock(tmp_path / "clock", behind_s=65 * 60))
    publish(server.mqtt_port, [(TOPICS[0], number) for number in range(3)])
    server.environment = {}
    server.restart()
    publish(server.mqtt_port, [(TOPICS[0], number) for number in range(3)])
    records = httpx.get(f"{server.http_url}/api/v1/streams/default/records").json()["records"]
    assert time_of(records[3]["time"]) - time_of(records[2]["time"]) > 3_600_000

    dashboard.open(f"{server.http_url}/?w=3h&b={TOPICS[0]}")
    eventually(lambda: dashboard.points(TOPICS[0]) == 6, what="both sides of the hour")
    assert dashboard.breaks(TOPICS[0]) == 0
    slider = dashboard.page.get_by_role("slider", name="Time")
    slider.focus()
    for _ in range(40):  # 40 buckets of 45 s: half an hour back
        dashboard.page.keyboard.press("ArrowLeft")
    dashboard.wait_for_past()
    eventually(lambda: "no message in these 45 s" in (slider.get_attribute("aria-valuetext") or ""), what="silence")
    throughout(lambda: dashboard.page.locator(".marks .mark").count() == 0, 0.5, "no mark")
    dashboard.page.keyboard.press("End")
    eventually(lambda: dashboard.mode == "live", what="now")


def test_the_bar_counts_what_was_sent(serve: Callable[..., ServerProcess], dashboard: DashboardPage) -> None:
    """A click on the bar's end is the moment below it; the bar says how many messages that time had, of the filter."""
    server = serve()
    publish(server.mqtt_port, messages(0, 40))
    dashboard.open(f"{server.http_url}/?f=plant/hall1/%23&w=1h")
    page = dashboard.page
    slider = page.get_by_role("slider", name="Time")
    box = slider.bounding_box()
    assert box is not None

    def counted_at(place: float) -> int:
        page.mouse.move(box["x"] + box["width"] * place - 1, box["y"] + 10)
        text = eventually(lambda: re.search(r"(no|\d+) messages? in these 15 s", "".join(dashboard.rows(".hover"))))
        assert text is not None
        return 0 if text[1] == "no" else int(text[1])

    # Two buckets of 15 s hold all of it, whatever the second.
    eventually(lambda: counted_at(1) + counted_at(1 - 1 / 240) == 20, what="every message of the filter")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    dashboard.wait_for_past()
    assert dashboard.tree() == {}
    assert "Nothing had been sent yet." in dashboard.rows(".tree .reason")[0]
    page.go_back()
    eventually(lambda: dashboard.mode == "live" and len(dashboard.tree()) == 2, what="what was before the click")


def test_addresses_show_the_same_in_a_fresh_browser(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage, browser: Browser
) -> None:
    """Heading, filter, moment and rows are those of who copied the address."""
    server = serve()
    publish(server.mqtt_port, messages(0, 24))
    moment_ms = moment_after()
    publish(server.mqtt_port, messages(24, 10))
    paths = [
        "",
        "?f=plant/hall1/%23",
        "?f=hum&sort=newest",
        "?b=plant/hall2",
        "topic?name=plant/hall1/temp",
        f"?t={moment_ms}",
        f"?t={moment_ms}&w=1h&b=plant/hall1/hum",
        f"?t={moment_ms}&f=plant/%2B/temp",
        f"topic?name=plant/hall2/door&t={moment_ms}",
        "?welcome",
        "streams",
        "stream?name=default",
        "devices",
    ]
    for path in paths:
        dashboard.page.goto(f"{server.http_url}/{path}")
        shown = eventually(lambda: settled(dashboard), 15, path)
        fresh = browser.new_context(viewport={"width": 1440, "height": 900})
        try:
            other = DashboardPage(fresh.new_page())
            other.page.goto(dashboard.page.evaluate("location.href"))
            eventually(lambda: settled(other) == shown, 15, f"{path}: {shown}")  # noqa: B023
        finally:
            fresh.close()


def settled(dashboard: DashboardPage) -> dict[str, object] | None:
    """What an address stands for, once it is on the screen."""
    page = dashboard.page
    is_stale = page.locator(".frame.is-stale, .reason.late").count() > 0
    heading = dashboard.rows("main h1")
    if is_stale or not heading:
        return None
    if heading == ["Live"] and not dashboard.tree():
        return None
    return {
        "heading": heading,
        "filter": page.get_by_label("Filter messages").input_value(),
        "moment": dashboard.moment().rsplit(" · ", 1)[0],  # how long ago it is, is another matter
        "tree": dashboard.tree(),
        "tail": dashboard.tail(),
        "fields": dashboard.rows(".tile h3"),
        "streams": dashboard.rows("[data-stream] th"),
    }
