"""MqttTarget: a broker's address with what is needed to be let in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class MqttTarget:
    """What `mqtt://USER:PASSWORD@HOST:PORT` says."""

    scheme: Literal["mqtt", "mqtts", "ws", "wss"]
    host: str
    port: int
    path: str = "/mqtt"
    """For `ws` and `wss`."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> MqttTarget:
        """Read a URL; user and password may be percent-encoded.

        Raises:
            ValueError: it is no such address.
        """
        parts = urlsplit(url if "://" in url else f"mqtt://{url}")
        scheme = {"tcp": "mqtt", "ssl": "mqtts"}.get(parts.scheme, parts.scheme)
        try:
            port = parts.port
        except ValueError:
            port = -1
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if scheme not in _DEFAULT_PORTS or not parts.hostname or port == -1:
            raise ValueError(
                f"{shown} is not a broker's address; write mqtt://HOST:PORT, mqtts://…, ws://HOST:PORT/mqtt or "
                "wss://…, with USER:PASSWORD@ before the host where they are needed"
            )
        return cls(
            scheme,  # type: ignore[arg-type]  # it is one of them
            parts.hostname,
            port or _DEFAULT_PORTS[scheme],
            parts.path if parts.path not in ("", "/") else "/mqtt",
            unquote(parts.username) if parts.username is not None else None,
            unquote(parts.password) if parts.password is not None else None,
        )

    @property
    def is_websocket(self) -> bool:
        """MQTT over WebSocket."""
        return self.scheme in ("ws", "wss")

    @property
    def is_encrypted(self) -> bool:
        """Over TLS."""
        return self.scheme in ("mqtts", "wss")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path if self.is_websocket else ''}"
