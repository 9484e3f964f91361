"""LTU-AS models out of ltu_jax: merged for transformers, and round trips in official names."""

import jax
import numpy as np
import pytest
import tiny_models as tiny
import torch
import transformers
from safetensors.numpy import load_file

from ltu_jax.convert import export_weights
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.weights.formats import hf_llama, official_ltu_as
from ltu_jax.weights.formats.official_ltu_as import merge_lora
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.store import load_weights, save_weights
from ltu_jax.weights.tensors import WeightsError, as_tensors

ROOT = "base_model.model."
CASES = {
    "plain": ({}, ("q_proj", "v_proj")),
    "tied": ({"tie_word_embeddings": True}, ("q_proj", "k_proj", "o_proj", "gate_proj")),
    "biases": ({"attention_bias": True}, ("v_proj", "up_proj", "down_proj")),
    "no-lora": ({}, ()),
}


@pytest.fixture(params=CASES)
def random_model(request, tmp_path):
    changes, targets = CASES[request.param]
    config = tiny.ltu_as_config(tiny.llama_config(**changes), targets=targets)
    fns = LTUAS.functional(config)
    params = tiny.random_params(fns)
    save_weights(
        tmp_path / "ours", kind="ltu-as", config=tiny.as_dict(config), params=params, source={}
    )
    return config, fns, params, tmp_path / "ours"


def test_merged_model_gives_our_logits(random_model, tmp_path):
    config, fns, params, folder = random_model
    export_weights("hf", checkpoint=folder, out=tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 96, (2, 9))
    features = rng.standard_normal((2, 2, 25, 16)).astype(np.float32)
    positions = np.broadcast_to(np.arange(34), (2, 34))
    text = TextBatch(input_ids=ids, segment_ids=np.ones_like(ids), positions=positions)
    ours = jax.jit(fns.pure(LTUAS.__call__))(params, text, features)
    audio = jax.jit(fns.pure(LTUAS.embed_audio))(params, features)
    embeds = np.concatenate([audio, fns.bind(params).embed_text(ids)], 1)
    with torch.no_grad():
        truth = model(inputs_embeds=torch.from_numpy(embeds)).logits[:, 25:].numpy()
    np.testing.assert_allclose(ours, truth, atol=1e-4)
    if config.lora:  # the adapters are not negligible here
        plain = {p: a for p, a in params.items() if ".lora_" not in p}
        found = merge_lora(tiny.as_dict(config), as_tensors(params))
        assert found.keys() == {p for p in plain if p.startswith("llama.")}
        name = f"llama.layers.{hf_llama.projection(config.lora.targets[0])}.kernel"
        assert np.abs(found[name].read() - params[name]).max() > 0.1
        np.testing.assert_array_equal(found[name].layer(2), found[name].read()[2])


def test_a_training_checkpoint_is_exported_with_its_base(tmp_path):
    from ltu_jax import checkpoint
    from ltu_jax.training.state import TrainState
    from ltu_jax.weights.open import base_entry

    config = tiny.ltu_as_config(tiny.llama_config())
    params = tiny.random_params(LTUAS.functional(config))
    adapter = {path: array for path, array in params.items() if is_adapter(path)}
    base = {path: array for path, array in params.items() if not is_adapter(path)}
    save_weights(
        tmp_path / "base", kind="llama", config=tiny.as_dict(config.llama), params=base, source={}
    )
    run = tmp_path / "run"
    step = run / "checkpoints" / "7"
    entry = base_entry(load_weights(tmp_path / "base"), relative_to=step)
    checkpoint.save(
        run,
        state=TrainState(step=np.asarray(7), trainable=adapter, opt_state={}),
        adapter=adapter,
        metadata={
            "kind": "ltu-as-checkpoint", "model": tiny.as_dict(config), "base": {"llama": entry},
            "stage": "stage3", "step": 7,
        },
        keep=1,
    )  # fmt: skip
    export_weights("ltu-as", checkpoint=run, out=tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    wanted = official_ltu_as.to_official(tiny.as_dict(config), as_tensors(params))
    tiny.identical(found, tiny.numbers(wanted))
    (tmp_path / "base").rename(tmp_path / "gone")
    with pytest.raises(WeightsError, match="language model of .* is missing"):
        export_weights("hf", checkpoint=run, out=tmp_path / "hf")
