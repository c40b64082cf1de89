"""Fails when a pytest report holds skipped tests, and names them: `python scripts/nothing_skipped.py REPORT.xml`."""

from __future__ import annotations

import sys
from xml.etree import ElementTree


def main(path: str) -> int:
    """Exit code for the report at `path`."""
    skipped = [
        f"{case.get('classname')}::{case.get('name')}: {reason.get('message')}"
        for case in ElementTree.parse(path).iter("testcase")
        for reason in case.findall("skipped")
        if reason.get("type") != "pytest.xfail"
    ]
    for line in skipped:
        print(f"error: skipped where nothing may be: {line}", file=sys.stderr)
    return 1 if skipped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
