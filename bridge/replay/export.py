"""Export: a range of a stream as NDJSON or CSV, at once or at the pace at which it was received, or as Parquet."""

from __future__ import annotations

from collections.abc import Callable

from bridge.replay.output import Output
from bridge.replay.pace import Pacer
from bridge.replay.source import Source, behind
from bridge.replay.text_records import RecordText


def export_text(
    source: Source, form: RecordText, output: Output, pacer: Pacer, on_progress: Callable[[], None]
) -> None:
    """Write what is left of the range of `source`; what is written when it is interrupted is kept.

    Raises: ReplayFailed
    """
    for piece in source.text(form):
        if pacer.is_unbounded:
            output.write(piece.data, piece.records, piece.position)
        else:
            position = output.written.position
            for record in form.records(piece.data):
                pacer.wait_for(form.time_ms(record))
                position = behind(position, form.place(record))
                output.write(record, 1, position)
                on_progress()
            output.write(b"", 0, piece.position)
        on_progress()
    output.finish()


def export_parquet(source: Source, output: Output, on_progress: Callable[[], None]) -> None:
    """Write the range of `source` as a Parquet file.

    Raises: ReplayFailed
    """
    for piece in source.parquet():
        output.write(piece.data, piece.records, piece.position)
        on_progress()
    output.finish()
