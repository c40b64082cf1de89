"""The Devices view: who is there, what happened to one, and that a take-over is never drawn as offline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest

from tests.browser.conftest import FAST_RECONNECT
from tests.browser.dashboard_page import DashboardPage
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

pytestmark = pytest.mark.slow

KEPT: wire.Properties = {wire.SESSION_EXPIRY: 3600}


def test_a_device_is_found_looked_at_and_closed(serve: Callable[..., ServerProcess], dashboard: DashboardPage) -> None:
    """From the list to its page; a take-over is a tick and no gap; a command names what it costs, then does it."""
    server = serve(FAST_RECONNECT)
    page = dashboard.page
    with ExitStack() as stack:

        def connect(client_id: str) -> RawClient:
            client = RawClient(server.mqtt_port)
            stack.callback(client.close)
            client.connect(client_id, clean=False, properties=KEPT)
            return client

        connect("hall/7")
        connect("p8").subscribe(("cmd/p8", 1))
        connect("p8")
        connect("away").close()
        page.goto(f"{server.http_url}/devices")
        rows = page.locator("[data-device]")
        eventually(lambda: rows.count() == 3, what="the devices")
        states = rows.evaluate_all("rows => rows.map((row) => [row.dataset.device, row.dataset.state])")
        assert states == [["away", "session"], ["hall/7", "online"], ["p8", "online"]]

        page.get_by_role("link", name="p8").click()
        eventually(lambda: dashboard.rows("main h1") == ["p8"], what="its page")
        assert page.evaluate("location.pathname + location.search") == "/device?id=p8"
        eventually(lambda: page.locator("[data-seq]").count() == 2, what="its changes")
        assert page.locator(".lane .is-online").count() == 1
        assert page.locator(".lane .tick").count() == 1
        assert page.locator(".lane :is(.is-gone, .is-session)").count() == 0

        page.get_by_role("button", name="Forget session").click()
        assert "its connection and 1 subscription will be lost" in page.get_by_role("alertdialog").inner_text()
        page.get_by_role("alertdialog").get_by_role("button", name="Forget session").click()
        words = page.locator(".changes li")
        eventually(lambda: words.count() == 4, what="what the command did")
        assert "by admin: its session was forgotten" in words.first.inner_text()
        assert not httpx.get(f"{server.http_url}/api/v1/devices/p8").json()["online"]

        words.last.get_by_role("button").click()  # the moment of its first connect
        dashboard.wait_for_past()
        # The take-over may have come in the same millisecond.
        eventually(lambda: 1 <= page.locator("[data-seq]").count() <= 2, what="what had happened by then")
        assert page.get_by_role("button", name="Forget session").count() == 0


def test_what_a_device_sent_is_a_lane_below_its_connection(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """Its own messages alone, as they come; a device that nobody knows has none."""
    server = serve(FAST_RECONNECT)
    page = dashboard.page
    with RawClient(server.mqtt_port) as device, RawClient(server.mqtt_port) as other:
        device.connect("p7")
        other.connect("p8")
        for number in range(3):
            device.publish_acknowledged("hall/x", b"%d" % number)
            other.publish_acknowledged("hall/x", b"%d" % number)
        dashboard.open(f"{server.http_url}/device?id=p7&w=5m")
        lane = page.locator(".sent")
        eventually(lambda: "From it: 3 messages" in lane.inner_text(), what="the first three")
        assert lane.locator("path").get_attribute("d")
        device.publish_acknowledged("hall/x", b"3")
        eventually(lambda: "From it: 4 messages" in lane.inner_text(), what="the fourth")
        assert lane.locator("rect").count() == 0, "everything is counted and kept"
        page.goto(f"{server.http_url}/device?id=p9")
        page.get_by_text("This server does not know the device").wait_for()
        assert lane.count() == 0
