"""Logit processors against the official ones (golden `sampling`) and against closed forms."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltu_jax.generation import sampling

pytestmark = pytest.mark.optimised

CASES = (
    "official_v1000",
    "official_mid_v1000",
    "official_v320",
    "flat_v1000",
    "temp1_v1000",
    "peaky_v320",
    "ties_v320",
    "dup_ids_v320",
    "only_rp_v320",
    "only_topp_v320",
    "only_topk_v320",
    "default_gc_topk50",
)

process = jax.jit(
    lambda logits, seen, settings: sampling.process(logits, seen=seen, settings=settings)
)


@pytest.fixture(scope="module")
def cases(golden):
    described = json.loads((golden / "sampling" / "config.json").read_text())["cases"]
    return described, np.load(golden / "sampling" / "sampling.npz")


def run(logits, ids, config):
    settings = sampling.row_settings(config, rows=logits.shape[0])
    seen = sampling.seen_tokens(
        jnp.asarray(ids), attention_mask=np.ones(ids.shape), vocab=logits.shape[-1]
    )
    return np.asarray(process(jnp.asarray(logits), seen, settings))


def test_every_golden_case_is_tested(cases):
    assert set(cases[0]) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_processors_match_the_official_ones(cases, name):
    described, arrays = cases
    case = described[name]
    config = sampling.SamplingConfig(**case["config"], seed=0)
    got = run(arrays[f"{name}.logits"], arrays[f"{name}.input_ids"], config)
    last = len(case["official_order"]) - 1
    want = arrays[f"{name}.after_{last}_{case['official_order'][-1]}"]
    probabilities = np.asarray(jax.nn.softmax(got, axis=-1))
    assert np.isfinite(got).sum(axis=-1).tolist() == case["n_kept"]
    if name == "ties_v320":  # which of the tied tokens stays is left to an unstable sort
        np.testing.assert_allclose(
            np.sort(probabilities, axis=-1), np.sort(arrays[f"{name}.probs"], axis=-1), atol=1e-6
        )
        return
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(probabilities, arrays[f"{name}.probs"], atol=1e-6)


def test_rows_may_have_different_settings(cases):
    described, arrays = cases
    name = "flat_v1000"
    logits, ids = arrays[f"{name}.logits"], arrays[f"{name}.input_ids"]
    configs = [
        sampling.SamplingConfig(**described["only_topk_v320"]["config"], seed=1),
        sampling.SamplingConfig(**described[name]["config"], seed=2),
    ]
    settings = sampling.row_settings(configs, rows=2)
    seen = sampling.seen_tokens(jnp.asarray(ids), attention_mask=np.ones(ids.shape), vocab=1000)
    got = np.asarray(process(jnp.asarray(logits), seen, settings))
    assert np.isfinite(got[0]).sum() == 7
    assert np.isfinite(got[1]).sum() == described[name]["n_kept"][1]


def test_a_row_without_filters_is_the_same_in_company_of_rows_with_them():
    """They are sorted only where a row filters; -inf, ties and all else stay as they are."""
    logits = np.random.default_rng(0).normal(size=(3, 200)).round(1).astype(np.float32)
    logits[:, 50:60] = -np.inf
    plain = sampling.SamplingConfig(temperature=0.7, repetition_penalty=1.3)
    ids = np.arange(12).reshape(3, 4)
    alone = run(logits, ids, plain)
    beside = run(logits, ids, [plain, sampling.SamplingConfig(top_k=5), plain])
    np.testing.assert_array_equal(alone[[0, 2]], beside[[0, 2]])
    assert np.isfinite(beside[1]).sum() < 20 < np.isfinite(alone[1]).sum()


def test_masked_ids_are_not_penalised():
    seen = sampling.seen_tokens(
        jnp.asarray([[0, 0, 5, 7]]), attention_mask=np.array([[0, 0, 1, 1]]), vocab=9
    )
    assert np.flatnonzero(np.asarray(seen)[0]).tolist() == [5, 7]
    seen = sampling.seen_tokens(
        jnp.asarray([[0, 0, 5, 7]]), attention_mask=np.array([[0, 1, 1, 1]]), vocab=9
    )
    assert np.flatnonzero(np.asarray(seen)[0]).tolist() == [0, 5, 7]


def test_draws_follow_the_probabilities_and_the_seed():
    scores = jnp.log(jnp.asarray([0.5, 0.3, 0.2, 0.0]))
    rows = 4000
    configs = [
        sampling.SamplingConfig(
            temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=seed
        )
        for seed in range(rows)
    ]
    settings = sampling.row_settings(configs, rows=rows)
    batch = jnp.broadcast_to(scores, (rows, 4))
    drawn = np.asarray(sampling.choose(batch, settings=settings, step=jnp.asarray(3)))
    share = np.bincount(drawn, minlength=4) / rows
    np.testing.assert_allclose(share, [0.5, 0.3, 0.2, 0.0], atol=0.03)
    # A row draws the same alone as in the batch, and something else at another step.
    alone = sampling.row_settings(configs[17], rows=1)
    again = sampling.choose(batch[:1], settings=alone, step=jnp.asarray(3))
    assert int(again[0]) == drawn[17]
    other = np.asarray(sampling.choose(batch, settings=settings, step=jnp.asarray(4)))
    assert (other != drawn).any()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("repetition_penalty", 0.0),
        ("seed", -1),
        ("pick", "best"),
    ],
)
def test_bad_settings_are_named(field, value):
    good = dict(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=0)
    with pytest.raises(ValueError, match=f"{field}={value!r}"):
        sampling.SamplingConfig(**{**good, field: value})


def test_a_number_that_no_float_holds_is_named():
    with pytest.raises(ValueError, match="temperature=1000"):
        sampling.SamplingConfig(temperature=10**400)


def test_number_of_configs_must_match_the_rows():
    config = sampling.SamplingConfig.official(seed=0)
    with pytest.raises(ValueError, match="2 sampling configs for 3 rows"):
        sampling.row_settings([config, config], rows=3)
