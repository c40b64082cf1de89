"""Responses that are files: streamed, compressed where the client takes that, and closed with the connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from bridge.history.export import gzip

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

COMPRESSED_FROM_BYTES = 1_024
COMPRESSED_AT_ONCE_BYTES = 32 * 1024
"""Up to so many, compressing takes less than the way to a thread and back."""
_WEIGHT = re.compile(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)")


def accepts_gzip(request: Request) -> bool:
    """The client takes gzip. Source: RFC 9110 §12.5.3."""
    quality_by_coding: dict[str, float] = {}
    for part in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = part.partition(";")
        match = _WEIGHT.fullmatch(weight.strip()) if weight else None
        quality_by_coding[coding.strip()] = float(match[1]) if match is not None else 1.0
    return quality_by_coding.get("gzip", quality_by_coding.get("*", 0.0)) > 0


class Download(StreamingResponse):
    """A streamed file; what makes it is closed when the client has gone, too."""

    def __init__(
        self,
        file: AsyncGenerator[bytes],
        *,
        name: str,
        media_type: str,
        encoding: str | None,
        on_end: Callable[[], None],
    ) -> None:
        headers = {
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name}"',
            "Vary": "Accept-Encoding",
        }
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        super().__init__(file, media_type=media_type, headers=headers)
        self._file = file
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._file):
                await super().__call__(scope, receive, send)
        finally:
            self._on_end()


async def json_response(request: Request, body: bytes) -> Response:
    """A JSON body, compressed when that is worth while and the client takes it."""
    headers = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
    if len(body) >= COMPRESSED_FROM_BYTES and accepts_gzip(request):
        body = gzip(body) if len(body) <= COMPRESSED_AT_ONCE_BYTES else await asyncio.to_thread(gzip, body)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type="application/json", headers=headers)
