"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", help="Configuration file (TOML); none: defaults.")
]
DataDir = Annotated[str | None, typer.Option("--data", metavar="DIR", help="Data directory. [default: ./data]")]
HttpBind = Annotated[
    str | None,
    typer.Option("--http", metavar="HOST:PORT", help="API, live events, dashboard. [default: 127.0.0.1:8000]"),
]
MqttBind = Annotated[
    str | None, typer.Option("--mqtt", metavar="HOST:PORT", help="MQTT over TCP. [default: 127.0.0.1:1883]")
]
WsBind = Annotated[
    str | None, typer.Option("--ws", metavar="HOST:PORT", help="MQTT over WebSocket. [default: 127.0.0.1:8083]")
]
LogFormat = Annotated[
    Literal["text", "json"] | None, typer.Option("--log", help="How the log on stderr is written. [default: text]")
]
Debug = Annotated[bool, typer.Option("--debug", help="Log everything; show tracebacks.")]
Token = Annotated[
    str | None,
    typer.Option(metavar="T", envvar="HEADRACE_TOKEN", show_envvar=True, help="Access token for --url."),
]
Devices = Annotated[int, typer.Option(min=1, max=10_000, help="Simulated devices.")]
Rate = Annotated[float, typer.Option(min=0.001, max=1_000_000, help="Messages a second, of all devices together.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same topics and payloads.")]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Ask this server: http://HOST:8000. [default: the one of --data]"),
]
