"""The MQTT broker: protocol engine, sessions, routing and listeners. It knows no HTTP, Kafka or FastAPI.

from broker import Broker, BrokerConfig
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.compiled import use_compiled_modules

if TYPE_CHECKING:
    from broker.config import BrokerConfig
    from broker.server import Broker

__all__ = ["Broker", "BrokerConfig", "__version__"]

__version__ = "0.1.0"

use_compiled_modules()


def __getattr__(name: str) -> object:
    """The public names, loaded when they are asked for: who needs only the codec does not load the listeners."""
    if name == "Broker":
        from broker.server import Broker

        return Broker
    if name == "BrokerConfig":
        from broker.config import BrokerConfig

        return BrokerConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
