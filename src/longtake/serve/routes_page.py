"""The page at `/`: plain files of the package, under a policy that lets them ask no other server for anything."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from longtake.serve.errors import not_found

FOLDER = Path(__file__).with_name("page")
# Said here, since what the machine calls these files may be something else, and a browser then refuses them.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SELF = ("script-src", "style-src", "img-src", "media-src", "connect-src")
_NONE = ("default-src", "base-uri", "form-action", "frame-ancestors")
POLICY = "; ".join(
    [*(f"{name} 'none'" for name in _NONE), *(f"{name} 'self'" for name in _SELF), "require-trusted-types-for 'script'"]
)
FILES = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in TYPES}  # some 60 kB

router = APIRouter(include_in_schema=False)


@router.get("/")
@router.head("/")
async def index(request: Request) -> Response:
    """Return the page."""
    return await file(request, "index.html")


@router.get("/page/{name}")
@router.head("/page/{name}")
async def file(request: Request, name: str) -> Response:
    """Return a file of the page, or that it is still what the browser has.

    Raises: ApiError 404.
    """
    if name not in FILES:
        raise not_found("page", name[:100])
    tag = f'"{hashlib.sha256(FILES[name]).hexdigest()[:32]}"'
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(FILES[name], headers=headers | {"Content-Type": TYPES[Path(name).suffix]})
