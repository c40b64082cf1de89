"""What browsers and proxies call this server and other pages: origins and the root path, in the one form of each."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}
ANY_ORIGIN = "*"


def parse_origin(text: str) -> str:
    """An origin as browsers send it (RFC 6454 §6.2): lower case, no slash at its end, no port that goes without saying.

    Raises:
        ValueError: it is none.
    """
    if text == ANY_ORIGIN:
        return text
    lower = text.strip().lower()
    scheme, separator, rest = lower.partition("://")
    try:
        parts = urlsplit(lower)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    has_more = "/" in rest.removesuffix("/") or any(mark in rest for mark in "?#@ ")
    if not separator or not _SCHEME.fullmatch(scheme) or not host or has_more:
        raise ValueError(
            f'"{text}" is not an origin; write SCHEME://HOST or SCHEME://HOST:PORT, like https://a.example'
        )
    shown = f"[{host}]" if ":" in host else host
    is_said = port is not None and port != _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{shown}:{port}" if is_said else f"{scheme}://{shown}"


def parse_root_path(text: str) -> str:
    """A path with a slash before it and none behind it; the root of the host is "".

    Raises:
        ValueError: it is no path.
    """
    segments = text.strip().strip("/").split("/")
    if segments == [""]:
        return ""
    if not all(_SEGMENT.fullmatch(each) and each not in (".", "..") for each in segments):
        raise ValueError(f'"{text}" is not a path; write it like /headrace')
    return "/" + "/".join(segments)
