"""Compiled programs kept between runs, in a folder of the user's own."""

import hashlib
import os
import threading
from pathlib import Path

import jax

from ltu_jax.core.paths import as_path, is_remote, private_folder, require_bucket, user_cache
from ltu_jax.core.provenance import processor

_MOST = 4 << 30  # bytes; what was used longest ago goes first


def keep_compiled(folder: str | os.PathLike | None = None) -> None:
    """Keep compiled programs between runs.

    Args:
        folder: where, on this machine or in a bucket: JAX itself reads and writes both. In a bucket
            nothing is dropped (JAX's lock for that is a file): give it a lifecycle rule. None is a
            folder of this user and this kind of processor under `~/.cache/ltu_jax`, unless JAX is
            told another (`JAX_COMPILATION_CACHE_DIR`): programs for another processor may not run
            on this one, and what others can write must not be loaded.

    Raises:
        UserError: a bucket that is gone or forbidden; JAX would compile all anew each time.
    """
    if folder is None:
        if jax.config.jax_compilation_cache_dir:
            return
        folder = own_folder()
        if folder is None:
            return
        jax.config.update("jax_compilation_cache_max_size", _MOST)
    elif is_remote(folder):
        require_bucket(as_path(folder))
        jax.config.update("jax_compilation_cache_max_size", -1)
    jax.config.update("jax_compilation_cache_dir", str(folder))


def own_folder() -> Path | None:
    """Return this user's folder, made with mode 0700; None where there is no place for one."""
    kind = hashlib.sha256(processor().split(",")[0].encode()).hexdigest()[:12]
    return private_folder(user_cache() / "compiled" / kind)


_COMPILED = "/jax/core/compile/backend_compile_duration"


class CompileCount:
    """Counts the programs that this process compiles, or loads from the cache, from now on."""

    def __init__(self) -> None:
        self._count, self._lock = 0, threading.Lock()
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, **_: object) -> None:
        if event == _COMPILED:
            with self._lock:
                self._count += 1

    @property
    def count(self) -> int:
        """Return the number so far."""
        return self._count

    def close(self) -> None:
        """Count no more."""
        jax.monitoring.unregister_event_duration_listener(self._listen)
