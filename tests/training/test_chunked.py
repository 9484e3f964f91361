"""The loss in chunks is the loss: value, hits, gradients, and how much less memory it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import losses
from ltu_jax.training.losses import chunked_sums
from ltu_jax.training.state import split_trainable
from tests.support.golden_model import STAGE3
from tests.support.targets import dense_targets

EVERYTHING = ((r".+", True),)
TIED, APART = "llama.embed_tokens.embedding", "llama.lm_head.kernel"


def unembed(params, states):
    """Head of a model whose table is tied, or not."""
    head = params[TIED].T if APART not in params else params[APART]
    return jnp.einsum("...E,EV->...V", states, head, preferred_element_type=jnp.float32)


def case(*, batch=3, places=13, width=16, vocab=37, seed=0):
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((batch, places, width), dtype=np.float32)
    targets = rng.integers(0, vocab, (batch, places)).astype(np.int32)
    targets[0, 5:], targets[1] = IGNORE, IGNORE
    table = rng.standard_normal((vocab, width), dtype=np.float32)
    return states, targets, table


def whole(states, head, rest, targets):
    return losses.summed_cross_entropy(unembed({**head, **rest}, states), targets)


def in_chunks(chunk):
    def total(states, head, rest, targets):
        return chunked_sums(
            states,
            targets,
            unembed=unembed,
            trainable=head,
            frozen=rest,
            sums=losses.summed_cross_entropy,
            chunk=chunk,
        )

    return total


def close(found, expected):
    scale = max(np.abs(np.asarray(expected)).max(), 1e-30)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("chunk", [1, 4, 13])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_value_hits_and_gradients(chunk, tied, trained):
    states, targets, table = case()
    params = {TIED: jnp.asarray(table)} if tied else {APART: jnp.asarray(table.T)}
    head, rest = (params, {}) if trained else ({}, params)

    def run(total):
        slopes = jax.value_and_grad(lambda *a: total(*a, rest, targets), (0, 1), has_aux=True)
        return jax.jit(slopes)(states, head)

    (loss, hits), (of_states, of_head) = run(in_chunks(chunk))
    (loss_0, hits_0), (of_states_0, of_head_0) = run(whole)
    np.testing.assert_allclose(loss, loss_0, rtol=1e-6)
    assert hits == hits_0
    close(of_states, of_states_0)
    assert not np.asarray(of_states)[1].any()  # a row without targets
    assert of_head.keys() == head.keys()
    for name in head:
        close(of_head[name], of_head_0[name])
    # Without a gradient the same function only adds up.
    np.testing.assert_allclose(in_chunks(chunk)(states, head, rest, targets)[0], loss_0, rtol=1e-6)


def test_the_gradient_is_scaled_by_what_follows():
    states, targets, table = case()

    def loss(total):
        return lambda states: 3.0 * total(states, {}, {TIED: table}, targets)[0] ** 2

    close(jax.grad(loss(in_chunks(4)))(states), jax.grad(loss(whole))(states))


@pytest.mark.parametrize("rules", [STAGE3, EVERYTHING])
def test_training_has_the_same_loss_and_gradients(tiny, rules):
    """Of the adapter alone, and of every parameter, on the golden batch."""
    trainable, frozen = split_trainable(tiny.params, rules)
    batch = dense_targets(tiny.batch)

    def run(chunk):
        loss_fn = losses.language_loss(
            tiny.fns,
            features=lambda frozen, batch: batch["features"],
            chunk=chunk,
        )
        slopes = jax.value_and_grad(loss_fn, has_aux=True)
        return jax.jit(slopes)(trainable, frozen, batch, None)

    (loss, metrics), grads = run(16)
    (loss_0, metrics_0), grads_0 = run(0)
    np.testing.assert_allclose(loss, loss_0, rtol=1e-6)
    np.testing.assert_allclose(loss, tiny.info["loss_stage3"], atol=1e-5)
    assert metrics == metrics_0 and grads.keys() == grads_0.keys()
    for path, expected in grads_0.items():
        off = np.linalg.norm(np.asarray(grads[path]) - np.asarray(expected))
        assert off <= 1e-6 * np.linalg.norm(expected), path


def test_the_logits_of_all_targets_are_never_in_memory():
    """Compiled for 4 rows x 512 targets x 8,192 words: temporaries, and no more products."""
    batch, places, width, vocab = 4, 512, 64, 8192
    states = jax.ShapeDtypeStruct((batch, places, width), jnp.float32)
    table = jax.ShapeDtypeStruct((vocab, width), jnp.float32)
    targets = jax.ShapeDtypeStruct((batch, places), jnp.int32)

    def compiled(total):
        def loss(states, table, targets):
            return total(states, {}, {TIED: table}, targets)[0]

        return jax.jit(jax.grad(loss)).lower(states, table, targets).compile()

    logits = 4 * batch * places * vocab
    plain = compiled(whole).memory_analysis().temp_size_in_bytes
    small = compiled(in_chunks(32)).memory_analysis().temp_size_in_bytes
    assert plain > logits
    assert small < logits / 5
