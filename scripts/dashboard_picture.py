"""Takes README's picture of the dashboard, docs/images/dashboard.png: a fresh `headrace demo` in real Chromium.

    python -m scripts.dashboard_picture [--minutes 4] [--theme dark|light] [--chromium PATH] [--output FILE]

Nothing in the picture is drawn by hand; after a change of the page, run it again.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "images" / "dashboard.png"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTH, HEIGHT, SCALE = 1440, 900, 1.5
START_TIMEOUT_S = 60


def demo_address(process: subprocess.Popen[str]) -> str:
    """The dashboard's address, as the demo prints it.

    Raises:
        RuntimeError: it ended, or printed no address before it was ready.
    """
    address = None
    assert process.stdout is not None
    deadline = time.monotonic() + START_TIMEOUT_S
    for line in process.stdout:
        if found := re.search(r"(?:dashboard|Open)\s+(http://\S+)", line):
            address = found[1]
        if line.strip() == "ready" and address:
            return address
        if time.monotonic() > deadline:
            break
    raise RuntimeError("headrace demo did not get ready")


def take(page: Page, address: str, history_s: float, output: Path) -> None:
    """Let the demo fill its history, then take the picture of a page that was opened fresh."""
    time.sleep(history_s)
    page.goto(address)
    page.locator(".status[data-phase=live]").wait_for()
    page.locator(".plot[data-points]").nth(5).wait_for()
    expect(page.locator(".plot .earlier")).to_have_count(0)
    page.wait_for_timeout(1_500)  # a second and a half of live messages in every place
    output.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=output)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Takes README's picture of the dashboard.")
    parser.add_argument("--minutes", type=float, default=4, help="how much history the plots show")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--chromium", default=next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    if options.chromium is None:
        print("error: there is no Chromium on PATH; name one with --chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="headrace-picture-") as directory:
        command = [sys.executable, "-m", "bridge.cli", "demo", "--data", directory]
        for listener in ("--mqtt", "--ws", "--http"):
            command += [listener, "127.0.0.1:0"]
        demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = demo_address(demo)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
                page = browser.new_page(
                    viewport={"width": WIDTH, "height": HEIGHT},
                    device_scale_factor=SCALE,
                    color_scheme=options.theme,
                )
                take(page, address, options.minutes * 60, options.output)
                browser.close()
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(30)
    print(f"{options.output}  {options.output.stat().st_size // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
