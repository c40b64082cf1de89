"""The MQTT broker: protocol engine, sessions, routing and listeners. It knows no HTTP, Kafka or FastAPI.

from broker import Broker, BrokerConfig
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.compiled import use_compiled_modules

if TYPE_CHECKING:
    from broker.codec.properties import Properties
    from broker.config import BrokerConfig
    from broker.hooks import Client, Hooks, Message, Publishes, SubscriptionRequest
    from broker.protocol.close_reason import CloseReason
    from broker.server import Broker

__all__ = [
    "Broker",
    "BrokerConfig",
    "Client",
    "CloseReason",
    "Hooks",
    "Message",
    "Properties",
    "Publishes",
    "SubscriptionRequest",
    "__version__",
]

__version__ = "0.1.0"

use_compiled_modules()


MODULES = {
    "Broker": "broker.server",
    "BrokerConfig": "broker.config",
    "Client": "broker.hooks",
    "CloseReason": "broker.protocol.close_reason",
    "Hooks": "broker.hooks",
    "Message": "broker.hooks",
    "Properties": "broker.codec.properties",
    "Publishes": "broker.hooks",
    "SubscriptionRequest": "broker.hooks",
}


def __getattr__(name: str) -> object:
    """The public names, loaded when they are asked for: who needs only the codec does not load the listeners."""
    if name in MODULES:
        from importlib import import_module

        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
