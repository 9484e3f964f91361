"""What the backward pass keeps and what it repeats: same gradients, counted products and bytes."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ltu_as_model import CONFIG, FULL, features, noisy, plain, tokens

from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.text_batch import TextBatch

# Sizes that tell every product by its shape.
SIZES = dict(hidden_size=40, head_dim=6, intermediate_size=72)
MODEL = dataclasses.replace(CONFIG, llama=dataclasses.replace(CONFIG.llama, **SIZES))
LARGE = {(40, 24), (24, 40), (40, 12), (12, 40), (40, 72), (72, 40), (24, 24), (24, 96), (96, 24)}


def loss_of(fns, params, **call):
    """Loss of what stage 3 trains, with dropout, for `jax.grad`."""
    trained = {n: v for n, v in params.items() if not n.startswith("llama.") or ".lora_" in n}

    def loss(trained):
        return jnp.mean(jnp.square(fns.bind({**params, **trained}).hidden(**call)))

    return loss, trained


def small_loss(remat):
    fns = LTUAS.functional(MODEL, remat=remat)
    ids = tokens(2, 7)
    call = dict(text=plain(ids), features=features(2), dropout_key=jax.random.key(0))
    # Calmer than random: what is compared at 1e-6 must not be a difference of large numbers.
    params = {n: v if n.endswith("scale") else 0.3 * v for n, v in noisy(fns.shapes).items()}
    return loss_of(fns, params, **call)


@pytest.fixture(scope="module")
def truth():
    loss, trained = small_loss("none")
    return jax.jit(jax.value_and_grad(loss))(trained)


@pytest.mark.parametrize("remat", ["full", "lora", "lora_offload"])
def test_gradients_are_those_of_keeping_everything(truth, remat):
    loss, trained = small_loss(remat)
    value, grads = jax.jit(jax.value_and_grad(loss))(trained)
    np.testing.assert_allclose(value, truth[0], rtol=1e-6)
    # Other fusions round otherwise: 1e-6 of the whole gradient, 1e-5 of any parameter's.
    off = {n: np.linalg.norm(np.asarray(grads[n]) - np.asarray(g)) for n, g in truth[1].items()}
    size = {n: np.linalg.norm(g) for n, g in truth[1].items()}
    assert np.linalg.norm(list(off.values())) <= 1e-6 * np.linalg.norm(list(size.values()))
    assert all(off[name] <= 1e-5 * size[name] for name in size)


def equations(jaxpr):
    """Every equation of a jaxpr, inner ones included, with the scan it is in (None outside)."""

    def walk(jaxpr, scan):
        for equation in jaxpr.eqns:
            yield equation, scan
            inside = equation if equation.primitive.name == "scan" else scan
            for value in equation.params.values():
                for part in value if isinstance(value, tuple | list) else [value]:
                    part = getattr(part, "jaxpr", part)
                    if hasattr(part, "eqns"):
                        yield from walk(part, inside)

    return walk(jaxpr.jaxpr, None)


def products(remat):
    """How often each large matrix is multiplied with, by (its shape, within which scan)."""
    loss, trained = small_loss(remat)
    found = Counter()
    for equation, scan in equations(jax.make_jaxpr(jax.grad(loss))(trained)):
        shapes = [variable.aval.shape for variable in equation.invars]
        if equation.primitive.name == "dot_general" and shapes[1] in LARGE:
            way = None if scan is None else "backward" if scan.params["reverse"] else "forward"
            found[shapes[1], way] += 1
    return found


def test_the_lora_policy_repeats_no_large_product():
    kept, lora, full = products("none"), products("lora"), products("full")
    assert lora == kept
    assert sum(kept[shape, "backward"] for shape in LARGE) == 7  # one per frozen matrix of a layer
    # All of the forward pass but down_proj, whose output nobody needs; and that of both blocks.
    assert sum(full.values()) == sum(kept.values()) + 6 + 2 * 5


@pytest.mark.parametrize("remat", ["none", "everything_saveable", "lora", "full"])
def test_no_policy_copies_frozen_kernels_for_the_backward_pass(remat):
    loss, trained = small_loss(remat)
    kept = {
        variable.aval.shape[1:]
        for equation, scan in equations(jax.make_jaxpr(jax.grad(loss))(trained))
        if equation.primitive.name == "scan" and scan is None
        for variable in equation.outvars[equation.params["num_carry"] :]
    }
    assert kept and not kept & LARGE


@pytest.mark.parametrize("remat", ["full", "lora"])
def test_the_compiler_may_not_merge_what_is_repeated_outside_a_loop(remat):
    loss, trained = small_loss(remat)
    repeated = [
        (equation.params["prevent_cse"], scan is None)
        for equation, scan in equations(jax.make_jaxpr(jax.grad(loss))(trained))
        if equation.primitive.name == "remat2"
    ]
    assert set(repeated) == {(True, True), (False, False)}  # the TLTR's blocks, LLaMA's layers


def saved_bytes(config, remat, *, rows, text):
    """Bytes that the forward pass over the language model's layers hands to the backward one."""
    fns = LTUAS.functional(config, remat=remat, dtype=jnp.bfloat16)

    def shape(*sizes, dtype):
        return jax.ShapeDtypeStruct(sizes, dtype)

    params = {
        name: shape(*leaf.shape, dtype=jnp.float32 if ".lora_" in name else jnp.bfloat16)
        for name, leaf in fns.shapes.items()
    }
    length = config.audio_tokens + text
    sound = (rows, config.audio_layers, config.audio_tokens, config.tltr.d_model)
    batch = TextBatch(
        input_ids=shape(rows, text, dtype=jnp.int32),
        segment_ids=shape(rows, text, dtype=jnp.int32),
        positions=shape(rows, length, dtype=jnp.int32),
    )
    call = dict(text=batch, features=shape(*sound, dtype=jnp.bfloat16))

    def slopes(params, call):
        loss, trained = loss_of(fns, params, **call)
        return jax.grad(loss)(trained)

    for equation, scan in equations(jax.make_jaxpr(slopes)(params, call)):
        if equation.primitive.name == "scan" and scan is None:  # the forward pass is the first
            out = equation.outvars[equation.params["num_carry"] :]
            return sum(v.aval.size * v.aval.dtype.itemsize for v in out)


def test_bytes_of_the_lora_policy_at_7b():
    """Closed form: q, k, v, gate and up in bfloat16, low-rank states of q and v; the residual
    stream before and after attention and its mean square in float32: 3.25 MB a token.
    """
    llama, rank = FULL.llama, FULL.lora.rank
    wide, inner = llama.hidden_size, llama.intermediate_size
    one = 2 * (3 * wide + 2 * inner + 2 * rank) + 4 * (2 * wide + 1)
    total = saved_bytes(FULL, "lora", rows=2, text=103)
    assert total == 2 * 128 * 32 * one
    assert total / (2 * 128) == pytest.approx(3.245e6, rel=1e-3)
    # Full recomputation keeps the inputs alone.
    assert saved_bytes(FULL, "full", rows=2, text=103) == 2 * 128 * 32 * 4 * (wide + 1)
