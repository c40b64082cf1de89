"""Two minutes of random faults; `make chaos` runs twenty."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.kafka.chaos import Chaos, summary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("kafka_distribution")]

SECONDS = 60.0


@pytest.mark.parametrize("brokers", [1, 3])
def test_random_faults_lose_nothing_and_repeat_nothing(brokers: int, tmp_path: Path) -> None:
    """Another seed each time; SEED repeats one (it decides the faults, not the moment in which they hit)."""
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    with Chaos(tmp_path, seed, brokers) as chaos:
        report = chaos.run(SECONDS)
        course = "\n".join([*report.wrong, "", *report.lines, "", *report.evidence, "", summary(chaos)])
    assert not report.wrong, course
    assert report.looks, course
