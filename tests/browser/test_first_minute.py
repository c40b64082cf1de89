"""What a newcomer sees: the first screen, the first message, and that it is still there after a reload."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.browser.dashboard_page import DashboardPage
from tests.browser.publishing import publish
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

pytestmark = pytest.mark.slow

TOPIC = "sensors/demo/temp"


def test_the_first_message_appears_without_a_click(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """Tree, plot and tail have it, and a bar says who sent it."""
    server = serve()
    dashboard.open(server.http_url)
    assert dashboard.rows("h1") == ["Waiting for the first device"]

    publish(server.mqtt_port, [(TOPIC, {"temp": 21.5})], client_id="esp32-1")

    eventually(lambda: dashboard.tail() == ['{"temp":21.5}'], what="the message in the tail")
    eventually(lambda: dashboard.points(TOPIC, "/temp") == 1, what="its plot")
    assert [row.split("\n")[0].strip("▸ ") for row in dashboard.rows(".tree .label")] == ["sensors", "demo", "temp"]
    assert "First message from esp32-1" in dashboard.rows(".notice")[0]


def test_a_device_that_is_refused_is_named_with_the_reason(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """On the first screen and below the devices; one that tries again is one line."""
    server = serve()
    dashboard.open(server.http_url)
    none = dashboard.page.get_by_text("A device that is refused appears here, with the reason.")
    none.wait_for()
    for _ in range(2):
        with RawClient(server.mqtt_port, wire.V311) as device:
            device.send(wire.connect("$ingest/esp32", wire.V311))
            assert device.expect(wire.CONNACK).reason_code == 2
    with RawClient(server.mqtt_port) as browser:
        browser.send(b"GET / HTTP/1.1\r\n\r\n")
        browser.expect_closed()

    def lines() -> list[list[str]]:
        return [line.split("\n")[1:] for line in dashboard.rows(".refused li")]

    expected = [
        ["127.0.0.1", "–", "spoke HTTP to a port for MQTT"],
        ["127.0.0.1", "$ingest/esp32", "its client id is not taken, 2 times"],
    ]
    eventually(lambda: lines() == expected, what="the lines on the first screen")
    assert none.count() == 0
    assert dashboard.rows("h1") == ["Waiting for the first device"], "nobody has connected yet"
    dashboard.page.goto(f"{server.http_url}/devices")
    eventually(lambda: lines() == expected, what="the lines below the devices")


def test_a_reload_after_500_messages_shows_500_points(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """The plot is filled from the log, then goes on live without gap or repeat."""
    server = serve()
    publish(server.mqtt_port, [(TOPIC, {"temp": number / 10}) for number in range(500)])

    dashboard.open(server.http_url)
    eventually(lambda: dashboard.points(TOPIC, "/temp") == 500, what="500 points")
    dashboard.page.reload()
    eventually(lambda: dashboard.points(TOPIC, "/temp") == 500, what="500 points again")

    publish(server.mqtt_port, [(TOPIC, {"temp": 7})])
    eventually(lambda: dashboard.points(TOPIC, "/temp") == 501, what="the live point behind them")
    assert dashboard.tail()[0] == '{"temp":7}'


@pytest.mark.parametrize(
    ("way", "program"),
    [
        pytest.param(
            "Shell",
            ["sh", "-c"],
            marks=pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed"),
        ),
        pytest.param("Python", [sys.executable, "-c"]),
        pytest.param(
            "curl",
            ["sh", "-c"],
            marks=pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
        ),
    ],
)
def test_a_copied_sample_arrives(
    way: str, program: list[str], serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """The samples of the first screen work as they stand there."""
    server = serve()
    dashboard.open(server.http_url)
    dashboard.page.get_by_role("tab", name=way, exact=True).click()
    sample = dashboard.page.locator("#way pre").inner_text()

    subprocess.run([*program, sample], check=True, timeout=20, capture_output=True)

    eventually(lambda: dashboard.tail() == ['{"temp":21.5}'], what="the message in the tail")


def test_nothing_breaks_the_content_security_policy_or_leaves_this_server(
    serve: Callable[..., ServerProcess], dashboard: DashboardPage
) -> None:
    """0 reports and 0 requests to other origins, over the page, the first screen and /docs."""
    server = serve()
    publish(server.mqtt_port, [(TOPIC, {"temp": 1, "door": "open"}), (TOPIC, {"temp": 2, "door": "closed"})])
    requested: list[str] = []
    complaints: list[str] = []
    page = dashboard.page
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.add_init_script(
        "window.reports = [];"
        "addEventListener('securitypolicyviolation', (event) => window.reports.push(event.violatedDirective))"
    )

    dashboard.open(server.http_url)
    eventually(lambda: dashboard.points(TOPIC, "/temp") == 2, what="the plot")
    page.get_by_role("button", name="Theme:").click()
    page.locator(".tail .row").first.click()
    page.locator(".detail pre").wait_for()
    reports = page.evaluate("window.reports")
    dashboard.open(f"{server.http_url}/?welcome")
    page.locator("#way pre").wait_for()
    reports += page.evaluate("window.reports")
    response = page.goto(f"{server.http_url}/docs")
    assert response is not None
    assert "script-src 'self'" in response.headers["content-security-policy"]
    page.wait_for_load_state("networkidle")
    reports += page.evaluate("window.reports")

    assert reports == []
    assert complaints == []
    assert [url for url in requested if not url.startswith(server.http_url)] == []
