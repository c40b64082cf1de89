"""StoredOrigin: of a QoS 2 publish from inside the server, which is routed once it is stored, like a client's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.engine import Engine
    from broker.publish_run import PublishRun
    from broker.sink import Origin


class StoredOrigin:
    """Stands between the sink and who published, if anyone wants to know (`broker.sink.Origin`)."""

    def __init__(self, engine: Engine, origin: Origin | None) -> None:
        self._engine = engine
        self._origin = origin

    def acknowledge(self, run: PublishRun) -> None:
        """It is stored: deliver it."""
        self._engine.stored(run)
        if self._origin is not None:
            self._origin.acknowledge(run)

    def refuse(self, run: PublishRun, reason_code: int) -> None:
        """It never will be."""
        self._engine.refused(run)
        if self._origin is not None:
            self._origin.refuse(run, reason_code)

    def pause_reading(self) -> None:
        """There is nothing to pause."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""
