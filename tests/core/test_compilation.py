"""Compiled programs are kept between runs, in a folder that is the user's own."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from ltu_jax.core.compilation import keep_compiled
from ltu_jax.core.errors import UserError
from tests.support.bucket import NAME


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """JAX as it is without any cache; as it was, afterwards."""
    names = (
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], None)
    jax.config.update(names[2], 0)  # the default, a second, leaves toy programs out
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compiled(size):
    jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((size, 5))).block_until_ready()


def test_programs_are_kept_where_the_config_says(tmp_path):
    keep_compiled(tmp_path)
    compiled(7)
    assert any("-cache" in path.name for path in tmp_path.iterdir())


def test_commands_keep_them_in_a_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compiled()
    compiled(11)
    (folder,) = (tmp_path / "ltu_jax" / "compiled").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert any("-cache" in path.name for path in folder.iterdir())


def test_a_folder_that_jax_was_told_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "told"))
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "told")
    assert not (tmp_path / "none").exists()


def test_programs_are_kept_in_a_bucket(bucket):
    keep_compiled(f"gs://{NAME}/compiled")
    compiled(13)
    kept = {name: bucket.generation(NAME, name) for name in bucket.names()}
    assert any(name.startswith("compiled/") and name.endswith("-cache") for name in kept)
    hits = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
    jax.clear_caches()
    compilation_cache.reset_cache()
    compiled(13)
    assert "/jax/compilation_cache/cache_hits" in hits
    assert all(bucket.generation(NAME, name) == kept[name] for name in kept)


def test_a_bucket_of_programs_that_is_not_there_is_an_error(bucket):
    bucket.vanish()
    with pytest.raises(UserError, match=NAME):
        keep_compiled(f"gs://{NAME}/compiled")
