"""Executables kept between runs: a start that finds its own neither traces nor compiles.

    ~/.cache/ltu_jax/programs/<kind>/<program>

A kind is a hash of all that a program is made from beside its own name and sizes: weights, this
code, versions, device, options of the compiler. To load an executable is to run what it says, so
they lie in a folder of this user's own (mode 0700), and nowhere else are they looked for.

    with store.used():
        ...  # programs that are new come from the store, or go there
"""

import contextlib
import hashlib
import json
import logging
import os
import pickle
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from ltu_jax.core import provenance
from ltu_jax.core.files import atomic_file
from ltu_jax.core.paths import private_folder, user_cache

log = logging.getLogger(__name__)

_MOST = 4 << 30  # bytes of all kinds; what was used longest ago goes first
_DIGEST = 32
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "qwix", "ml_dtypes")
_ENVIRONMENT = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "TF_CUDNN_DETERMINISTIC")
# Settings of JAX that say where things lie or what is logged, and shape no program.
_NO_MATTER = ("jax_compilation_cache", "jax_persistent_cache", "jax_enable_compilation_cache",
              "jax_log", "jax_dump", "jax_debug_log", "jax_traceback")  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class ProgramStore:
    """The executables of one kind, for one device.

    Attributes:
        folder: where they are kept; None: they go with the process.
        device: runs them.
        called: those of each `KeptJit`, in this process.
        counts: how many programs were "kept", from earlier processes, and "compiled".
    """

    folder: Path | None
    device: jax.Device
    called: dict[Hashable, Callable[..., Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, weights: str) -> "ProgramStore":
        """Open the store of a model for the first device.

        Args:
            weights: a hash of its weights, and of what else decides what it computes.
        """
        device = jax.local_devices()[0]
        root = private_folder(user_cache() / "programs")
        if root is None:
            log.warning("no folder of this user's own for compiled programs: none are kept")
            return cls(folder=None, device=device)
        folder = root / _kind(weights, device)
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            os.utime(folder)  # used just now
            _drop_oldest(root, most=_MOST)
        return cls(folder=folder, device=device)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Let this thread take programs that are new to it from here, and put them here."""
        token = _STORE.set(self)
        try:
            yield
        finally:
            _STORE.reset(token)

    def use(self) -> None:
        """Do the same for the rest of this thread's life: an `initializer` of thread pools."""
        _STORE.set(self)

    def program(self, jitted: Any, args: tuple[Any, ...], *, name: str) -> Callable[..., Any]:
        """Return the executable of a function for such arguments, from the folder if it is there.

        Args:
            jitted: a `jax.jit` of its own for this call, so that JAX knows no older form of it.
            args: all its arguments.
            name: says, with the arguments' shapes, which program it is.
        """
        if self.folder is None:
            self.counts["compiled"] += 1
            return jitted.lower(*args).compile()
        path = self.folder / _digest(name, _shapes(args))
        found = self._load(path)
        self.counts["compiled" if found is None else "kept"] += 1
        if found is None:
            # One that JAX's own cache gives back cannot be kept: on CPUs it lacks functions then.
            with _without_cache():
                found = jitted.lower(*args).compile()
            _save(path, found)
        return found

    def _load(self, path: Path) -> Callable[..., Any] | None:
        body = _read(path)
        if body is None:
            return None
        try:
            return serialize_executable.deserialize_and_load(
                *pickle.loads(body), execution_devices=[self.device]
            )
        except jax.errors.JaxRuntimeError as error:
            log.warning("a kept program is refused and made again: %s", error)
            return None


_STORE: ContextVar[ProgramStore | None] = ContextVar("store", default=None)


def compiled(jitted: Any, args: tuple[Any, ...], *, name: str) -> Callable[..., Any]:
    """Return a function compiled for such arguments; arguments as in `ProgramStore.program`."""
    store = _STORE.get()
    if store is None:
        return jitted.lower(*args).compile()
    return store.program(jitted, args, name=name)


class KeptJit:
    """`jax.jit` of a function; in threads that use a store its programs are executables of it.

    Static arguments are given by name, all others by place.
    """

    def __init__(self, function: Callable[..., Any], *, static_argnames: tuple[str, ...]):
        self._function = function
        self._jitted = jax.jit(function, static_argnames=static_argnames)

    def __call__(self, *args: Any, **static: Any) -> Any:
        """Call the function."""
        store = _STORE.get()
        if store is None:
            return self._jitted(*args, **static)
        return self._program(store, args, static)(*args)

    def prepare(self, *args: Any, **static: Any) -> None:
        """Compile for such arguments what a later call in a thread of this store needs."""
        store = _STORE.get()
        if store is not None:
            self._program(store, args, static)

    def _program(
        self, store: ProgramStore, args: tuple[Any, ...], static: dict[str, Any]
    ) -> Callable[..., Any]:
        leaves, tree = jax.tree.flatten(args)
        shapes = tuple((leaf.dtype, leaf.shape) for leaf in leaves)
        key = (self, tuple(sorted(static.items())), tree, shapes)
        if key not in store.called:
            named = [f"{name}={value!r}" for name, value in sorted(static.items())]
            name = " ".join([self._function.__module__, self._function.__qualname__, *named])
            fresh = jax.jit(partial(self._function, **static))
            store.called[key] = store.program(fresh, args, name=name)
        return store.called[key]


# --- names ----------------------------------------------------------------------------------------


def _kind(weights: str, device: jax.Device) -> str:
    """Return a hash of what shapes all programs of a model."""
    settings = {
        name: repr(value)
        for name, value in jax.config.values.items()
        if not name.startswith(_NO_MATTER)
    }
    facts = {
        "weights": weights,
        "code": _code(),
        "versions": provenance.versions(_PACKAGES),
        "compiler": device.client.platform_version,
        "device": [device.platform, device.device_kind, device.id, jax.local_device_count()],
        "processor": [provenance.processor(), provenance.processor_features()],
        "settings": settings,
        "environment": {name: os.environ.get(name) for name in _ENVIRONMENT},
    }
    return _digest(json.dumps(facts, sort_keys=True))


@cache
def _code() -> str:
    """Return a hash of the sources of this package."""
    digest, root = hashlib.sha256(), Path(__file__).resolve().parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _shapes(args: tuple[Any, ...]) -> str:
    leaves, tree = jax.tree.flatten(args)
    shapes = [f"{leaf.dtype}{leaf.shape}{getattr(leaf, 'weak_type', False)}" for leaf in leaves]
    return f"{tree} {shapes}"


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:40]


# --- files ----------------------------------------------------------------------------------------


def _save(path: Path, program: Any) -> None:
    """Keep a program; where there is no room for it, it is compiled again next time."""
    body = pickle.dumps(serialize_executable.serialize(program))
    try:
        with atomic_file(path) as file:
            file.touch(mode=0o600)  # whatever the umask: `_read` refuses what a group may write
            file.write_bytes(_checksum(path, body) + body)
    except OSError as error:
        log.warning("a compiled program could not be kept: %s", error.strerror)


def _read(path: Path) -> bytes | None:
    """Return what was saved; None where it is not, is damaged, or may be another user's."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                return None
            data = file.read()
    except OSError:
        return None
    body = data[_DIGEST:]
    return body if data[:_DIGEST] == _checksum(path, body) else None


def _checksum(path: Path, body: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + body).digest()


def _drop_oldest(root: Path, *, most: int) -> None:
    kinds = sorted((one for one in root.iterdir() if one.is_dir()), key=_used, reverse=True)
    total = 0
    for number, kind in enumerate(kinds):
        total += sum(file.stat().st_size for file in kind.iterdir() if file.is_file())
        if number and total > most:
            shutil.rmtree(kind, ignore_errors=True)


def _used(folder: Path) -> float:
    return folder.stat().st_mtime


# --- JAX's own cache ------------------------------------------------------------------------------

_switching = threading.Lock()


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Compile anew whatever JAX's own cache has."""
    name = "jax_enable_compilation_cache"
    with _switching:
        before = getattr(jax.config, name)
        try:
            jax.config.update(name, False)
            compilation_cache.reset_cache()  # whether it is used, is asked once
            yield
        finally:
            jax.config.update(name, before)
            compilation_cache.reset_cache()
