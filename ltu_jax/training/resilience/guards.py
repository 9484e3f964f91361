"""Take back steps with wrong numbers on the device, and count them.

A step whose loss or gradient norm is not finite, or (where asked for) far above those before it,
changes nothing but the step counter: parameters, moments and the optimiser's own count keep their
bits. The step counter goes on because the order of data and the draws of dropout are functions of
it; the learning rate and Adam's bias correction follow the optimiser's count. So a run that met a
bad batch at step k ends as one that never had this batch, its later batches and draws of dropout
being those of their own step numbers.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ltu_jax.core.axes import Array
from ltu_jax.core.distributed import AgreedError, host_batch_to_global, is_main, together
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.training.resilience import bad_batches


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """The limits at which a step is skipped or a run stops, and the interval of comparisons.

    Attributes:
        skips_in_a_row: so many skipped steps one after the other stop the run.
        spike_sigma: a step is skipped whose loss or gradient norm lies more than so many standard
            deviations above the mean of the last `spike_window` steps; 0 for never.
        spike_window: steps that are looked back on; nothing is a spike before there are so many.
        bad_batches: how many batches of skipped steps are kept in RUN/bad_batches, the newest.
        compare_every: steps between comparisons of the trained parameters over all devices, and of
            step and data order over all hosts; 0 for only at the start and before each save.
        stall_factor, stall_seconds: without a step for `stall_factor` times the median step, and
            for `stall_seconds`, the process ends itself; stall_seconds 0 for never.
        stall_busy_seconds: the same limit while it compiles, validates or saves.
    """

    skips_in_a_row: int
    spike_sigma: float
    spike_window: int
    bad_batches: int
    compare_every: int
    stall_factor: float
    stall_seconds: float
    stall_busy_seconds: float

    def __post_init__(self) -> None:
        for name, least in (
            ("skips_in_a_row", 1),
            ("spike_sigma", 0),
            ("spike_window", 2),
            ("bad_batches", 0),
            ("compare_every", 0),
            ("stall_factor", 1),
            ("stall_seconds", 0),
        ):
            if not getattr(self, name) >= least:
                raise UserError(f"guards.{name} is {getattr(self, name)!r}; use {least} or more")
        if not self.stall_busy_seconds >= self.stall_seconds:
            raise UserError(
                f"guards.stall_busy_seconds is {self.stall_busy_seconds!r}; use at least "
                f"guards.stall_seconds, which is {self.stall_seconds!r}"
            )


class Past(NamedTuple):
    """An optimiser's state with losses and gradient norms of the last steps, oldest overwritten."""

    inner: optax.OptState
    losses: Array
    norms: Array
    seen: Array


def looking_back(tx: optax.GradientTransformation, *, window: int) -> optax.GradientTransformation:
    """Give the state of `tx` room for the last `window` steps, which the step itself fills."""

    def init(params: optax.Params) -> Past:
        empty = jnp.zeros((window,), jnp.float32)
        return Past(inner=tx.init(params), losses=empty, norms=empty, seen=jnp.zeros((), jnp.int32))

    def update(updates: optax.Updates, state: Past, params: optax.Params | None = None) -> Any:
        updates, inner = tx.update(updates, state.inner, params)
        return updates, state._replace(inner=inner)

    return optax.GradientTransformation(init, update)


def is_spike(past: Past, *, loss: Array, norm: Array, sigma: float) -> Array:
    """Return whether loss or norm lies `sigma` standard deviations above those of `past`."""

    def far(value: Array, before: Array) -> Array:
        return value > before.mean() + sigma * before.std()

    full = past.seen >= past.losses.shape[0]
    return full & (far(loss, past.losses) | far(norm, past.norms))


def remember(past: Past, *, loss: Array, norm: Array, finite: Array) -> Past:
    """Return `past` with one more step, also a spike: a lasting change of level is let in."""
    place = past.seen % past.losses.shape[0]

    def put(before: Array, value: Array) -> Array:
        return before.at[place].set(jnp.where(finite, value, before[place]))

    return past._replace(
        losses=put(past.losses, loss),
        norms=put(past.norms, norm),
        seen=past.seen + finite.astype(jnp.int32),
    )


def take_back(good: Array, after: Any, before: Any) -> Any:
    """Return `after` where `good`, else the bits of `before`, as one select."""
    return jax.tree.map(lambda new, old: jnp.where(good, new, old), after, before)


class Skips:
    """Keeps account of skipped steps; all processes make the same calls and get the same answers.

    `total` counts those of the whole run, also before a resume.
    """

    def __init__(
        self,
        config: GuardConfig,
        *,
        total: int,
        rows: Callable[[int], Sequence[str]],
        run_dir: Path,
        mesh: Mesh,
        title: str,
    ) -> None:
        self.total = total
        self._config, self._rows, self._run_dir = config, rows, run_dir
        self._mesh, self._title = mesh, title
        self._in_a_row: list[bad_batches.BadStep] = []

    def good(self) -> None:
        """Note a step that was not skipped."""
        self._in_a_row.clear()

    def add(
        self, step: int, values: Mapping[str, float], host: Mapping[str, np.ndarray]
    ) -> tuple[bad_batches.BadStep, Path | None]:
        """Note a skipped step, and keep its batch.

        Args:
            step: which.
            values: its metrics.
            host: this process's part of its batch.

        Returns:
            What is known of it and its file, None where none is kept.

        Raises:
            AgreedError: it was one too many in a row, or its batch cannot be written.
        """
        loss, norm = values["loss"], values["grad_norm"]
        bad = bad_batches.BadStep(
            stage=self._title,
            step=step,
            reason="spike" if np.isfinite(loss) and np.isfinite(norm) else "not finite",
            loss=loss,
            grad_norm=norm,
            rows=tuple(self._rows(step)),
        )
        self.total += 1
        self._in_a_row.append(bad)
        path = self._keep(bad, host) if self._config.bad_batches else None
        if len(self._in_a_row) == self._config.skips_in_a_row:
            why = f"guards.skips_in_a_row={len(self._in_a_row)} one after the other"
            raise AgreedError(
                self._message(path, why=why)
            )  # the metrics are the same on every process
        return bad, path

    def require_one_good(self, *, path: Path | None) -> None:
        """Raise if the run ends on skipped steps alone: nothing was learned that could be saved.

        Args:
            path: where the last one's batch is kept, None if it is not.

        Raises:
            AgreedError: on every process; names the steps and their rows.
        """
        if self._in_a_row:
            raise AgreedError(self._message(path, why="all that were left"))

    def _keep(self, bad: bad_batches.BadStep, host: Mapping[str, np.ndarray]) -> Path:
        whole = dict(host)
        if jax.process_count() > 1:
            placed = host_batch_to_global(host, self._mesh)
            whole = multihost_utils.process_allgather(placed, tiled=True)
        with together(f"{self._title}: the batch of skipped step {bad.step} cannot be kept"):
            if is_main():
                try:
                    bad_batches.save_batch(
                        self._run_dir, whole, facts=bad, keep=self._config.bad_batches
                    )
                except OSError as error:
                    raise UserError(f"{error}; make room, or set guards.bad_batches=0") from error
        return bad_batches.path_of(self._run_dir, bad.step)

    def _message(self, path: Path | None, *, why: str) -> str:
        first, last = self._in_a_row[0], self._in_a_row[-1]
        steps = "; ".join(f"step {bad.step}: {shorten(bad.rows)}" for bad in self._in_a_row)
        again = "" if path is None else f" (`python -m ltu_jax.train --replay {path}`)"
        return (
            f"{self._title}: the steps {first.step} to {last.step} were skipped, {why}; the last "
            f"for loss {last.loss} and gradient norm {last.grad_norm} ({last.reason}). Look at "
            f"their rows{again} or lower optimizer.learning_rate; {steps}"
        )
