"""The LLaMA family against live transformers at random tiny sizes, float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from ltu_jax.core.errors import UserError
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.norms import RMSNorm, mean_square
from ltu_jax.models.rope import RopeScaling
from ltu_jax.models.sizes import LLAMA_SIZES
from ltu_jax.models.text_batch import TextBatch
from tests.support.official_names import arrays, from_official

pytestmark = pytest.mark.optimised

SIZES = dict(
    vocab_size=101,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    max_position_embeddings=256,
    attn_implementation="eager",
)
LLAMA3 = dict(
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
CASES = {
    "llama1": (
        transformers.LlamaConfig,
        dict(num_key_value_heads=6, rms_norm_eps=1e-6, rope_theta=1e4, tie_word_embeddings=False),
    ),
    "smollm2": (
        transformers.LlamaConfig,
        dict(num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=1e5, tie_word_embeddings=True),
    ),
    "llama3": (
        transformers.LlamaConfig,
        dict(
            num_key_value_heads=3,
            rms_norm_eps=1e-5,
            rope_theta=5e5,
            tie_word_embeddings=False,
            rope_scaling=LLAMA3,
        ),
    ),
    "mistral": (
        transformers.MistralConfig,
        dict(
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            rope_theta=1e6,
            tie_word_embeddings=False,
            head_dim=16,
            sliding_window=None,
        ),
    ),
    "qwen2": (
        transformers.Qwen2Config,
        dict(
            num_key_value_heads=2,
            rms_norm_eps=1e-6,
            rope_theta=1e6,
            tie_word_embeddings=True,
            use_sliding_window=False,
        ),
    ),
}


def make(case):
    """A random model of transformers, and ours with its config and weights."""
    torch.manual_seed(1)
    kind, options = CASES[case]
    options = dict(options)
    theta, scaling = options.pop("rope_theta"), options.pop("rope_scaling", None)
    rope = {"rope_type": "default", "rope_theta": theta}
    if scaling:
        rope = {"rope_type": "llama3", "rope_theta": theta, **scaling}
    model = transformers.AutoModelForCausalLM.from_config(
        kind(**SIZES, **options, rope_parameters=rope), attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    config = LlamaConfig(
        vocab_size=101,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=options["num_key_value_heads"],
        head_dim=options.get("head_dim", 8),
        rms_norm_eps=options["rms_norm_eps"],
        rope_theta=theta,
        rope_scaling=RopeScaling(**scaling) if scaling else None,
        tie_word_embeddings=options["tie_word_embeddings"],
        attention_bias=case == "qwen2",
    )
    state = arrays(model)
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    params = from_official(state)
    fns = Llama.functional(config)
    assert {n: v.shape for n, v in params.items()} == {n: s.shape for n, s in fns.shapes.items()}
    return model, fns, params


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case):
    model, fns, params = make(case)
    ids = np.random.default_rng(2).integers(0, 101, (2, 70)).astype(np.int32)
    with torch.no_grad():
        want = model(torch.from_numpy(ids).long()).logits.numpy()
    positions = np.broadcast_to(np.arange(70, dtype=np.int32), ids.shape)
    text = TextBatch(input_ids=ids, segment_ids=np.ones_like(ids), positions=positions)
    got = jax.jit(fns.pure(Llama.__call__))(params, text)
    assert got.dtype == jnp.float32
    assert np.abs(want).max() > 1.0
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


def test_left_padded_rows_equal_transformers():
    model, fns, params = make("smollm2")
    ids = np.random.default_rng(3).integers(1, 101, (2, 20)).astype(np.int32)
    mask = np.ones_like(ids)
    mask[0, :7] = 0
    positions = np.maximum(np.cumsum(mask, 1) - 1, 0).astype(np.int32)
    with torch.no_grad():
        want = model(
            torch.from_numpy(ids).long(),
            attention_mask=torch.from_numpy(mask),
            position_ids=torch.from_numpy(positions).long(),
        ).logits.numpy()
    text = TextBatch(input_ids=ids, segment_ids=mask, positions=positions)
    got = jax.jit(fns.pure(Llama.__call__))(params, text)
    np.testing.assert_allclose(np.asarray(got)[mask > 0], want[mask > 0], rtol=1e-5, atol=1e-4)


def test_parameters_of_another_model_are_refused_with_their_names():
    _, fns, params = make("llama1")
    ids = jnp.zeros((1, 2), jnp.int32)
    without = {name: leaf for name, leaf in params.items() if name != "llama.norm.scale"}
    with pytest.raises(UserError, match=r"1 missing \(llama.norm.scale\), 0 surplus"):
        fns.bind(without)
    with pytest.raises(UserError, match=r"0 missing \(\), 1 surplus \(llama.extra\)"):
        fns.bind({**params, "llama.extra": ids})
    wrong = {**params, "llama.norm.scale": jnp.ones(47)}
    with pytest.raises(UserError, match=r"llama.norm.scale has shape \(47,\).*needs \(48,\)"):
        fns.bind(wrong)


def test_bfloat16_computes_close_to_float32_and_keeps_float32_logits():
    _, fns, params = make("llama1")
    half = Llama.functional(fns.config, dtype=jnp.bfloat16)
    ids = np.random.default_rng(2).integers(0, 101, (1, 30)).astype(np.int32)
    positions = np.arange(30, dtype=np.int32)[None]
    text = TextBatch(input_ids=ids, segment_ids=np.ones_like(ids), positions=positions)
    want = np.asarray(jax.jit(fns.pure(Llama.__call__))(params, text))
    got = jax.jit(half.pure(Llama.__call__))(params, text)
    assert got.dtype == jnp.float32
    error = np.abs(np.asarray(got) - want)
    assert 1e-4 < error.max() < 0.1 * np.abs(want).max()


@pytest.mark.parametrize("size", LLAMA_SIZES)
def test_published_sizes_have_the_published_parameter_counts(size):
    published = {
        "llama-7b": 6_738_415_616,
        "llama-13b": 13_015_864_320,
        "smollm2-135m": 134_515_008,
    }
    shapes = Llama.functional(LLAMA_SIZES[size]).shapes
    assert sum(int(np.prod(s.shape, dtype=np.int64)) for s in shapes.values()) == published[size]


def test_config_is_strict():
    good = dataclasses.asdict(LLAMA_SIZES["llama-7b"])
    assert LlamaConfig.from_dict(good) == LLAMA_SIZES["llama-7b"]
    with pytest.raises(UserError, match="unknown keys rope_base;"):
        LlamaConfig.from_dict({**good, "rope_base": 1e4})
    with pytest.raises(UserError, match="missing keys rope_theta"):
        LlamaConfig.from_dict({k: v for k, v in good.items() if k != "rope_theta"})
    with pytest.raises(UserError, match="hidden_size is '4096'"):
        LlamaConfig.from_dict({**good, "hidden_size": "4096"})
    with pytest.raises(UserError, match="vocab_size is True"):
        LlamaConfig.from_dict({**good, "vocab_size": True})
    with pytest.raises(UserError, match="multiple of num_key_value_heads, which is 5"):
        LlamaConfig.from_dict({**good, "num_key_value_heads": 5})
    with pytest.raises(UserError, match="head_dim is 7"):
        LlamaConfig.from_dict({**good, "head_dim": 7})
    with pytest.raises(UserError, match="rope_scaling is 8.0"):
        LlamaConfig.from_dict({**good, "rope_scaling": 8.0})
    with pytest.raises(UserError, match="high_freq_factor is 1.0"):
        RopeScaling.from_dict({**LLAMA3, "high_freq_factor": 1.0})


@pytest.mark.parametrize("given", [False, True], ids=["made there", "known"])
def test_gradient_of_the_norm(given):
    """PyTorch's, also where the mean square comes from elsewhere and is held to be constant."""
    rng = np.random.default_rng(4)
    x, weights = (3 * rng.standard_normal((2, 5, 24), dtype=np.float32) for _ in range(2))
    theirs = transformers.models.llama.modeling_llama.LlamaRMSNorm(24, eps=1e-2)
    ours = RMSNorm(24, eps=1e-2)
    scale = rng.standard_normal(24, dtype=np.float32)
    theirs.weight.data, ours.scale[...] = torch.tensor(scale), jnp.asarray(scale)
    heard = torch.tensor(x, requires_grad=True)
    (theirs(heard) * torch.tensor(weights)).sum().backward()

    def loss(x):
        square = mean_square(jax.lax.stop_gradient(x)) if given else None
        return jnp.sum(ours(x, square=square) * weights)

    np.testing.assert_allclose(jax.grad(loss)(x), heard.grad.numpy(), atol=1e-5)
