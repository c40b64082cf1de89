"""BrokerAddress: where another broker is, as the configuration says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_SHOWN = "write mqtt://HOST:PORT, or mqtts://HOST:PORT with TLS"


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """`mqtt://HOST:PORT` or `mqtts://HOST:PORT`."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a URL.

        Raises:
            ValueError: it is no such address, or has a password in it, which would then be printed by everyone.
        """
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is not a broker's address; {_SHOWN}")
        parts = urlsplit(value if "://" in value else f"mqtt://{value}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.username is not None or parts.password is not None:
            raise ValueError("a broker's address has no user in it; give username, and password_file or password_env")
        has_more = parts.path not in ("", "/") or parts.query or parts.fragment
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == -1 or has_more:
            raise ValueError(f'"{value}" is not a broker\'s address; {_SHOWN}')
        return cls(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme])

    @property
    def is_encrypted(self) -> bool:
        """Over TLS."""
        return self.scheme == "mqtts"

    def is_same_broker(self, other: BrokerAddress) -> bool:
        """As far as their addresses say."""
        return (self.host, self.port) == (other.host, other.port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"
