"""Models in int8 and on a mesh answer as they do whole on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltu_jax
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig, mesh_config
from ltu_jax.generation.request import Request
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.models.text_batch import TextBatch
from tests.support import tiny_ltu_as

KERNEL = "llama.layers.mlp.gate_proj.kernel"
QUESTIONS = ("What is this?", "Who speaks?", "Is it loud?", "What can be inferred from the audio?")


@pytest.fixture(scope="module")
def tiny_weights(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return tiny_ltu_as.save(folder, tokenizer=golden / "text_cases" / "spm320.model")


@pytest.fixture(scope="module")
def whole(tiny_weights):
    return ltu_jax.load(tiny_weights["ltu-as"], whisper=tiny_weights["whisper"])


@pytest.fixture(scope="module")
def requests(whole):
    generator = np.random.default_rng(0)
    clips = [generator.normal(scale=0.1, size=16_000).astype(np.float32) for _ in QUESTIONS]
    features = whole.audio_features_batch(clips)
    return [
        Request(question=question, spoken_text="", audio_features=feature)
        for question, feature in zip(QUESTIONS, features, strict=True)
    ]


@pytest.mark.parametrize("mesh", ["tensor=2", "fsdp=2", "data=2,fsdp=2,tensor=2"])
def test_a_model_in_parts_answers_as_the_whole(tiny_weights, whole, requests, mesh):
    devices = jax.local_devices()
    rest = "" if "data" in mesh else ",data=-1"  # rows over the devices that are left
    layout = mesh_config(mesh + rest)
    parts = ltu_jax.load(tiny_weights["ltu-as"], whisper=tiny_weights["whisper"], mesh=layout)
    kernel = parts.params[KERNEL]
    sizes = parts.data_parallel.mesh.shape
    assert len(kernel.sharding.device_set) == len(devices)
    piece = kernel.addressable_shards[0].data.size
    assert piece * sizes["fsdp"] * sizes["tensor"] == kernel.size
    sampling = [SamplingConfig(temperature=1.0, top_p=0.9, seed=seed) for seed in range(4)]
    for drawn in (None, sampling):
        settings = {"max_new_tokens": 10, "sampling": drawn, "batch_size": 3}
        expected = [answer.tokens for answer in whole.answer_batch(requests, **settings)]
        assert [answer.tokens for answer in parts.answer_batch(requests, **settings)] == expected
    clip = np.sin(np.arange(16_000) / 9).astype(np.float32)
    one = whole.answer(clip, QUESTIONS[0], spoken_text="", max_new_tokens=10)
    assert parts.answer(clip, QUESTIONS[0], spoken_text="", max_new_tokens=10) == one


def test_int8_answers_are_those_of_the_dequantised_kernels(tiny_weights, whole, requests):
    model = ltu_jax.load(tiny_weights["ltu-as"], whisper=tiny_weights["whisper"], dtype="int8")
    scale = model.params[KERNEL + "_scale"]
    assert model.params[KERNEL].dtype == jnp.int8 and scale.dtype == jnp.float32
    assert model.params["llama.norm.scale"].dtype == jnp.bfloat16
    dequantised = {
        path: leaf.astype(jnp.float32) * model.params[path + "_scale"][:, None]
        if leaf.dtype == jnp.int8
        else leaf.astype(jnp.float32)
        for path, leaf in model.params.items()
        if not path.endswith("_scale")
    }
    steps = np.abs(dequantised[KERNEL] - whole.params[KERNEL]) / scale[:, None]
    assert steps.max() <= 0.5001
    ids = np.asarray([[1, 82, 62, 51, 28, 31, 6, 10]])
    features = requests[0].audio_features[None]
    given = {"attention_mask": np.ones_like(ids), "audio_features": features, "layout": "train"}
    found = np.asarray(model.logits(ids, **given))
    want = np.asarray(whole.model.bind(dequantised)(*_inputs(whole, ids, features)))
    assert np.abs(found - want).max() < 0.02 * np.abs(want).max()  # products are bfloat16
    assert len(model.answer_batch(requests, max_new_tokens=6)) == len(requests)


def _inputs(model, ids, features):
    length = model.config.audio_tokens + ids.shape[1]
    text = TextBatch(
        input_ids=jnp.asarray(ids, jnp.int32),
        segment_ids=jnp.ones_like(ids, jnp.int32),
        positions=jnp.arange(length)[None],
    )
    return text, jnp.asarray(features)


@pytest.mark.parametrize("text", ["tensor", "tensor=0", "expert=2", "tensor=2,tensor=4", ""])
def test_a_mesh_that_cannot_be_read_is_named(text):
    with pytest.raises(UserError, match=repr(text)):
        mesh_config(text)


def test_the_other_axes_have_one_device():
    assert mesh_config("tensor=4") == MeshConfig(data=1, fsdp=1, tensor=4)
    assert mesh_config("fsdp=2, data=-1") == MeshConfig(data=-1, fsdp=2, tensor=1)
