"""Steps with bad numbers: taken back to the bit, counted, kept for replay, and not for ever."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ltu_jax.core.distributed import AgreedError, host_batch_to_global
from ltu_jax.core.errors import UserError
from ltu_jax.training.logs import read_rows
from ltu_jax.training.resilience import bad_batches, guards
from ltu_jax.training.state import skipped_steps
from tests.support.golden_model import guard_config
from tests.support.toy_step import Killed, Toy, batch_of, copied, make_toy, train

BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


@pytest.fixture(scope="module")
def trainer() -> Toy:
    """Compiled once; every test starts from a copy of its state."""
    return make_toy()


@pytest.fixture(scope="module")
def watching() -> Toy:
    """The same, which also skips spikes."""
    return make_toy(guards=guard_config(spike_sigma=6.0, spike_window=4))


def step(trainer, state, batch):
    """State and metrics (floats) after one step."""
    placed = host_batch_to_global(batch, trainer.mesh)
    after, metrics = trainer.step(state, {}, placed, jax.random.key(0))
    return after, {name: float(value) for name, value in metrics.items()}


def bits(tree):
    """Every leaf as bytes, by its path."""
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


# --- the step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_a_step_that_is_not_finite_leaves_every_bit(trainer, value):
    state, _ = step(trainer, copied(trainer.state), batch_of())
    # A sign that adding nothing would lose.
    path = next(iter(state.trainable))
    state.trainable[path] = state.trainable[path].at[0].set(-0.0)
    before = bits(state)
    after, metrics = step(trainer, state, batch_of(spoil=value))
    assert metrics["skipped"] == 1.0
    assert not (np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"]))
    assert int(after.step) == 2 and skipped_steps(after) == 1
    found = bits(after)
    assert [name for name in before if before[name] != found[name]] == [".step"]


def test_a_finite_step_is_what_it_was_without_the_guard(trainer, monkeypatch):
    monkeypatch.setattr(guards, "take_back", lambda good, after, before: after)
    unguarded = make_toy()
    expected, truth = step(unguarded, copied(unguarded.state), batch_of())
    found, metrics = step(trainer, copied(trainer.state), batch_of())
    assert metrics == truth and metrics["skipped"] == 0.0
    assert bits(found) == bits(expected)


def test_what_follows_is_a_run_that_never_saw_the_bad_batch(trainer):
    """But for the step number, which data order and dropout follow."""
    good = [batch_of(seed=seed) for seed in range(4)]
    state, met = copied(trainer.state), []
    for batch in [*good[:2], batch_of(spoil=np.nan), *good[2:]]:
        state, metrics = step(trainer, state, batch)
        met.append(metrics)
    other, truth = copied(trainer.state), []
    for number, batch in zip([0, 1, 3, 4], good, strict=True):
        other = copied(other, step=jnp.full_like(other.step, number))
        other, metrics = step(trainer, other, batch)
        truth.append(metrics)
    assert [*met[:2], *met[3:]] == truth
    assert bits(state) == bits(other)
    assert truth[2]["loss"] != truth[0]["loss"]


def test_all_devices_of_a_mesh_take_the_step_back():
    spread = make_toy(data=2, fsdp=2)
    before = bits(spread.state)
    after, metrics = step(spread, copied(spread.state), batch_of(spoil=np.nan))
    assert metrics["skipped"] == 1.0
    found = bits(after)
    assert [name for name in before if before[name] != found[name]] == [".step"]
    for leaf in jax.tree.leaves(after.trainable):
        assert len(leaf.addressable_shards) == 4


# --- spikes ---------------------------------------------------------------------------------------


def test_spikes_are_what_numpy_finds():
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 0.2, (40, 2)).astype(np.float32)
    values[20, 0], values[30, 1] = 9.0, 12.0
    past = guards.looking_back(optax.identity(), window=8).init({})
    found, expected, kept = [], [], []
    for loss, norm in values:
        found.append(bool(guards.is_spike(past, loss=loss, norm=norm, sigma=6.0)))
        far = [
            value > np.mean(before) + 6 * np.std(before)
            for value, before in zip((loss, norm), np.array(kept[-8:]).T, strict=False)
        ]
        expected.append(len(kept) >= 8 and any(far))
        past = guards.remember(past, loss=loss, norm=norm, finite=np.True_)
        kept.append((loss, norm))
    assert found == expected and np.flatnonzero(found).tolist() == [20, 30]


def test_numbers_that_are_not_finite_are_not_looked_back_on():
    past = guards.looking_back(optax.identity(), window=2).init({})
    for loss in (1.0, np.nan, 2.0):
        finite = jnp.isfinite(loss)
        past = guards.remember(past, loss=loss, norm=loss, finite=finite)
    assert past.losses.tolist() == [1.0, 2.0] and int(past.seen) == 2


def test_a_spike_is_skipped_and_only_the_past_knows(watching):
    state = copied(watching.state)
    for seed in range(4):
        state, metrics = step(watching, state, batch_of(seed=seed))
        assert metrics["skipped"] == 0.0
    before = bits(state)
    after, metrics = step(watching, state, batch_of(spoil=1e4))
    assert metrics["skipped"] == 1.0 and np.isfinite(metrics["grad_norm"])
    found = bits(after)
    changed = {name for name in before if before[name] != found[name]}
    past = {".opt_state.losses", ".opt_state.norms", ".opt_state.seen"}
    assert changed == {".step"} | past
    assert skipped_steps(after) == 1
    # A lasting change of level is let in: with four steps to look back on and 6 sigma, as soon as
    # one of them is of the new level.
    after, metrics = step(watching, after, batch_of(spoil=1e4))
    assert metrics["skipped"] == 0.0


# --- the loop -------------------------------------------------------------------------------------


def test_skipped_steps_are_counted_logged_and_kept(trainer, tmp_path):
    outcome, _ = train(trainer, tmp_path, steps=6, bad={1, 3})
    assert (outcome.steps, outcome.skipped) == (6, 2)
    assert math.isfinite(outcome.first_loss) and math.isfinite(outcome.last_loss)
    # Strict JSON: no NaN in the log.
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    told = [row["skipped_step"] for row in rows if "skipped_step" in row]
    assert [(row["step"], row["reason"]) for row in told] == [(1, "not finite"), (3, "not finite")]
    assert told[0]["rows"] == ["clip-1a pairs 0", "clip-1b pairs 1 2"]
    trained = [row for row in rows if "learning_rate" in row]
    assert [row["skipped_steps"] for row in trained] == [0, 1, 1, 2, 2, 2]
    # The schedule follows the steps that the optimiser made.
    assert [row["learning_rate"] for row in trained] == [0, 0, 1, 1, 2, 3]
    kept, facts = bad_batches.read_batch(told[0]["file"])
    truth = batch_of(seed=1, spoil=np.nan)
    assert kept.keys() == truth.keys() and facts.step == 1 and math.isnan(facts.loss)
    for name, leaf in truth.items():
        np.testing.assert_array_equal(kept[name], leaf)
        assert kept[name].dtype == leaf.dtype
    assert bad_batches.not_finite(kept) == ["features: 1 entries in rows 1"]


def test_too_many_in_a_row_end_the_run_and_name_the_rows(trainer, tmp_path):
    with pytest.raises(AgreedError) as error:
        train(trainer, tmp_path, steps=9, bad={1, 2, 4, 5, 6, 7}, skips_in_a_row=3)
    message = str(error.value)
    for part in (
        "stage3: the steps 4 to 6 were skipped, guards.skips_in_a_row=3",
        "loss nan and gradient norm nan (not finite)",
        "step 4: clip-4a pairs 0, clip-4b pairs 1 2; step 5: clip-5a",
        f"--replay {tmp_path}/bad_batches/step-00000006.npz",
    ):
        assert part in message
    assert len(list((tmp_path / bad_batches.FOLDER).iterdir())) == 5


def test_only_the_newest_bad_batches_are_kept(trainer, tmp_path):
    train(trainer, tmp_path, steps=5, bad={0, 1, 3}, bad_batches=2)
    names = sorted(path.name for path in (tmp_path / bad_batches.FOLDER).iterdir())
    assert names == ["step-00000001.npz", "step-00000003.npz"]
    train(trainer, tmp_path / "none", steps=2, bad={1}, bad_batches=0)
    assert not (tmp_path / "none" / bad_batches.FOLDER).exists()


def test_a_run_whose_every_step_is_skipped_ends_with_the_reason(trainer, tmp_path):
    """Though fewer than guards.skips_in_a_row: there is no loss, and nothing to save."""
    saved = []

    def save(state):
        saved.append(int(state.step))
        return tmp_path

    with pytest.raises(AgreedError) as error:
        train(trainer, tmp_path, steps=3, bad={0, 1, 2}, hooks={"save": save})
    for part in ("the steps 0 to 2 were skipped", "not finite", "step 0: clip-0a", "--replay"):
        assert part in str(error.value)
    rows = read_rows(tmp_path / "log.jsonl")
    assert not [row for row in rows if "loss" in row] and saved == [2]
    rates = [row["learning_rate"] for row in rows if "learning_rate" in row]
    assert rates == [0.0, 0.0, 0.0]


def test_a_batch_that_cannot_be_kept_ends_the_run(trainer, tmp_path):
    (tmp_path / bad_batches.FOLDER).write_text("in the way")
    with pytest.raises(UserError, match="guards.bad_batches=0"):
        train(trainer, tmp_path, steps=2, bad={0})


def test_rows_of_the_log_do_not_know_of_an_interruption(trainer, tmp_path):
    """Each averages three steps, some of which came before the kill."""

    def logged(folder):
        names = ("loss", "learning_rate", "skipped_steps")
        rows = [row for row in read_rows(folder / "log.jsonl") if "loss" in row]
        return [{name: row[name] for name in ("step", *names)} for row in rows]

    whole, saved = train(trainer, tmp_path / "whole", steps=8, bad={2}, log_every=3)
    for killed in (3, 4, 5, 7):  # saved is every second step
        folder, at = tmp_path / str(killed), (killed - 1) // 2 * 2
        with pytest.raises(Killed):
            train(trainer, folder, steps=8, bad={2}, log_every=3, killed=killed)
        again, _ = train(trainer, folder, steps=8, bad={2}, log_every=3, start=saved[at])
        assert bits(again.state) == bits(whole.state)
        assert logged(folder) == logged(tmp_path / "whole")
