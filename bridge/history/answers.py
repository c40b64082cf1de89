"""Which collector answers which question: the one list that every storage asks."""

from __future__ import annotations

from typing import Any, cast

from bridge.history.scan import AnswerT, Question, Scan
from bridge.streams.collect import Collector, ScanCollector, TopicChoice

_COLLECTORS: dict[type, Any] = {Scan: ScanCollector}


def collector_for(
    request: Question[AnswerT], kept: tuple[int, int], start: int, end: int, choice: TopicChoice
) -> Collector[AnswerT]:
    """A new collector; `kept` is the log's first and next offset, `start <= o < end` what to look at."""
    return cast("Collector[AnswerT]", _COLLECTORS[type(request)](request, kept, start, end, choice))
