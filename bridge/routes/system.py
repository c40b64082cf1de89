"""The server itself: `/api/v1/system` and `/api/v1/session`."""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import psutil
from fastapi import APIRouter, Request

from bridge import __version__
from bridge.encoding import rfc3339
from bridge.live.handover import EXTENSION
from bridge.live.reader import Reader
from bridge.node import Node
from bridge.routes.figures import kafka_state, spool_state

router = APIRouter(prefix="/api/v1", tags=["server"])

READERS_SHOWN = 1_000


def device_urls(url: str, host: str) -> list[str]:
    """The addresses by which devices reach a listener: every own address for one that listens on all."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [url]
    if not address.is_unspecified:
        return [url]
    shown = f"[{host}]" if ":" in host else host
    return [url.replace(shown, each, 1) for each in _own_addresses(with_ipv6=address.version == 6)]


def _own_addresses(*, with_ipv6: bool) -> list[str]:
    """This computer's addresses, those that others can use first."""
    found: list[str] = []
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET:
                found.append(each.address)
            elif with_ipv6 and each.family == socket.AF_INET6 and "%" not in each.address:
                found.append(f"[{each.address}]")
    return sorted(found, key=lambda text: (ipaddress.ip_address(text.strip("[]")).is_loopback, text))


def _http_urls(request: Request, url: str) -> list[str]:
    """The addresses of the port that a request came in by; `url` is what its client calls it, perhaps a proxy's."""
    host = request.app.state.node.config.http_address.host
    own, asked = request.scope.get("server"), urlsplit(url)
    if own is None or not asked.netloc.endswith(f":{own[1]}"):
        return [url]
    shown = f"[{host}]" if ":" in host else host
    urls = device_urls(asked._replace(netloc=f"{shown}:{own[1]}").geturl(), host)
    return urls if len(urls) > 1 else [url]


def describe_reader(node: Node, reader: Reader) -> dict[str, Any]:
    """A live reader as the API shows it."""
    return {
        "subject": reader.subject,
        "kind": "sse",
        "filters": list(reader.group.filters),
        "policy": reader.overflow,
        "state": reader.place.value,
        "behind": node.hub.behind_by(reader),
        "sent": reader.sent,
        "conflated": reader.held.conflated if reader.held is not None else 0,
        "dropped": reader.dropped + (reader.held.dropped if reader.held is not None else 0),
    }


def offers_mqtt(request: Request) -> bool:
    """Whether the port of a request is one for MQTT over WebSocket too: that needs our HTTP class below."""
    http = request.scope.get("extensions", {}).get(EXTENSION)
    return http is not None and http.websockets is not None


@router.get("/system", summary="The server")
async def system(request: Request) -> dict[str, Any]:
    """Version, node, time, addresses, limits and live readers."""
    node: Node = request.app.state.node
    hub = node.hub
    readers = list(hub.readers)
    listen = [
        {"kind": each.kind, "url": each.url, "device_urls": device_urls(each.url, each.host)}
        for each in node.broker.listening
    ]
    url = str(request.base_url).rstrip("/")
    urls = _http_urls(request, url)
    listen.append({"kind": "http", "url": url, "device_urls": urls})
    if offers_mqtt(request):
        url, *urls = [f"ws{each.removeprefix('http')}/mqtt" for each in (url, *urls)]
        listen.append({"kind": "mqtt-ws", "url": url, "device_urls": urls})
    return {
        "version": __version__,
        "node": node.node_run,
        "time": rfc3339(time.time_ns() // 1_000_000),
        "listen": listen,
        "auth": "anonymous",
        "limits": node.limits.rows(),
        "kafka": kafka_state(node),
        "spool": spool_state(node),
        "ingest": [each.describe() for each in node.ingests],
        "egress": [each.describe() for each in node.egresses],
        "readers": [describe_reader(node, reader) for reader in readers[:READERS_SHOWN]],
        "readers_total": len(readers),
        "polls": hub.polls,
    }


@router.get("/session", summary="Who is asking, and what may they do")
async def session(request: Request) -> dict[str, Any]:
    """Without users everyone is anonymous and may do everything."""
    return {
        "subject": "anonymous",
        "anonymous": True,
        "expires": None,
        "publish": ["#"],
        "subscribe": ["#", "$SYS/#", "$presence/#", "$server/#"],
        "manage": True,
        "version": __version__,
    }
