"""Pages: the files of the search page, read once, and served with headers that let nothing else in."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".woff2": "font/woff2",
    ".webmanifest": "application/json",
}
_SMALL = 1_000  # bytes that are not worth packing


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    packed: bytes | None
    media_type: str
    tag: str


class Pages:
    """Files by their address; nothing outside the folder can be asked for, as nothing is looked up there."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Read all files of a folder."""
        self._files: dict[str, _File] = {}
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file() and not path.name.startswith("."):
                self._files["/" + path.relative_to(folder).as_posix()] = _read(path)
        if "/index.html" in self._files:
            self._files["/"] = self._files["/index.html"]

    def __contains__(self, address: str) -> bool:
        return address in self._files

    def answer(self, request: Request) -> Response:
        """The file at the address of a request."""
        file = self._files[request.url.path]
        headers = {
            "content-security-policy": _POLICY,
            "cache-control": "no-cache",  # kept, but asked for again: a new release is seen at once
            "etag": file.tag,
            "vary": "accept-encoding",
        }
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if file.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(file.packed, media_type=file.media_type, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)


def _read(path: Path) -> _File:
    content = path.read_bytes()
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    packed = gzip.compress(content, mtime=0) if len(content) > _SMALL else None
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    return _File(content, packed if packed is None or len(packed) < len(content) else None, kind, tag)
