"""Executables of earlier processes: found, refused when anything differs, and made again."""

import dataclasses
import os
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from ltu_jax.core import kept_programs, provenance
from ltu_jax.core.kept_programs import KeptJit, ProgramStore


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ltu_jax" / "programs"


@dataclasses.dataclass
class Traced:
    """A function that knows how often it was traced."""

    times: int = 0

    def __call__(self, x, pair, *, power):
        self.times += 1
        first, second = pair["first"], pair["second"]
        return {"sum": jnp.sin(x @ first).sum() + second**power, "none": None}


X = np.arange(12, dtype=np.float32).reshape(3, 4)
PAIR = {"first": np.ones((4, 2), np.float32), "second": np.float32(3)}
WANTED = np.sin(X @ PAIR["first"]).sum() + 9


def ask(traced, store, x=X):
    """What a process does: a program of its own of the same name, called."""
    program = store.program(jax.jit(partial(traced, power=2)), (x, PAIR), name="traced")
    return program(x, PAIR)


def test_a_later_store_neither_traces_nor_compiles(own_cache):
    traced = Traced()
    first, second = ProgramStore.of("weights"), ProgramStore.of("weights")
    for store in (first, second):
        found = ask(traced, store)
        np.testing.assert_allclose(found["sum"], WANTED, rtol=1e-5)
        assert found["none"] is None
    assert traced.times == 1
    assert (dict(first.counts), dict(second.counts)) == ({"compiled": 1}, {"kept": 1})
    ask(traced, second, X[:2])
    assert traced.times == 2  # of other shapes
    assert own_cache.stat().st_mode & 0o777 == 0o700


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _changed(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _of_anybody(path):
    path.chmod(0o666)


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _changed, _of_anybody, _empty])
def test_what_is_damaged_or_not_ours_alone_is_made_again(own_cache, damage):
    traced = Traced()
    ask(traced, ProgramStore.of("weights"))
    ((file,),) = [list(kind.iterdir()) for kind in own_cache.iterdir()]
    damage(file)
    for times in (2, 2):
        assert ask(traced, ProgramStore.of("weights"))["sum"] == pytest.approx(WANTED, rel=1e-5)
        assert traced.times == times
    assert file.stat().st_mode & 0o022 == 0


def test_where_files_are_usually_a_group_s_too_they_are_kept():
    traced = Traced()
    before = os.umask(0o002)  # of many systems
    try:
        for _ in range(2):
            ask(traced, ProgramStore.of("weights"))
    finally:
        os.umask(before)
    assert traced.times == 1


def test_a_program_under_another_name_is_not_loaded(own_cache):
    traced, store = Traced(), ProgramStore.of("weights")
    ask(traced, store)
    (file,) = store.folder.iterdir()
    ask(traced, store, X[:2])
    (other,) = set(store.folder.iterdir()) - {file}
    other.write_bytes(file.read_bytes())
    assert ask(traced, ProgramStore.of("weights"), X[:2])["sum"] != pytest.approx(WANTED)
    assert traced.times == 3


def _other_version(monkeypatch):
    monkeypatch.setattr(provenance, "versions", lambda packages: {"jax": "0.0"})


def _other_code(monkeypatch):
    monkeypatch.setattr(kept_programs, "_code", lambda: "edited")


def _other_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " --xla_dump_to=")


def _other_processor(monkeypatch):
    monkeypatch.setattr(provenance, "processor_features", lambda: "none")


@pytest.mark.parametrize("change", [_other_version, _other_code, _other_flags, _other_processor])
def test_of_another_version_or_machine_they_are_made_again(own_cache, monkeypatch, change):
    traced = Traced()
    ask(traced, ProgramStore.of("weights"))
    change(monkeypatch)
    ask(traced, ProgramStore.of("weights"))
    ask(traced, ProgramStore.of("others"))
    assert traced.times == 3 and len(list(own_cache.iterdir())) == 3


def test_settings_of_jax_that_shape_programs_count(own_cache):
    names = ("jax_default_matmul_precision", "jax_compilation_cache_dir")
    kinds = []
    before = {name: getattr(jax.config, name) for name in names}
    try:
        for changed in ({}, {names[0]: "bfloat16"}, {names[1]: str(own_cache)}):
            for name, value in (before | changed).items():
                jax.config.update(name, value)
            kinds.append(ProgramStore.of("weights").folder)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert kinds[0] == kinds[2] != kinds[1]


def test_programs_that_jax_s_own_cache_has_are_kept_whole(tmp_path):
    """On CPUs an executable that came from a cache loses functions when it is serialised again."""
    names = {
        "jax_compilation_cache_dir": str(tmp_path / "jax"),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: getattr(jax.config, name) for name in names}

    def function(x):
        order = jnp.argsort(jnp.sin(x), axis=-1)
        return jax.nn.log_softmax(jnp.take_along_axis(x, order, axis=-1)).sum(axis=0)

    x = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    try:
        for name, value in names.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        wanted = np.asarray(jax.jit(partial(function))(x))
        assert list((tmp_path / "jax").iterdir())
        for _ in range(2):
            store = ProgramStore.of("weights")
            found = store.program(jax.jit(partial(function)), (x,), name="function")(x)
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert store.counts["kept"] == 1
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def test_what_was_used_longest_ago_is_dropped(own_cache, monkeypatch):
    traced = Traced()
    stores = []
    for number, weights in enumerate(("a", "b", "c")):
        stores.append(ProgramStore.of(weights))
        ask(traced, stores[-1])
        os.utime(stores[-1].folder, (number, number))
    size = sum(file.stat().st_size for file in stores[0].folder.iterdir())
    monkeypatch.setattr(kept_programs, "_MOST", int(2.5 * size))
    ProgramStore.of("a")  # used just now
    assert [one.folder.exists() for one in stores] == [True, False, True]
    ask(traced, stores[1])  # still open elsewhere: made again, and kept
    assert traced.times == 4 and stores[1].folder.exists()


def test_without_a_folder_programs_are_made_each_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    traced = Traced()
    for times in (1, 2):
        store = ProgramStore.of("weights")
        assert ask(traced, store)["sum"] == pytest.approx(WANTED, rel=1e-5)
        assert traced.times == times and store.folder is None


def test_a_function_uses_the_store_of_its_thread():
    traced = Traced()

    def function(x, pair, *, power):
        return traced(x, pair, power=power)

    jitted = KeptJit(function, static_argnames=("power",))
    for _ in range(2):
        assert jitted(X, PAIR, power=2)["sum"] == pytest.approx(WANTED, rel=1e-5)
    assert traced.times == 1
    store = ProgramStore.of("weights")
    with store.used():
        jitted.prepare(jax.ShapeDtypeStruct(X.shape, X.dtype), PAIR, power=2)
        assert traced.times == 2
        assert jitted(X, PAIR, power=2)["sum"] == pytest.approx(WANTED, rel=1e-5)
        assert jitted(X, PAIR, power=1)["sum"] == pytest.approx(WANTED - 6, rel=1e-5)
    assert traced.times == 3 and store.counts == {"compiled": 2}
    found = []

    def elsewhere():
        later.use()
        found.append(float(jitted(X, PAIR, power=1)["sum"]))

    later = ProgramStore.of("weights")
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [pytest.approx(WANTED - 6, rel=1e-5)]
    assert traced.times == 3 and later.counts == {"kept": 1}
