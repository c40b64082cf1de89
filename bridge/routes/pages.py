"""What a browser opens: the dashboard's pages and assets, `/docs`, the favicon; and a plain page before it is built."""

from __future__ import annotations

import hashlib
import html
import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from bridge.errors import NotFound
from bridge.node import Node
from bridge.routes.system import device_urls

router = APIRouter(include_in_schema=False)

DIST = Path(__file__).resolve().parent.parent / "dashboard" / "dist"
DOCS_PAGE = Path(__file__).resolve().parent / "docs_page"
PAGE_PATHS = ("/", "/topic", "/devices", "/device", "/streams", "/stream", "/boards", "/board", "/system")
IMMUTABLE = "public, max-age=31536000, immutable"
_ASSET_NAME = re.compile(r"[A-Za-z0-9_.-]+-[A-Za-z0-9_-]{8,}\.[a-z0-9]+")
_MEDIA_TYPE_BY_SUFFIX = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".html": "text/html; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".json": "application/json",
}
_FAVICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="6" fill="#0B63B8"/>'
    b'<path d="M6 20c4-8 8 4 12-4s4-6 8-6" fill="none" stroke="#fff" stroke-width="3" stroke-linecap="round"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file in memory with its compressed forms."""

    body: bytes
    media_type: str
    etag: str
    encoded: dict[str, bytes]

    @classmethod
    def load(cls, path: Path) -> Asset:
        """Read a file and what lies compressed beside it. Raises: OSError."""
        body = path.read_bytes()
        encoded = {}
        for encoding, suffix in (("br", ".br"), ("gzip", ".gz")):
            beside = path.with_name(path.name + suffix)
            if beside.is_file():
                encoded[encoding] = beside.read_bytes()
        return cls.made(body, path.name, encoded)

    @classmethod
    def made(cls, body: bytes, name: str, encoded: dict[str, bytes] | None = None) -> Asset:
        """An asset of these bytes; the name decides its type."""
        suffix = Path(name).suffix
        media_type = _MEDIA_TYPE_BY_SUFFIX.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        return cls(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:24]}"', encoded or {})

    def response(self, request: Request, cache_control: str) -> Response:
        """The asset in the best form that the browser takes, or 304."""
        headers = {"Cache-Control": cache_control, "ETag": self.etag, "Vary": "Accept-Encoding"}
        if self.etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        accepted = {
            part.split(";")[0].strip()
            for part in request.headers.get("accept-encoding", "").split(",")
            if part.replace(" ", "").split(";")[1:] not in (["q=0"], ["q=0.0"])
        }
        for encoding, body in self.encoded.items():
            if encoding in accepted:
                return Response(body, headers=headers | {"Content-Encoding": encoding}, media_type=self.media_type)
        return Response(self.body, headers=headers, media_type=self.media_type)


class Pages:
    """The files that are served, read once at the start: no file system call runs on the loop."""

    def __init__(self, dist: Path = DIST) -> None:
        self.index: Asset | None = None
        self.assets: dict[str, Asset] = {}
        self.files: dict[str, Asset] = {"favicon.svg": Asset.made(_FAVICON, "favicon.svg")}
        if (dist / "index.html").is_file():
            self.index = Asset.load(dist / "index.html")
            for path in sorted(dist.iterdir()):
                if path.is_file() and path.suffix not in (".br", ".gz", ".html", ".map"):
                    self.files[path.name] = Asset.load(path)
        if (dist / "assets").is_dir():
            for path in sorted((dist / "assets").iterdir()):
                if path.suffix not in (".br", ".gz"):
                    self.assets[path.name] = Asset.load(path)
        script = self._add_hashed(DOCS_PAGE / "docs.js")
        style = self._add_hashed(DOCS_PAGE / "docs.css")
        self._docs_html = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Headrace API</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<link rel="icon" href="{root}/favicon.svg" type="image/svg+xml">'
            f'<link rel="stylesheet" href="{{root}}/assets/{style}">'
            f'<script type="module" src="{{root}}/assets/{script}"></script></head>'
            '<body><main data-openapi="{root}/openapi.json"><p>Loading…</p></main></body></html>'
        )

    def _add_hashed(self, path: Path) -> str:
        asset = Asset.load(path)
        name = f"{path.stem}-{asset.etag[1:9]}{path.suffix}"
        self.assets[name] = asset
        return name

    def docs(self, root_path: str) -> Asset:
        """The page that shows the OpenAPI document."""
        return Asset.made(self._docs_html.replace("{root}", html.escape(root_path)).encode(), "docs.html")


@router.get("/assets/{name}")
async def asset(request: Request, name: str) -> Response:
    """A file whose name holds the hash of its content."""
    pages: Pages = request.app.state.pages
    found = pages.assets.get(name)
    if found is None:
        raise NotFound(f"There is no asset {name!r}.")
    return found.response(request, IMMUTABLE if _ASSET_NAME.fullmatch(name) else "no-cache")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The API, described."""
    pages: Pages = request.app.state.pages
    return pages.docs(request.scope.get("root_path", "")).response(request, "no-cache")


@router.get("/favicon.ico")
@router.get("/favicon.svg")
async def favicon(request: Request) -> Response:
    """An icon, so that no page load logs a 404."""
    pages: Pages = request.app.state.pages
    return pages.files["favicon.svg"].response(request, "public, max-age=86400")


async def page(request: Request) -> Response:
    """The dashboard for every path of its own; what it shows is decided by the address, in the browser."""
    pages: Pages = request.app.state.pages
    if pages.index is not None:
        return pages.index.response(request, "no-cache")
    if request.url.path.rstrip("/") != request.scope.get("root_path", ""):
        raise NotFound("The dashboard is not built; `make dashboard` builds it.")
    return Asset.made(plain_page(request).encode(), "index.html").response(request, "no-cache")


for path in PAGE_PATHS:
    router.add_api_route(path, page, methods=["GET"])


def plain_page(request: Request) -> str:
    """What stands at `/` before the dashboard is built: lines to copy."""
    node: Node = request.app.state.node
    mqtt = next((each for each in node.broker.listening if each.kind == "mqtt"), None)
    http_url = str(request.base_url).rstrip("/")
    lines = [f"curl -N '{http_url}/api/v1/events?topic=%23'"]
    if mqtt is not None:
        host = device_urls(mqtt.url, mqtt.host)[0].removeprefix("mqtt://").rsplit(":", 1)[0].strip("[]")
        lines.append(f"mosquitto_pub -h {host} -p {mqtt.port} -t sensors/p1/temp -m 21.5")
    lines.append(
        f"curl -X POST {http_url}/api/v1/publish -H 'Content-Type: application/json' "
        """-d '{"topic": "sensors/p1/temp", "payload": 21.5}'"""
    )
    shown = "".join(f"<pre>{html.escape(line)}</pre>" for line in lines)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Headrace</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head><body><h1>Headrace</h1>'
        "<p>The server runs. The dashboard is not built: <code>make dashboard</code> builds it (Node 20.19 or newer)."
        f"</p>{shown}<p><a href='docs'>The API</a></p></body></html>"
    )


def static_files(pages: Pages) -> APIRouter:
    """Further files of the dashboard's build that stand at the root, like a manifest."""
    files = APIRouter(include_in_schema=False)
    for name in pages.files:
        if name in ("favicon.svg", "favicon.ico"):
            continue

        async def answer(request: Request, name: str = name) -> Response:
            found: Pages = request.app.state.pages
            return found.files[name].response(request, "no-cache")

        files.add_api_route(f"/{name}", answer, methods=["GET"])
    return files
