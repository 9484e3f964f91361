"""Fixtures for the whole suite: 8 fake CPU devices, full float32 products, golden data, weights."""

import fcntl
import gc
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# PyTorch and numpy: a second thread on a core that another worker uses mostly waits, and spins.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import jax
import pytest

from tests.support import compilation, shared

jax.config.update("jax_default_matmul_precision", "highest")

ROOT = Path(__file__).resolve().parent.parent
pytest_plugins = ["tests.support.durations"]


def pytest_configure():
    """Share compiled programs with other workers and with subprocesses."""
    compilation.share_cache()
    compilation.quickly()


def pytest_make_parametrize_id(val, argname):
    """Name bytes by their argument: an archive made at import carries the time, workers differ."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_finish():
    """Let the garbage collector pass over what was imported, and come by less often.

    Tracing makes millions of objects that reference counts free by themselves.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Choose how programs are compiled before a fixture compiles one."""
    compilation.choose(item)


def pytest_unconfigure():
    """Remove what only this run shared."""
    shared.remove_folder()


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers produced by the official PyTorch code."""
    return ROOT / "tests" / "golden"


def _real_weights(name: str) -> Path:
    from ltu_jax.fetch import fetch_weights

    with (ROOT / "assets.lock").open("w") as lock:  # `make test` has two processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        return fetch_weights(name, ROOT / "assets")


@pytest.fixture(scope="session")
def smollm2_files() -> Path:
    """SmolLM2-135M-Instruct as a weights directory, converted once; nothing computes with it."""
    return _real_weights("smollm2-135m")


@pytest.fixture(scope="session")
def smollm2_dir(smollm2_files) -> Path:
    """The same, to compute with: as a user's programs do (`support/compilation.py`)."""
    return smollm2_files


@pytest.fixture(scope="session")
def whisper_tiny_files() -> Path:
    """Whisper tiny.en as a weights directory, converted once; nothing computes with it."""
    return _real_weights("whisper-tiny.en")


@pytest.fixture(scope="session")
def whisper_tiny_dir(whisper_tiny_files) -> Path:
    """The same, to compute with: as a user's programs do (`support/compilation.py`)."""
    return whisper_tiny_files


@pytest.fixture(scope="session")
def whisper_base_files() -> Path:
    """Whisper base as a weights directory, converted once; nothing computes with it."""
    return _real_weights("whisper-base")


@pytest.fixture(scope="session")
def whisper_base_dir(whisper_base_files) -> Path:
    """The same, to compute with: as a user's programs do (`support/compilation.py`)."""
    return whisper_base_files


@pytest.fixture
def tiny_weights(tmp_path, golden) -> dict[str, Path]:
    """Weights directories "ltu-as" and "whisper" of a tiny model with random numbers."""
    from tests.support import tiny_ltu_as

    return tiny_ltu_as.save(tmp_path, tokenizer=golden / "text_cases" / "spm320.model")


@pytest.fixture
def bucket():
    """An empty bucket on loopback, gs://test-bucket, which this process and its children use."""
    from tests.support import bucket

    with bucket.served() as storage:
        yield storage
