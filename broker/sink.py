"""The broker's one port outward: batches of publishes leave by it, and acknowledgements come back through it.

The broker calls a `Sink`; the bridge implements it (a broker without one keeps no records). A sink calls back an
`Origin`, which is the connection a run came from. All calls are plain and happen on the event loop's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.publish_run import PublishRun

UNKNOWN = -1
"""In place of `stored_content`, in files from before it: any publish with the id is the same one again."""


class Origin(Protocol):
    """Where a run came from, as the sink sees it."""

    def acknowledge(self, run: PublishRun) -> None:
        """`run` is stored (or needs no storing): its PUBACKs or PUBRECs may leave, in the order of the publishes."""

    def refuse(self, run: PublishRun, reason_code: int) -> None:
        """`run` will never be stored. MQTT 5 gets `reason_code` in each PUBACK or PUBREC; 3.1.1 gets nothing."""

    def pause_reading(self) -> None:
        """Stop reading from the peer; its keep alive does not run meanwhile."""

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""


class SinkTopic(Protocol):
    """What a sink remembers of one topic name. The broker only looks at `stream`."""

    @property
    def stream(self) -> object:
        """The stream that takes the topic's records; rows of one run all have the same."""


def stored_content(topic_name: str, payload: bytes) -> int:
    """What tells a QoS 2 publish from another one with its packet id, good for the next process too."""
    return crc32(payload, crc32(topic_name.encode()))


class Sink(Protocol):
    """Takes what was published."""

    def open_topic(self, topic_name: str) -> SinkTopic | None:
        """The sink's view of a topic, or None when no stream takes it. Called once for each cached route."""

    def submit(self, runs: Sequence[PublishRun]) -> None:
        """Take this turn's runs, in order.

        Each run with `packet_ids` of QoS 1 or 2 is later given back by `origin.acknowledge` or `origin.refuse`,
        exactly once; before that nothing of it is acknowledged. It may happen inside this call.
        """

    def release(self, client_id: str, packet_id: int, done: Callable[[], None]) -> None:
        """PUBREL of a kept session: forget the QoS 2 packet id durably, then call `done` (PUBCOMP may leave)."""

    def unreleased(self, client_id: str) -> dict[int, int]:
        """QoS 2 packet ids of `client_id` that were stored before a restart and not yet released, each with its
        `stored_content`, or UNKNOWN."""

    def forget(self, client_id: str) -> None:
        """The session of `client_id` has ended: forget its unreleased packet ids."""
