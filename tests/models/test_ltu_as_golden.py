"""LTU-AS against the numbers of the official PyTorch code (facts section 3 tolerances)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from ltu_jax.core.trees import count
from ltu_jax.models.ltu_as import LTUAS, AudioProjection
from ltu_jax.models.text_batch import TextBatch
from tests.support.golden_model import model_config
from tests.support.official_names import from_official


@pytest.fixture(scope="module")
def tiny(golden):
    return golden / "ltu_as_tiny_a"


@pytest.fixture(scope="module")
def info(tiny):
    return json.loads((tiny / "config.json").read_text())


@pytest.fixture(scope="module")
def config(info):
    return model_config(info)


@pytest.fixture(scope="module")
def params(tiny):
    return from_official(load_file(tiny / "weights.safetensors"))


@pytest.fixture(scope="module")
def fns(config):
    return LTUAS.functional(config)


def inputs(data, prefix="in.", *, audio=True):
    """Text and features of a golden batch: left pads are segment 0, positions count them."""
    ids, mask = data[prefix + "input_ids"], data[prefix + "attention_mask"][:, 25:]
    length = ids.shape[1] + (25 if audio else 0)
    features = jnp.asarray(data[prefix + "audio_input"]) if audio else None
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (len(ids), length))
    text = TextBatch(
        input_ids=jnp.asarray(ids, jnp.int32),
        segment_ids=jnp.asarray(mask, jnp.int32),
        positions=jnp.asarray(positions),
    )
    return text, features


def mean_loss(logits, labels):
    """Cross-entropy of the next token over the labels that are not -100."""
    logits, labels = logits[:, :-1], jnp.asarray(labels[:, 1:])
    picked = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    return jnp.where(labels == -100, 0.0, losses).sum() / (labels != -100).sum()


def close(name, got, want, atol):
    np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=atol, err_msg=name)


def assert_gradients(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        close(name, got[name], value, max(1e-5, 3e-5 * np.abs(value).max()))


def test_weights_have_our_names_and_the_official_count(fns, params, info):
    assert {n: v.shape for n, v in params.items()} == {n: s.shape for n, s in fns.shapes.items()}
    assert count(fns.shapes) == info["n_params"]


@pytest.mark.optimised
def test_forward_and_every_intermediate(fns, params, tiny, info):
    data = np.load(tiny / "forward.npz")
    text, features = inputs(data)
    mid = jax.jit(fns.pure(LTUAS.intermediates))(params, text, features)
    close("time_tr", mid["time_tr"].reshape(18, 25, 48), data["mid.tltr.time_tr_out"], 5e-6)
    close("tltr", mid["tltr"], data["mid.tltr_out"], 5e-6)
    close("audio_ln", mid["audio_ln"], data["mid.audio_ln"], 2e-5)
    close("audio_embeds", mid["audio_embeds"], data["mid.audio_embeds"], 2e-5)
    for layer in range(3):
        want = data[f"mid.decoder_layer{layer}_out"]
        close(f"layer {layer}", mid["layers"][layer], want, 5e-5)
    close("final_norm", mid["final_norm"], data["mid.final_norm_full_seq"], 5e-5)
    logits = jax.jit(fns.pure(LTUAS.__call__))(params, text, features)
    close("logits", logits, data["out.logits"], 5e-5)
    assert logits.dtype == jnp.float32
    loss = mean_loss(logits, data["in.labels"])
    close("loss", loss, data["out.loss"], 1e-5)
    close("loss in config", loss, info["loss_stage3"], 1e-5)


def test_text_only_forward(fns, params, tiny):
    data = np.load(tiny / "forward.npz")
    text, features = inputs(data, audio=False)
    logits = jax.jit(fns.pure(LTUAS.__call__))(params, text, features)
    real = data["in.attention_mask"][:, 25:] > 0
    close("logits", logits[real], data["text_only.logits"][real], 5e-5)
    # The loss counts the last pad of a row, whose attention is uniform: it must not be NaN.
    close("loss", mean_loss(logits, data["in.labels"]), data["text_only.loss"], 1e-5)


@pytest.mark.parametrize("case", ["nopad", "smallaudio"])
def test_extra_batches(fns, params, tiny, case):
    data = np.load(tiny / "forward_extra.npz")
    text, features = inputs(data, f"{case}.in.")
    mid = jax.jit(fns.pure(LTUAS.intermediates))(params, text, features)
    close("tltr", mid["tltr"], data[f"{case}.mid.tltr_out"], 5e-6)
    close("audio_embeds", mid["audio_embeds"], data[f"{case}.mid.audio_embeds"], 2e-5)
    close("embed_audio", fns.bind(params).embed_audio(features), mid["audio_embeds"], 1e-5)
    logits = jax.jit(fns.pure(LTUAS.__call__))(params, text, features)
    close("logits", logits, data[f"{case}.out.logits"], 5e-5)
    close("loss", mean_loss(logits, data[f"{case}.in.labels"]), data[f"{case}.out.loss"], 1e-5)


def test_projection_alone(params, tiny):
    data = np.load(tiny / "forward_extra.npz")
    module = AudioProjection(48, 64, dtype=jnp.float32, rngs=nnx.Rngs(params=0))
    module.kernel = nnx.Param(jnp.asarray(params["audio_proj.kernel"]))
    module.bias = nnx.Param(jnp.asarray(params["audio_proj.bias"]))
    close("proj_unit", module(jnp.asarray(data["proj_unit.in"])), data["proj_unit.out"], 1e-5)


def trainable_names(info, stage):
    return set(from_official({name: np.zeros((1, 1)) for name in info[f"trainable_{stage}"]}))


def gradients(fns, params, names, data, rows=slice(None)):
    text, features = jax.tree.map(lambda leaf: leaf[rows], inputs(data))
    labels = data["in.labels"][rows]

    def loss(trainable):
        merged = {**params, **trainable}
        return mean_loss(fns.bind(merged)(text, features), labels)

    trainable = {name: jnp.asarray(params[name]) for name in names}
    return jax.jit(jax.value_and_grad(loss))(trainable)


def test_gradients_of_stage_3(fns, params, tiny, info):
    data = np.load(tiny / "forward.npz")
    loss, grads = gradients(fns, params, trainable_names(info, "stage3"), data)
    close("loss", loss, info["loss_stage3"], 1e-5)
    assert_gradients(grads, from_official(dict(np.load(tiny / "grads_stage3_all.npz"))))


@pytest.mark.parametrize("remat", ["full", "dots_with_no_batch_dims_saveable"])
def test_gradients_do_not_depend_on_remat(config, params, tiny, info, remat):
    data = np.load(tiny / "forward.npz")
    fns = LTUAS.functional(config, remat=remat)
    _, grads = gradients(fns, params, trainable_names(info, "stage3"), data)
    assert_gradients(grads, from_official(dict(np.load(tiny / "grads_stage3_all.npz"))))


def test_gradients_accumulated_over_two_micro_batches(fns, params, tiny, info):
    data = np.load(tiny / "forward.npz")
    names = trainable_names(info, "stage3")
    parts = [gradients(fns, params, names, data, rows)[1] for rows in (slice(0, 1), slice(1, 3))]
    mean = {name: (parts[0][name] + parts[1][name]) / 2 for name in names}
    assert_gradients(mean, from_official(dict(np.load(tiny / "grads_accum2.npz"))))


def test_stage_1_has_no_lora_and_its_gradients(config, params, tiny, info):
    data, want = np.load(tiny / "forward.npz"), np.load(tiny / "stage1_proj.npz")
    fns = LTUAS.functional(config, with_lora=False)
    bare = {name: value for name, value in params.items() if "lora" not in name}
    text, features = inputs(data)
    logits = jax.jit(fns.pure(LTUAS.__call__))(bare, text, features)
    close("logits", logits, want["logits"], 5e-5)
    loss, grads = gradients(fns, bare, trainable_names(info, "stage1"), data)
    close("loss", loss, info["loss_stage1"], 1e-5)
    golden = {n.removeprefix("grad."): want[n] for n in want.files if n.startswith("grad.")}
    assert_gradients(grads, from_official(golden))
