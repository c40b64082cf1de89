"""Records to PUBLISH frames for another broker: under the topic that it gets there, all with one QoS.

Without the fields that say where a record stands; behind the publisher's properties stands what `BareForm` adds.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.history.scan import BareForm, PublishForm
from bridge.publish_frames import REMAINING_LENGTH_MAX, PublishFrames, fixed_header_bytes
from bridge.records import RecordRun
from broker.codec.encode import encode_publish_head
from broker.codec.primitives import encode_variable_byte_integer

TOPIC_BYTES_MAX = 65_535


class BareFrames(PublishFrames):
    """See the module's docstring."""

    def __init__(self, form: PublishForm, bare: BareForm, stream: str, now_ms: int) -> None:
        super().__init__(form, stream, now_ms)
        self._bare = bare
        self._topic_by_name: dict[str, bytes] = {}

    def leaves_out(self, run: RecordRun) -> bool:
        """The run came from the broker that it would go to."""
        return run.client_id in self._bare.left_out_client_ids

    def encode(self, epoch: str, run: RecordRun, rows: Sequence[int]) -> list[bytes]:
        """A frame for each row; empty when it is larger than the other broker takes."""
        limit = self._form.packet_bytes_max or REMAINING_LENGTH_MAX
        frames = [self._encode_bare(run, row) for row in rows]
        return [frame if len(frame) <= limit else b"" for frame in frames]

    def _encode_bare(self, run: RecordRun, row: int) -> bytes:
        data, form = run.data, self._form
        frame_start, payload_start = run.frame_start(row), run.payload_starts[row]
        topic = self._topic(run.topics[row].name)
        if not topic:
            return b""
        properties = b""
        if form.is_v5:
            fields = self._bare.properties
            if run.is_v5:
                fields = self._published(run, frame_start, payload_start) + fields
            properties = encode_variable_byte_integer(len(fields)) + fields
        packet_id = b"\0\0" if form.qos else b""
        payload = data[payload_start : run.ends[row]]
        length = len(topic) + len(packet_id) + len(properties) + len(payload)
        if length > REMAINING_LENGTH_MAX:
            return b""
        retain = data[frame_start] & 1 if form.retain_as_published else 0
        return b"".join(
            (encode_publish_head(0x30 | form.qos << 1 | retain, length), topic, packet_id, properties, payload)
        )

    def _topic(self, name: str) -> bytes:
        """As it stands in a frame; empty when it would be too long."""
        topic = self._topic_by_name.get(name)
        if topic is None:
            bare = self._bare
            text = (bare.prefix + name.removeprefix(bare.removed_prefix)).encode()
            topic = len(text).to_bytes(2, "big") + text if 0 < len(text) <= TOPIC_BYTES_MAX else b""
            self._topic_by_name[name] = topic
        return topic

    def _id_places_of(self, run: RecordRun, rows: Sequence[int], frames: Sequence[bytes]) -> list[int]:
        places = []
        for frame in frames:
            start = fixed_header_bytes(len(frame))
            places.append(start + 2 + (frame[start] << 8 | frame[start + 1]))
        return places
