"""Large files over HTTP: gone on with after an interruption, never seen half written."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ltu_jax.sources.pinned import PackageError

_PIECE = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_TRIES = 5  # in a row without a byte
_PAUSE = 2.0  # seconds before the second try, doubled with each
_REPORTED = 10.0  # seconds between two reports


def download(
    url: str,
    *,
    to: Path,
    size: int,
    gone: str,
    report: Callable[[str], None] = print,
    pause: float = _PAUSE,
) -> None:
    """Fetch a file of a known size; what an earlier run left in `TO.part` is gone on with.

    Args:
        url: of the file.
        to: where it shall lie.
        size: bytes that it must have.
        gone: what to do where the server no longer has it.
        report: takes a line about the progress every ten seconds.
        pause: seconds before another try after an interruption.

    Raises:
        PackageError: the server has no such file, or stops answering.
    """
    part = to.with_name(f"{to.name}.part")
    to.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while (before := _length(part)) != size:
        if before > size:
            part.unlink()
            continue
        try:
            _go_on(url, part, size=size, report=report)
            problem = f"the server ended after {_length(part)} of {size} bytes"
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is no beginning of the server's file
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise PackageError(
                    f"{url}: the server says {error.code} {error.reason}; {gone}"
                ) from None
            problem = f"the server says {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        if _length(part) == size:
            break
        failures = 0 if _length(part) > before else failures + 1
        if failures == _TRIES:
            raise PackageError(
                f"{url}: {problem}; check the network and run the same command again: the "
                f"{_length(part)} bytes that are there are kept"
            )
        time.sleep(pause * 2**failures)
    part.replace(to)


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _go_on(url: str, part: Path, *, size: int, report: Callable[[str], None]) -> None:
    """Append to a part what its file has more, as far as the connection holds."""
    start = _length(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        if start and response.status != 206:  # the server cannot begin in the middle
            start = 0
        began = told = time.monotonic()
        done = start
        with part.open("ab" if start else "wb") as file:
            while done < size and (piece := response.read(min(_PIECE, size - done))):
                file.write(piece)
                done += len(piece)
                if time.monotonic() - told > _REPORTED:
                    told = time.monotonic()
                    speed = (done - start) / (told - began) / 1e6
                    report(f"  {done / 1e6:.0f} of {size / 1e6:.0f} MB, {speed:.1f} MB/s")
