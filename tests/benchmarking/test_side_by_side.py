"""What the benchmarks compare is the same: losses, trained steps, ids; and what they count."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks import alternate, generate, joined, torch_reference, train_contenders, train_step
from benchmarks.batches import CUTOFF, MULTIPLE, SHORTEST
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.text import IGNORE


@pytest.fixture(scope="module")
def plan():
    """The tiny size without dropout, which draws differently in both libraries."""
    made = train_contenders.setup("tiny", pairs_per_batch=4, pairs_per_clip=2, batches=2)
    lora = dataclasses.replace(made.config.lora, dropout=0.0)
    return dataclasses.replace(made, config=dataclasses.replace(made.config, lora=lora))


@pytest.fixture(scope="module")
def work(plan):
    return train_contenders.draw_work(plan, seed=1)


def pairs_of(batches):
    """Every pair of some batches as (clip's first feature, ids), however it is laid out."""
    found = []
    for batch in batches:
        rows = zip(batch["input_ids"], batch["segment_ids"], batch["features"], strict=True)
        for ids, segments, features in rows:
            for segment in range(1, segments.max() + 1):
                found.append((float(features.flat[0]), *ids[segments == segment].tolist()))
    return sorted(found)


def test_all_layouts_hold_the_same_pairs(work):
    assert pairs_of(work.random) == pairs_of(work.sorted) == pairs_of(work.grouped)
    lengths = [len(pair) - 1 for pair in pairs_of(work.random)]
    assert len(lengths) == work.pairs == 8 and sum(lengths) == work.text_tokens
    assert min(lengths) >= SHORTEST and max(lengths) <= CUTOFF


def test_rows_are_the_official_collators(work):
    for batch in work.random:
        assert batch["input_ids"].shape[1] % MULTIPLE == 0
        real = batch["segment_ids"] > 0
        assert (np.diff(real.astype(int), axis=1) >= 0).all()  # pads stand on the left
        np.testing.assert_array_equal(batch["labels"] != IGNORE, real)
        assert (batch["positions"] == np.arange(batch["positions"].shape[1])).all()


def test_grouped_rows_restart_behind_the_audio(work, plan):
    audio = plan.config.audio_tokens
    for batch in work.grouped:
        positions, segments = batch["positions"][:, audio:], batch["segment_ids"]
        for row in range(len(segments)):
            for segment in (1, 2):
                mine = segments[row] == segment
                np.testing.assert_array_equal(positions[row][mine], audio + np.arange(mine.sum()))
                assert batch["labels"][row][mine][0] == IGNORE


@pytest.fixture(scope="module")
def params(plan):
    return train_contenders.random_params(plan, seed=0)


@pytest.fixture(scope="module")
def ours(plan, params):
    return train_contenders.Ours(plan, params)


def test_both_train_alike(plan, params, ours, work):
    """Losses before, and after two AdamW steps, in float32 (PyTorch is the truth, in two ways)."""
    theirs = [train_step.make_torch(plan, params, onednn=onednn) for onednn in (False, True)]
    checked = [
        train_contenders.check_losses({"jax": ours, "torch": model}, work, tolerance=1e-5)
        for model in theirs
    ]
    for batches in (work.random, work.sorted):
        mine = ours.run(batches)
        for model in theirs:
            assert mine == pytest.approx(model.run(batches), abs=1e-4)
    mine = ours.loss(work.random[0])
    for model, before in zip(theirs, checked, strict=True):
        after = model.loss(work.random[0])
        assert abs(after - before["random"]["torch"]) > 1e-3
        assert mine == pytest.approx(after, abs=1e-4)


def test_other_weights_are_noticed(plan, ours, work):
    other = train_step.make_torch(plan, train_contenders.random_params(plan, seed=1), onednn=False)
    with pytest.raises(UserError, match="losses differ on the random batch"):
        train_contenders.check_losses({"jax": ours, "torch": other}, work, tolerance=1e-4)


def test_onednn_linear_is_a_linear_layer():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(5, 3), torch.randn(2, 4, 5, requires_grad=True)
    wanted = layer(x)
    wanted.square().sum().backward()
    gradients = [x.grad.clone(), layer.weight.grad.clone(), layer.bias.grad.clone()]
    x.grad = layer.weight.grad = layer.bias.grad = None
    torch_reference.use_onednn(layer)
    found = layer(x)
    found.square().sum().backward()
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    for mine, truth in zip((x.grad, layer.weight.grad, layer.bias.grad), gradients, strict=True):
        torch.testing.assert_close(mine, truth, atol=1e-5, rtol=1e-5)


def test_both_write_the_same_ids():
    found = generate.measure(
        "random:tiny",
        names=joined.CONTENDERS,
        dtype="float32",
        batches=[2],
        prompt=9,
        new=70,
        rounds=1,
    )
    shares = joined.without_ids(found)
    assert shares["equal_ids"] == {"2": 1.0} and "ids" not in shares
    # int8 is another model: its rows begin alike and soon go their own way
    assert 0 < shares["equal_ids_int8"]["2"] < 1
    assert tuple(row["contender"] for row in found["rows"]) == joined.CONTENDERS


def test_an_int8_base_has_nearly_the_same_loss(plan, work):
    """Its kernels are those of the whole base, rounded; other weights would be off by more."""
    params = train_contenders.random_params(plan, seed=0)
    rounded = train_contenders.random_params(plan, seed=0, int8_base=True)
    path = next(path for path in params if path.endswith("up_proj.kernel"))
    whole, kernel = np.asarray(params[path]), np.asarray(rounded[path])
    step = np.asarray(rounded[path + "_scale"])[:, None]
    np.testing.assert_allclose(step[:, 0], np.abs(whole).max(1) / 127.5, rtol=1e-6)
    assert (np.abs(kernel * step - whole) <= step * 0.5001).all()
    models = {
        "jax": train_contenders.Ours(plan, params),
        "jax int8": train_contenders.Ours(plan, rounded, int8_base=True),
    }
    both = {kind: {"grouped"} for kind in models}
    found = train_contenders.check_losses(models, work, tolerance=1e-4, layouts=both)
    assert found["grouped"]["jax int8"] != found["grouped"]["jax"]


def test_ratios_are_against_the_fastest_of_the_others():
    seconds = {"slow": 4.0, "fast": 2.0, "ours": 1.0}
    timings = {n: alternate.Timing(seconds=(s,), cpu_seconds=(s,)) for n, s in seconds.items()}
    found = alternate.beside_fastest(timings, names=["slow", "fast", "not timed"])
    assert found == {"slow": 0.5, "fast": 1.0, "ours": 2.0}


def test_everybody_takes_a_turn_in_every_round():
    calls = []
    contenders = [
        alternate.Contender(name=name, run=lambda name=name: calls.append(name)) for name in "ab"
    ]
    timings = alternate.alternate(contenders, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {len(timing.seconds) for timing in timings.values()} == {3}


def test_the_median_is_of_the_rounds():
    timing = alternate.Timing(seconds=(3.0, 1.0, 9.0), cpu_seconds=(1.0, 1.0, 4.0))
    assert (timing.median, timing.cpu_median) == (3.0, 1.0)


def test_flops_are_those_of_real_tokens(plan, work):
    """By hand: 4 per token and scalar of a frozen matrix, 6 of a trained one, 12 of attention."""
    config = plan.config
    llama, clips = config.llama, sum(len(batch["input_ids"]) for batch in work.grouped)
    heads = llama.num_attention_heads * llama.head_dim
    narrow = llama.num_key_value_heads * llama.head_dim
    layer = llama.hidden_size * (2 * heads + 2 * narrow + 3 * llama.intermediate_size)
    low_rank = config.lora.rank * (2 * llama.hidden_size + heads + narrow)
    context = config.audio_tokens + work.text_tokens / work.pairs
    audio = clips * config.audio_tokens
    per_token = 4 * layer + 6 * low_rank + 12 * context * heads
    language = llama.num_hidden_layers * per_token * (work.text_tokens + audio)
    head = 4 * llama.vocab_size * llama.hidden_size * (work.text_tokens - work.pairs)
    projection = 6 * config.tltr.d_model * llama.hidden_size * audio
    width, seen = config.tltr.d_model, config.audio_tokens + config.audio_layers
    tltr = audio * config.audio_layers * (6 * 2 * 12 * width**2 + 12 * seen * width)
    found = train_contenders.model_flops(plan, work)
    assert found == pytest.approx(language + head + projection + tltr, rel=1e-9)
