"""A least-squares model with dropout behind the one train step: what guards need of a model."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.training import trainer
from ltu_jax.training.flops import StepWork
from ltu_jax.training.initialize import Prepared
from ltu_jax.training.logs import RunLog
from ltu_jax.training.optimizer import make_optimizer
from ltu_jax.training.recorder import Schedule, StepRecorder
from ltu_jax.training.resilience.goodput import Clock, Meter
from ltu_jax.training.resilience.guards import GuardConfig, Skips, looking_back
from ltu_jax.training.resilience.watchdog import Watchdog
from ltu_jax.training.state import TrainState, create_state, skipped_steps, state_shardings
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


@dataclasses.dataclass
class Hooks:
    """What the loop calls besides the step, for tests to replace."""

    save: Callable[[TrainState], Path]
    validate: Callable[[TrainState], dict] | None = None
    validate_every: int = 0
    compare: Callable[[TrainState], None] = lambda state: None

    def poll(self) -> None:
        """Nothing is in flight."""

    finish = poll


class Evaluator:
    """A function as an evaluator."""

    def __init__(self, function: Callable[[TrainState], dict], *, every: int) -> None:
        self._function, self.every = function, every

    def __call__(self, state: TrainState) -> dict:
        return self._function(state)


def run_loop(
    prepared: Prepared,
    batches: Iterator,
    run_dir: Path,
    *,
    schedule: Schedule,
    hooks: Hooks,
    log: RunLog,
    guards: GuardConfig,
    work: StepWork,
    clock: Clock | None = None,
    learning_rate: Callable[[int], float] = float,
    title: str = "stage3",
) -> trainer.Outcome:
    """The product's loop over `batches`, each of which counts as `work`."""
    meter = Meter(peak_flops=1e12, work=lambda batch: work, flops=lambda work: 1e9)
    recorder = StepRecorder(
        schedule,
        first_step=int(prepared.state.step),
        title=title,
        log=log,
        clock=clock or Clock(),
        meter=meter,
        skips=Skips(
            guards,
            total=skipped_steps(prepared.state),
            rows=lambda step: [f"clip-{step}a pairs 0", f"clip-{step}b pairs 1 2"],
            run_dir=run_dir,
            mesh=prepared.mesh,
            title=title,
        ),
        learning_rate=learning_rate,
    )
    validate = hooks.validate
    return trainer.train(
        prepared,
        batches=batches,
        schedule=schedule,
        recorder=recorder,
        saver=hooks,
        evaluators=[Evaluator(validate, every=hooks.validate_every)] if validate else [],
        compare=hooks.compare,
        watchdog=Watchdog(
            recorder.clock,
            config=guards,
            median=meter.median,
            report=run_dir / "stall-0.txt",
            title=title,
        ),
    )


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
    clock: Clock | None = None,
    hooks: dict[str, Callable] | None = None,
    **guards: Any,
) -> tuple[trainer.Outcome, dict[int, TrainState]]:
    """The loop over `batches`; returns how it went and what it saved, every second step.

    `through` may wrap the batches and `hooks` replaces some; `guards` are fields of the config.
    """
    saved = {}
    state = copied(toy.state if start is None else start)

    def save(state: TrainState) -> Path:
        saved[int(state.step)] = copied(state)
        return run_dir / str(int(state.step))

    config, log = guard_config(**guards), RunLog(run_dir, tensorboard=False)
    try:
        outcome = run_loop(
            Prepared(
                state=state,
                frozen={},
                frozen_adapter={},
                step_fn=toy.step,
                mesh=toy.mesh,
                key=jax.random.key(0),
            ),
            through(batches(int(state.step), steps=steps, bad=bad, killed=killed)),
            run_dir,
            schedule=Schedule(
                steps=steps, log_every=log_every, save_every=2, compare_every=config.compare_every
            ),
            hooks=Hooks(**{"save": save, **(hooks or {})}),
            log=log,
            guards=config,
            work=StepWork(clips=3, pairs=5, audio_tokens=9, text_tokens=9, targets=9),
            clock=clock,
        )
    finally:
        log.close()
    return outcome, saved
