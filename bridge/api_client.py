"""ApiClient: the little of HTTP that the command line needs to ask a running server, with errors for people.

Answers may be streams of any length; the token goes into a header and never into a text.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0
"""A search for what is rare sends nothing for long."""
ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""Of an answer that is read whole; a page of records has 8 MiB."""


class ApiFailed(Exception):
    """The server did not do it; the text says why."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status
        """Of the answer; 0: there was none."""


class ApiClient:
    """One server. A connection for each request."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """Raises: ValueError, when `url` is not like `http://HOST:PORT`."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url} is not a server's address; write http://HOST:PORT")
        self.url = parts.geturl().rstrip("/")
        self._parts = parts
        self._root = parts.path.rstrip("/") + "/api/v1"
        self._headers = {"Accept-Encoding": "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def ask(
        self,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """The JSON of an answer; None when it has no body. `path` is below `/api/v1`.

        Raises: ApiFailed
        """
        try:
            with self.stream(path, query, method=method, body=body, timeout_s=timeout_s) as response:
                text = response.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise ApiFailed(f"{self.url} broke off its answer: {reason(error)}.") from error
        return json.loads(text) if text else None

    @contextmanager
    def stream(
        self,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer of 2xx, to be read piece by piece; reading it may raise OSError and HTTPException.

        Raises: ApiFailed
        """
        connect = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        assert self._parts.hostname is not None  # it was looked at
        connection = connect(self._parts.hostname, self._parts.port, timeout=CONNECT_TIMEOUT_S)
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            try:
                connection.connect()
                connection.sock.settimeout(timeout_s)
                target = self._root + quote(path) + (f"?{urlencode(query)}" if query else "")
                connection.request(method, target, json.dumps(body) if body is not None else None, headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise ApiFailed(f"no server answers at {self.url}: {reason(error)}.") from error
            if not 200 <= response.status < 300:
                raise ApiFailed(self._refusal(response), response.status)
            yield response
        finally:
            connection.close()

    def _refusal(self, response: http.client.HTTPResponse) -> str:
        if response.status == 401:
            return f"{self.url} wants to know who asks. Give a token: --token T, or HEADRACE_TOKEN in the environment."
        try:
            detail = str(json.loads(response.read(65_536))["detail"])
        except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
            detail = f"it answered {response.status} {response.reason}."
        return f"{self.url}: {detail}"


def reason(error: Exception) -> str:
    """Why a connection failed, in the system's words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
