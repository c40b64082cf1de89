"""The dashboard as a test sees it: what is on the screen, read from the DOM."""

from __future__ import annotations

import time

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
(selector) => {
  window.changes = 0;
  window.observer?.disconnect();
  window.changed = [];
  window.observer = new MutationObserver((records) => {
    window.changes += records.length;
    for (const {type, target, attributeName, oldValue} of records.slice(0, 5)) {
      const place = target.nodeType === 3 ? target.parentElement : target;
      const text = place?.textContent?.slice(0, 80);
      const name = `${place?.tagName}.${place?.className}`;
      window.changed.push(`${type} ${attributeName ?? ''} of ${name}: ${text}, was ${oldValue}`);
    }
  });
  const watched = selector ? document.querySelector(selector) : document;
  window.observer.observe(watched, {
    subtree: true, childList: true, attributeOldValue: true, characterDataOldValue: true
  });
}
"""
STILL_S = 0.3


class DashboardPage:
    """One tab."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, url: str) -> None:
        """Load and wait until the stream is live."""
        self.page.goto(url)
        self.wait_for_phase("live")

    def open_past(self, url: str) -> None:
        """Load an address with a moment and wait until what was then is on the screen."""
        self.page.goto(url)
        self.wait_for_past()

    def wait_for_past(self) -> None:
        """Until the page shows the moment that was asked for."""
        shown = self.page.locator(".frame:is(.is-past, .is-replaying):not(.is-stale)")
        eventually(lambda: shown.count() == 1, 15, "what was then")

    @property
    def mode(self) -> str:
        """`live`, `paused`, `past` or `replaying`."""
        classes = (self.page.locator(".frame").get_attribute("class") or "").split()
        return next(name.removeprefix("is-") for name in classes if name.startswith("is-"))

    def moment(self) -> str:
        """What the header says of the moment on screen; empty while it is live."""
        return " ".join(" ".join(self.rows(".status.moment")).split())

    def tree(self) -> dict[str, str]:
        """Value by topic, of the topics in sight."""
        rows = self.page.locator(".tree .row.is-topic")
        return dict(rows.evaluate_all("rows => rows.map(row => [row.title, row.querySelector('.value').textContent])"))

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

    def count_changes(self, where: str = "main") -> None:
        """From now on count the changes of the DOM there (the views), as soon as what is on its way has come."""

        def is_still() -> bool:
            self.page.evaluate(COUNT_CHANGES, where)
            end_s = time.monotonic() + STILL_S
            while time.monotonic() < end_s and not self.changes():
                self.page.wait_for_timeout(20)
            return self.changes() == 0

        eventually(is_still, what="a screen that rests")

    def changes(self) -> int:
        """How many there were since `count_changes`."""
        return int(self.page.evaluate("window.changes"))

    def what_changed(self) -> list[str]:
        """The first of them, for people."""
        return list(self.page.evaluate("window.changed"))

    def set_hidden(self, is_hidden: bool) -> None:
        """Hide the tab or show it again; needs `CAN_HIDE` before the page was opened."""
        self.page.evaluate("(value) => window.setHidden(value)", is_hidden)
