"""A stream of bytes in a bucket, where nothing can be appended to: parts, of which the last grows.

    NAME-00001.EXT, NAME-00002.EXT, ...

The last part is written anew, with all that it has, every few seconds and at each `flush`, until it
is full; the next start of the run begins a part of its own. So what was flushed survives the loss
of the machine, and no process writes over the part of another.
"""

import atexit
import contextlib
import os
import re
import threading
from pathlib import Path

from ltu_jax.core.objects import Objects
from ltu_jax.core.paths import as_path

EVERY = 10.0  # seconds between writes of what came since
_FULL = 1 << 20  # bytes after which a part is finished


class PartsWriter:
    """The parts of one stream that this process adds; every `write` is kept whole in one part."""

    def __init__(
        self, path: str | os.PathLike, *, head: bytes = b"", every: float = EVERY, full: int = _FULL
    ) -> None:
        """Begin to write behind what is there.

        Args:
            path: gs:// address of the stream, as if it were one file.
            head: what each part begins with.
            every: seconds after which a write is in the bucket at the latest.
            full: bytes after which a part is finished.
        """
        path = as_path(path)
        self.path, self._head, self._full = path, head, full
        self._objects = Objects(path.parent)
        self._number = max((number_of(path, name) for name in self._objects.names()), default=0)
        self._part = head
        self._generation: bytes | None = None  # of the part, once it is in the bucket
        self._dirty, self._failure = False, None
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(every,), daemon=True)
        self._thread.start()
        # A thread that waits for TensorStore when the interpreter ends would abort the process.
        atexit.register(self._stop)

    def write(self, data: bytes) -> int:
        """Add bytes; returns how many.

        Raises:
            OSError: what came before could not be written to the bucket.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._part += data
            self._dirty = True
        return len(data)

    def flush(self) -> None:
        """Wait until all that came is in the bucket.

        Raises:
            OSError: it is not.
        """
        with self._lock:
            self._put()

    def close(self) -> None:
        """Flush for the last time, and end the thread."""
        self._stop()
        atexit.unregister(self._stop)
        self.flush()

    def _stop(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self, every: float) -> None:
        while not self._closed.wait(every):
            with self._lock, contextlib.suppress(OSError):  # `write` raises it
                self._put()

    def _put(self) -> None:
        """Write the part as it is, and begin the next one if it is full."""
        if not self._dirty:
            return
        try:
            if self._generation is None:
                self._number += 1
                while (made := self._objects.create(self._name(), self._part)) is None:
                    self._number += 1  # another process began one
                self._generation = made
            else:
                self._generation = self._objects.replace(
                    self._name(), self._part, generation=self._generation
                )
                if self._generation is None:
                    raise OSError(
                        None, "another process has written or deleted it", f"{self._name()}"
                    )
        except OSError as error:
            self._failure = error
            raise
        self._dirty = False
        if len(self._part) >= self._full:
            self._part, self._generation = self._head, None

    def _name(self) -> str:
        return f"{self.path.stem}-{self._number:05d}{self.path.suffix}"


def number_of(path: Path, name: str) -> int:
    """Return the number of a part of the stream `path` by its name; 0 of any other name."""
    match = re.fullmatch(rf"{re.escape(path.stem)}-(\d{{5,}}){re.escape(path.suffix)}", name)
    return int(match[1]) if match else 0


def read_parts(path: str | os.PathLike) -> list[tuple[Path, bytes]]:
    """Read all parts of a stream, (path, content) in their order; [] where there is none."""
    path = as_path(path)
    objects = Objects(path.parent)
    numbered = sorted((number_of(path, name), name) for name in objects.names())
    contents = ((name, objects.read(name)) for number, name in numbered if number)
    return [(path.parent / name, part.content) for name, part in contents if part is not None]
