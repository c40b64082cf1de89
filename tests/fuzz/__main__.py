"""Fuzzing: ten minutes of bytes that are nearly right, at the engine and at every listener of the real server.

    make fuzz DURATION=600 SEED=7          (python -m tests.fuzz --duration 600 --seed 7)

One half is guided by the lines of code that the input reaches (`guided.py`), the other goes over real sockets to the
real server (`listeners.py`). A traceback in the log, a bystander who is disturbed, or memory that does not come back
ends it with exit code 1; the seed gives the same bytes again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import sys

from tests.fuzz.guided import Guided
from tests.fuzz.listeners import run


def main() -> int:
    """Both halves, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--duration", type=float, default=600, help="seconds in all")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    arguments = parser.parse_args()
    print(f"fuzzing for {arguments.duration:.0f} s, SEED={arguments.seed}", flush=True)
    logging.getLogger("headrace").setLevel(logging.ERROR)  # each mistake of a peer is a line
    guided = Guided(arguments.seed)
    guided.run(arguments.duration / 2)
    edges = len(guided.coverage.seen)
    print(f"engine: {guided.tried:,} inputs, {len(guided.corpus):,} kept, {edges:,} steps of code reached", flush=True)
    print(asyncio.run(run(arguments.seed, arguments.duration / 2)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
