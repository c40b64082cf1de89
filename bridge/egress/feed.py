"""EgressFeed: one egress's way through the streams; what is gone is counted and told to people, not sent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bridge.live.replays import LogFeed
from broker.replay import ReplayPiece

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.history.scan import BareForm
    from bridge.live.replays import LogReplays
    from bridge.live.start import Gap
    from bridge.streams.log import StreamLog
    from broker.replay import ReplayReader, ReplayRequest

log = logging.getLogger("headrace.egress")


class EgressFeed(LogFeed):
    """A `LogFeed` over several filters, whose frames are made for another broker."""

    __slots__ = ("_on_gap",)

    def __init__(
        self,
        replays: LogReplays,
        logs: Sequence[StreamLog],
        request: ReplayRequest,
        reader: ReplayReader,
        *,
        filters: tuple[str, ...],
        bare: BareForm,
        on_gap: Callable[[Gap], None],
    ) -> None:
        super().__init__(replays, logs, request, reader, filters, bare)
        self._on_gap = on_gap

    def _gap_piece(self, gaps: Sequence[Gap]) -> ReplayPiece:
        for gap in gaps:
            self._on_gap(gap)
        return ReplayPiece(b"", 0, None, self.request.is_v5, lambda row: gaps[-1].after)
