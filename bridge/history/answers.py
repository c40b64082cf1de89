"""How each kind of question is answered: its collector, and its walk over stored rows. The one list of them."""

from __future__ import annotations

from typing import Any, cast

from bridge.history.columns import ColumnsCollector
from bridge.history.filter_ids import FilterIds
from bridge.history.histogram import HistogramCollector, HistogramQuestion, HistogramSearch
from bridge.history.row_search import RowSearch
from bridge.history.scan import AnswerT, Question, Scan
from bridge.history.series import SeriesCollector, SeriesQuestion, SeriesSearch
from bridge.history.state import StateCollector, StateQuestion
from bridge.history.state_search import StateSearch
from bridge.history.stored_rows import StreamRows
from bridge.streams.collect import Collector, ScanCollector, TopicChoice

_COLLECTORS: dict[type, Any] = {
    Scan: ScanCollector,
    HistogramQuestion: HistogramCollector,
    SeriesQuestion: SeriesCollector,
    StateQuestion: StateCollector,
}
_ROW_SEARCHES: dict[type, Any] = {
    Scan: RowSearch,
    HistogramQuestion: HistogramSearch,
    SeriesQuestion: SeriesSearch,
    StateQuestion: StateSearch,
}


def collector_for(
    request: Question[AnswerT], kept: tuple[int, int], start: int, end: int, choice: TopicChoice
) -> Collector[AnswerT]:
    """A new collector; `kept` is the log's first and next offset, `start <= o < end` what to look at."""
    kind = _COLLECTORS[type(request)]
    if isinstance(request, Scan) and request.encoding == "columns":
        kind = ColumnsCollector
    return cast("Collector[AnswerT]", kind(request, kept, start, end, choice))


def row_search_for(
    request: Question[AnswerT], rows: StreamRows, collector: Collector[AnswerT], filter_ids: FilterIds
) -> RowSearch:
    """The walk over a stored stream's rows that fills the collector."""
    return cast("RowSearch", _ROW_SEARCHES[type(request)](rows, collector, filter_ids))
