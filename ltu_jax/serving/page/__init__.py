"""The page: static files that use the public API and nothing else, and the headers they go with."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".mp3": "audio/mpeg",
    ".LICENSE": "text/plain; charset=utf-8",
}
# The one inline style sheet: the one that wavesurfer.js puts beside a waveform 72 pixels high.
_WAVESURFER_STYLE = "'sha256-XGW/cX2BkTPWNNT3NdyASrPEWZfPnKdPJaJ2aN7R+v8='"
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": f"'self' {_WAVESURFER_STYLE}",
    "img-src": "'self' data:",
    "media-src": "'self' blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
)


@dataclass(frozen=True, kw_only=True)
class PageFile:
    """A file of the page; `etag` changes with its bytes."""

    body: bytes
    media_type: str
    etag: str


def _read() -> dict[str, PageFile]:
    folder, found = Path(__file__).parent, {}
    for path in sorted(folder.rglob("*")):
        media = _MEDIA.get(path.suffix)
        if media is None or not path.is_file():
            continue
        body = path.read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        name = path.relative_to(folder).as_posix()
        url = "/" if name == "index.html" else f"/page/{name}"
        found[url] = PageFile(body=body, media_type=media, etag=etag)
    return found


FILES = MappingProxyType(_read())
