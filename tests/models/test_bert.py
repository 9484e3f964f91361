"""BERT against live transformers at random tiny sizes, float32."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
import transformers

from ltu_jax.core.errors import UserError
from ltu_jax.models.bert import Bert, BertConfig
from ltu_jax.weights.formats.hf_bert import from_hf

pytestmark = pytest.mark.optimised

SIZES = dict(
    vocab_size=61,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=19,
    type_vocab_size=2,
    layer_norm_eps=1e-5,
)
CONFIG = BertConfig(**SIZES)
MODEL = Bert.functional(CONFIG)


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**SIZES, initializer_range=0.3)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name or name.endswith("bias"):  # 1 and 0 would hide a mistake
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def params(folder):
    shapes = {name: leaf.shape for name, leaf in MODEL.shapes.items()}
    found = from_hf(folder).params(shapes, subject="tiny")
    return {name: tensor.read() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def batch():
    """Rows of 11, 1 and 6 tokens."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 61, (3, 11)), np.arange(11) < np.array([[11], [1], [6]])


def test_states_are_those_of_transformers(theirs, params, batch):
    ids, real = batch
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids), attention_mask=torch.tensor(real)).last_hidden_state
    states = np.asarray(jax.jit(MODEL.pure(Bert.__call__))(params, ids, real=real))
    np.testing.assert_allclose(states[real], wanted.numpy()[real], rtol=1e-5, atol=1e-5)


def test_a_sentence_is_the_mean_of_its_real_tokens_at_length_one(params, batch):
    ids, real = batch
    states = np.asarray(MODEL.bind(params)(ids, real=real), np.float64)
    means = np.stack([row[mask].mean(0) for row, mask in zip(states, real, strict=True)])
    wanted = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(MODEL.bind(params).sentences(ids, real=real), wanted, atol=1e-6)


def test_a_pytorch_pickle_gives_the_same_parameters(theirs, folder, params, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    shapes = {name: array.shape for name, array in params.items()}
    for name, tensor in from_hf(tmp_path).params(shapes, subject="pickle").items():
        np.testing.assert_array_equal(tensor.read(), params[name])


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(model_type="roberta"), "found model_type roberta, expected bert"),
        (dict(hidden_act="gelu_new"), "hidden_act 'gelu_new' is not implemented; 'gelu' is"),
        (dict(position_embedding_type="relative_key"), "'relative_key' is not implemented"),
        (dict(num_attention_heads=None), "num_attention_heads is not given"),
        (dict(layer_norm_eps=-1), "layer_norm_eps is -1; expected a finite number above 0"),
        (dict(num_hidden_layers=4), "encoder.layer.3.attention"),
    ],
)
def test_another_model_is_refused(folder, tmp_path, change, message):
    settings = json.loads((folder / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=message):
        imported = from_hf(tmp_path)
        shapes = {
            n: leaf.shape
            for n, leaf in Bert.functional(BertConfig(**imported.config)).shapes.items()
        }
        imported.params(shapes, subject=str(tmp_path))


def test_every_product_is_float32_whatever_the_default_precision(params, batch):
    with jax.default_matmul_precision("bfloat16"):  # as on a TPU
        sentences = jax.make_jaxpr(MODEL.pure(Bert.sentences))
        text = str(sentences(params, batch[0], real=batch[1]))
    products = text.count("dot_general[")
    assert products and text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


def test_more_tokens_than_positions_are_refused(params):
    ids = np.zeros((1, 20), np.int32)
    with pytest.raises(UserError, match="20 tokens; this BERT has 19 positions"):
        MODEL.bind(params)(ids, real=ids == 0)


def test_every_config_field_matters(params, batch):
    ids, real = batch
    before = np.asarray(MODEL.bind(params).sentences(ids, real=real))
    special = dict(hidden_size=28, num_attention_heads=2, layer_norm_eps=0.1)
    for field in dataclasses.fields(BertConfig):
        value = special.get(field.name, getattr(CONFIG, field.name) + 1)
        changed = Bert.functional(dataclasses.replace(CONFIG, **{field.name: value}))
        if changed.shapes == MODEL.shapes:
            after = np.asarray(changed.bind(params).sentences(ids, real=real))
            assert np.abs(after - before).max() > 1e-3, f"{field.name} changes nothing"
