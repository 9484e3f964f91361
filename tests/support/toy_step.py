"""A least-squares model with dropout behind the one train step: what guards need of a model."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.training.logs import RunLog
from ltu_jax.training.loop import Hooks, Outcome, Schedule, run_loop
from ltu_jax.training.metrics import StepWork
from ltu_jax.training.optimizer import make_optimizer
from ltu_jax.training.resilience.guards import GuardConfig, looking_back
from ltu_jax.training.state import TrainState, create_state, state_shardings
from ltu_jax.training.step import make_train_step
from tests.support.golden_model import guard_config, optimizer_config

ROWS, WIDTH, OUT = 8, 16, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    """A compiled step, where it starts and its devices; nothing is frozen."""

    state: TrainState
    step: Any
    mesh: Any


def loss_fn(trainable, frozen, batch, key):
    """Mean squared error; some features are dropped by `key`."""
    heard = batch["features"] * jax.random.bernoulli(key, 0.9, batch["features"].shape)
    found = heard @ trainable["audio_proj.kernel"] + trainable["audio_proj.bias"]
    loss = jnp.square(found - batch["targets"]).mean()
    return loss, {"size": jnp.abs(found).mean()}


def make_toy(*, data: int = 1, fsdp: int = 1, guards: GuardConfig | None = None) -> Toy:
    """The step on data x fsdp devices; with `guards` it also skips spikes."""
    mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=1), jax.devices()[: data * fsdp])
    rng = np.random.default_rng(0)
    params = {
        "audio_proj.kernel": rng.normal(size=(WIDTH, OUT)).astype(np.float32),
        "audio_proj.bias": np.zeros(OUT, np.float32),
    }
    config = optimizer_config(learning_rate=1e-2, warmup_steps=1, weight_decay=0.1)
    tx = make_optimizer(config, paths=params, steps=100)
    if guards is not None:
        tx = looking_back(tx, window=guards.spike_window)
    state = create_state(params, tx, mesh=mesh)
    step = make_train_step(
        loss_fn,
        tx,
        mesh=mesh,
        shardings=(state_shardings(state, mesh=mesh), {}),
        accumulation=1,
        spike_sigma=guards.spike_sigma if guards is not None else 0.0,
    )
    return Toy(state=state, step=step, mesh=mesh)


def batch_of(*, seed: int = 0, spoil: float | None = None) -> dict[str, np.ndarray]:
    """A batch drawn by `seed`; `spoil` is put into one place of its second row."""
    rng = np.random.default_rng([1, seed])
    features = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    if spoil is not None:
        features[1, 0] = spoil
    return {"features": features, "targets": rng.normal(size=(ROWS, OUT)).astype(np.float32)}


class Killed(Exception):
    """The end of a run at once."""


def copied(state: TrainState, **changes: Any) -> TrainState:
    """A state whose buffers may be given away."""
    return dataclasses.replace(jax.tree.map(lambda leaf: leaf.copy(), state), **changes)


def batches(
    first: int, *, steps: int, bad: set[int], killed: int | None
) -> Iterator[dict[str, np.ndarray]]:
    """The batch of each step by its number, some with a NaN."""
    for number in range(first, steps):
        if number == killed:
            raise Killed
        yield batch_of(seed=number, spoil=np.nan if number in bad else None)


def train(
    toy: Toy,
    run_dir: Path,
    *,
    steps: int,
    bad: set[int] = frozenset(),
    killed: int | None = None,
    start: TrainState | None = None,
    log_every: int = 1,
    through: Callable[[Iterator], Iterator] = iter,
    clock: Any = None,
    hooks: dict[str, Callable] | None = None,
    **guards: Any,
) -> tuple[Outcome, dict[int, TrainState]]:
    """The loop over `batches`; returns how it went and what it saved, every second step.

    `through` may wrap the batches and `hooks` replaces some; `guards` are fields of the config.
    """
    saved = {}
    state = copied(toy.state if start is None else start)

    def save(state: TrainState) -> Path:
        saved[int(state.step)] = copied(state)
        return run_dir / str(int(state.step))

    called = {
        "save": save,
        "validate": None,
        "samples": None,
        "work": lambda batch: StepWork(clips=3, pairs=5, audio_tokens=9, text_tokens=9, targets=9),
        "flops": lambda work: 1e9,
        "rate": float,
        "rows": lambda step: [f"clip-{step}a pairs 0", f"clip-{step}b pairs 1 2"],
    }
    log = RunLog(run_dir, tensorboard=False)
    try:
        outcome = run_loop(
            state,
            step_fn=toy.step,
            frozen={},
            batches=through(batches(int(state.step), steps=steps, bad=bad, killed=killed)),
            mesh=toy.mesh,
            key=jax.random.key(0),
            schedule=Schedule(
                steps=steps, log_every=log_every, save_every=2, validate_every=0, samples_every=0
            ),
            hooks=Hooks(**{**called, **(hooks or {})}),
            guards=guard_config(**guards),
            run_dir=run_dir,
            log=log,
            peak_flops=1e12,
            title="stage3",
            clock=clock,
        )
    finally:
        log.close()
    return outcome, saved
