"""ParquetFile: one Parquet file of many row groups, given away in pieces while it is written.

Nothing but the row group that is being filled is held in memory, and at the end the footer. pyarrow is imported when
the first file begins, in the process that writes it: it takes 60 MB.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from bridge.history.columns import ENCODINGS, Columns

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_RECORDS = 32_768
ROW_GROUP_BYTES = 16 * 1024 * 1024
"""A row group is written when it has so many records, or so many bytes of payloads: some 30 ms."""

_QOS = bytes([value >> 1 & 3 for value in range(256)])
_RETAIN = bytes([value & 1 for value in range(256)])


class _Pipe:
    """What pyarrow writes to: a file that cannot be sought in, and whose bytes are taken away."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        """What was written since the last time."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """There is nothing to close."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


class ParquetFile:
    """A file in the making."""

    def __init__(self) -> None:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet

        self._arrow = pyarrow
        self._schema = schema(pyarrow)
        self._pipe = _Pipe()
        self._writer = pyarrow.parquet.ParquetWriter(
            pyarrow.PythonFile(self._pipe, mode="w"),
            self._schema,
            compression="snappy",
            use_dictionary=["topic", "encoding", "client_id", "stream", "epoch"],
            store_schema=False,  # for readers a word is a text, not a number in a dictionary
        )
        self._batches: list[pa.RecordBatch] = []
        self._records = 0
        self._bytes = 0

    def add(self, columns: Columns) -> bytes:
        """Add some records; returns what there is to send."""
        if columns:
            self._batches.append(_batch_of(self._arrow, self._schema, columns))
            self._records += len(columns)
            self._bytes += len(columns.payloads)
        if self._records >= ROW_GROUP_RECORDS or self._bytes >= ROW_GROUP_BYTES:
            self._write_row_group()
        return self._pipe.take()

    def finish(self) -> bytes:
        """The end of the file."""
        if self._records:
            self._write_row_group()
        self._writer.close()
        return self._pipe.take()

    def _write_row_group(self) -> None:
        table = self._arrow.Table.from_batches(self._batches, self._schema).unify_dictionaries()
        self._writer.write_table(table, row_group_size=self._records)
        self._batches = []
        self._records = self._bytes = 0


def schema(arrow: Any) -> pa.Schema:
    """The columns of the file: those of the CSV export."""
    text = arrow.string()
    word = arrow.dictionary(arrow.int32(), text)  # what comes again and again is hashed once for each row group
    return arrow.schema(
        [
            arrow.field("time", arrow.timestamp("ms", tz="UTC"), nullable=False),
            arrow.field("topic", word, nullable=False),
            arrow.field("payload", arrow.binary()),
            arrow.field("encoding", word, nullable=False),
            arrow.field("qos", arrow.uint8(), nullable=False),
            arrow.field("retain", arrow.bool_(), nullable=False),
            arrow.field("client_id", word, nullable=False),
            arrow.field("stream", word, nullable=False),
            arrow.field("epoch", word, nullable=False),
            arrow.field("partition", arrow.int32(), nullable=False),
            arrow.field("offset", arrow.int64(), nullable=False),
            arrow.field("properties", text),
        ]
    )


def _batch_of(arrow: Any, file_schema: pa.Schema, columns: Columns) -> pa.RecordBatch:
    """The records as arrays, most of them over the bytes that are there already."""
    count = len(columns)

    def numbers(kind: Any, data: Any) -> Any:
        return arrow.Array.from_buffers(kind, count, [None, arrow.py_buffer(data)])

    def words(names: Sequence[str], indexes: array[int]) -> Any:
        return arrow.DictionaryArray.from_arrays(numbers(arrow.int32(), indexes), arrow.array(names, arrow.string()))

    def one_word(word: str) -> Any:
        return words([word], array("i", bytes(4 * count)))

    def span_words(values: Sequence[str]) -> Any:
        return arrow.array(values, arrow.string()).dictionary_encode().take(span_by_row)

    rows, times_ms, client_ids, epochs, partitions = zip(*columns.spans, strict=True)
    span_by_row = numbers(arrow.int32(), array("i", chain.from_iterable(map(repeat, range(len(rows)), rows))))

    def of_span(values: Sequence[object], kind: Any) -> Any:
        return arrow.array(values, kind).take(span_by_row)

    payloads = arrow.Array.from_buffers(
        arrow.binary(), count, [None, arrow.py_buffer(columns.payload_ends), arrow.py_buffer(columns.payloads)]
    )
    null = ENCODINGS.index("null")
    if null in columns.encodings:
        is_there = arrow.array([number != null for number in columns.encodings])
        payloads = arrow.compute.if_else(is_there, payloads, None)
    properties = columns.properties
    return arrow.RecordBatch.from_arrays(
        [
            of_span(times_ms, arrow.timestamp("ms", tz="UTC")),
            words(columns.topic_names, columns.topic_indexes),
            payloads,
            words(ENCODINGS, array("i", list(columns.encodings))),
            numbers(arrow.uint8(), columns.first_bytes.translate(_QOS)),
            numbers(arrow.uint8(), columns.first_bytes.translate(_RETAIN)).cast(arrow.bool_()),
            span_words(client_ids),
            one_word(columns.stream),
            span_words(epochs),
            of_span(partitions, arrow.int32()),
            numbers(arrow.int64(), columns.offsets),
            arrow.array(map(properties.get, range(count)), arrow.string(), size=count)
            if properties
            else arrow.nulls(count, arrow.string()),
        ],
        schema=file_schema,
    )
