"""Weights directories: written whole, verified when read, precise when they do not fit."""

import json

import ml_dtypes
import numpy as np
import pytest

from ltu_jax.weights.files import shards
from ltu_jax.weights.open import base_entry, open_base
from ltu_jax.weights.store import check_against, is_weights_dir, load_weights, save_weights
from ltu_jax.weights.tensors import Tensor, WeightsError

PARAMS = {
    "llama.norm.scale": np.arange(4, dtype=np.float32),
    "llama.layers.k.kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "tltr.x.bias": np.asarray([1.5, -2.0], ml_dtypes.bfloat16),
}


def _save(path, **changes):
    given = dict(kind="llama", config={"a": (1, 2)}, params=PARAMS, source={"from": "test"})
    return save_weights(path, **(given | changes))


@pytest.mark.parametrize("max_bytes", [8, 1 << 30])
def test_what_is_saved_is_loaded(tmp_path, max_bytes, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", max_bytes)
    identity = _save(tmp_path / "w", files={"tokenizer.json": "{}"})
    weights = load_weights(tmp_path / "w", kind="llama")
    assert weights.sha256 == identity
    assert weights.config == {"a": [1, 2]}
    assert weights.tokenizer_dir == tmp_path / "w"
    assert set(weights.params) == set(PARAMS)
    for path, array in PARAMS.items():
        np.testing.assert_array_equal(weights.params[path], array)
        assert weights.params[path].dtype == array.dtype
    names = sorted(path.name for path in (tmp_path / "w").glob("params*"))
    assert names == (
        ["params.safetensors"]
        if max_bytes > 8
        else [f"params-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    )


def test_cast_on_reading(tmp_path):
    _save(tmp_path / "w")
    params = load_weights(tmp_path / "w", dtype=np.float32).params
    assert {array.dtype.name for array in params.values()} == {"float32"}


def test_identity_is_of_config_and_numbers(tmp_path):
    first = _save(tmp_path / "a")
    assert _save(tmp_path / "b", source={"from": "elsewhere"}) == first
    assert _save(tmp_path / "c", config={"a": 3}) != first
    assert _save(tmp_path / "d", params=PARAMS | {"llama.norm.scale": np.ones(4)}) != first


def test_a_failed_save_leaves_nothing(tmp_path):
    def broken():
        raise WeightsError("half way")

    params = {"x": Tensor(shape=(3,), dtype=np.dtype(np.float32), read=broken)}
    with pytest.raises(WeightsError, match="half way"):
        _save(tmp_path / "w", params=PARAMS | params)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WeightsError, match="no parameters"):
        _save(tmp_path / "w", params={})


def test_a_changed_or_truncated_file_is_named(tmp_path):
    _save(tmp_path / "w")
    file = tmp_path / "w" / "params.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"params.safetensors is damaged: its sha256"):
        load_weights(tmp_path / "w")
    load_weights(tmp_path / "w", verify=False)
    file.write_bytes(content[:-10])
    with pytest.raises(WeightsError, match="interrupted download"):
        load_weights(tmp_path / "w", verify=False)
    file.unlink()
    with pytest.raises(WeightsError, match="lacks params.safetensors; convert"):
        load_weights(tmp_path / "w")


def test_what_is_no_weights_directory(tmp_path):
    with pytest.raises(WeightsError, match=r"does not exist; make it with .*ltu_jax.convert"):
        load_weights(tmp_path / "none")
    with pytest.raises(WeightsError, match="no config.json"):
        load_weights(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert not is_weights_dir(tmp_path)
    with pytest.raises(WeightsError, match="Hugging Face directory of model_type 'gpt2'"):
        load_weights(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"ltu_jax": 99, "kind": "llama"}))
    with pytest.raises(WeightsError, match="format 99; this version reads 1"):
        load_weights(tmp_path)


def test_kind_is_checked(tmp_path):
    _save(tmp_path / "w")
    with pytest.raises(WeightsError, match="holds 'llama' weights, expected 'whisper'"):
        load_weights(tmp_path / "w", kind="whisper")
    with pytest.raises(WeightsError, match="kind 'gpt' .* unknown; known are whisper"):
        _save(tmp_path / "x", kind="gpt")


def test_base_moves_with_the_run_and_is_recognised(tmp_path):
    (tmp_path / "old").mkdir()
    _save(tmp_path / "old" / "base")
    (tmp_path / "old" / "run").mkdir()
    entry = base_entry(
        load_weights(tmp_path / "old" / "base"), relative_to=tmp_path / "old" / "run"
    )
    run = tmp_path / "new" / "run"
    (tmp_path / "old").rename(tmp_path / "new")
    assert open_base(entry, relative_to=run, subject="language model").sha256 == entry["sha256"]
    _save(tmp_path / "new" / "base", config={"a": 9})
    with pytest.raises(WeightsError, match="is not the language model that"):
        open_base(entry, relative_to=run, subject="language model")
    (tmp_path / "new" / "base").rename(tmp_path / "away")
    with pytest.raises(WeightsError, match=r"language model of .* is missing: looked for"):
        open_base(entry, relative_to=run, subject="language model")


def test_check_against_lists_ten_and_counts():
    wanted = {f"a{i:02d}": (2,) for i in range(15)} | {"b": (3, 4)}
    check_against(wanted, {path: np.zeros(shape) for path, shape in wanted.items()})
    found = {"b": np.zeros((4, 3)), "c": np.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        check_against(wanted, found, subject="DIR")
    message = str(caught.value)
    assert "15 missing: a00" in message and "a09 and 5 more" in message
    assert "1 surplus: c" in message
    assert "1 of another shape: b is [4, 3], expected [3, 4]" in message
