"""The dashboard as a test sees it: what is on the screen, read from the DOM."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.support.conditions import eventually

CAN_HIDE = """
(() => {
  let isHidden = false;
  Object.defineProperty(document, 'hidden', {get: () => isHidden});
  Object.defineProperty(document, 'visibilityState', {get: () => isHidden ? 'hidden' : 'visible'});
  window.setHidden = (value) => { isHidden = value; document.dispatchEvent(new Event('visibilitychange')); };
})()
"""
"""Headless Chromium never hides a tab: the page is told so by what it listens to."""

COUNT_CHANGES = """
() => {
  window.changes = 0;
  new MutationObserver((records) => { window.changes += records.length; })
    .observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
}
"""


class DashboardPage:
    """One tab."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, url: str) -> None:
        """Load and wait until the stream is live."""
        self.page.goto(url)
        self.wait_for_phase("live")

    def phase(self) -> str:
        """What the connection does: connecting, catching-up, live, waiting…"""
        return self.page.locator(".status[data-phase]").get_attribute("data-phase") or ""

    def wait_for_phase(self, *phases: str, timeout_s: float = 15) -> None:
        """Until the connection is in one of these."""
        eventually(lambda: self.phase() in phases, timeout_s, f"phase {' or '.join(phases)}")

    def count(self, name: str) -> int:
        """`received`, `repeated` or `opened`."""
        return int(self.page.locator(".status[data-phase]").get_attribute(f"data-{name}") or 0)

    def rows(self, selector: str) -> list[str]:
        """The text of what matches."""
        return self.page.locator(selector).all_inner_texts()

    def tail(self) -> list[str]:
        """Payloads of the messages in sight, newest first."""
        return self.rows(".tail .row .payload")

    def points(self, topic: str, pointer: str = "") -> int:
        """Points of a field's plot; -1 while it is not there."""
        return self._plot_number(topic, pointer, "points")

    def breaks(self, topic: str, pointer: str = "") -> int:
        """Places where a loss interrupts its line."""
        return self._plot_number(topic, pointer, "breaks")

    def _plot_number(self, topic: str, pointer: str, name: str) -> int:
        plot = self.page.locator(f'.plot[data-field="{topic} {pointer}"]')
        return int(plot.get_attribute(f"data-{name}") or 0) if plot.count() else -1

    def set_hidden(self, is_hidden: bool) -> None:
        """Hide the tab or show it again; needs `CAN_HIDE` before the page was opened."""
        self.page.evaluate("(value) => window.setHidden(value)", is_hidden)
