"""How test processes compile: one cache per run of the suite, and quickly unless marked otherwise.

`share_cache` and `choose` are called by `tests/conftest.py`.
"""

import functools
import os

import jax
import pytest
from jax._src import compiler  # JAX has no public way to give options to every compilation

from tests.support import shared

_CACHE, _SHORTEST = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
# Each fusion lowered by MLIR costs several times what LLVM alone takes for a toy program.
QUICK: dict[str, bool | int] = {"xla_cpu_parallel_codegen_split_count": 1}
if jax.__version_info__ < (0, 11):  # later ones have no other way, and refuse the option
    QUICK["xla_cpu_use_fusion_emitters"] = False
XLA_FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())
# Fixtures of real weights: what they compute is compared at the precision of a user's programs.
_REAL_WEIGHTS = {"smollm2_dir", "whisper_tiny_dir", "whisper_base_dir"}


def share_cache() -> None:
    """Let this run of the suite, its workers and their children compile each program once.

    The cache goes with the run: what was compiled by other code must not let a test pass. A folder
    that the environment names is used instead, and stays.
    """
    own = shared.folder() / "compiled"
    os.environ.setdefault(_CACHE, str(own))
    # Toy programs are compiled in fractions of a second, and again by the next test.
    os.environ.setdefault(_SHORTEST, "0")
    jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(os.environ[_SHORTEST]))


def quickly() -> None:
    """Add `QUICK` to the options of programs that are compiled without most optimisations."""
    official = compiler.get_compile_options

    @functools.wraps(official)
    def get_compile_options(*args, env_options_overrides=None, **others):
        if jax.config.read("jax_disable_most_optimizations"):
            env_options_overrides = QUICK | (env_options_overrides or {})
        return official(*args, env_options_overrides=env_options_overrides, **others)

    compiler.get_compile_options = get_compile_options


def is_optimised(item: pytest.Item) -> bool:
    """Return whether the programs of a test are compiled as a user's are.

    Those are tests that read real weights, measure a compiler or a precision, and one golden test
    each of a model and of its steps; the others hold official numbers as closely without. They
    have the marker `optimised`, or a fixture of real weights.
    """
    if item.get_closest_marker("optimised") is not None:
        return True
    return not _REAL_WEIGHTS.isdisjoint(getattr(item, "fixturenames", ()))


def choose(item: pytest.Item) -> None:
    """Let the programs of a test be compiled without most optimisations, or with them."""
    optimised = is_optimised(item)
    if jax.config.read("jax_disable_most_optimizations") == optimised:
        jax.clear_caches()  # no test runs what one of the other kind compiled
        jax.config.update("jax_disable_most_optimizations", not optimised)
