"""Compute a skipped step once more: its batch and draws of dropout on the newest checkpoint."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from ltu_jax import checkpoint
from ltu_jax.core.distributed import batch_share, host_batch_to_global, together
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json
from ltu_jax.core.paths import absolute
from ltu_jax.models.text_batch import TARGET_IDS, TARGET_POSITIONS
from ltu_jax.training.initialize import prepare, restored
from ltu_jax.training.program import batch_shapes
from ltu_jax.training.resilience import bad_batches
from ltu_jax.training.stage import assemble, open_bases
from ltu_jax.training.stage_config import StageSettings, stage_settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replayed:
    """Loss and gradient norm of a batch now and then; `not_finite` are entries of the batch."""

    bad: bad_batches.BadStep
    checkpoint_step: int
    loss: float
    grad_norm: float
    not_finite: list[str]

    def __str__(self) -> str:
        bad = self.bad
        lines = [
            f"{bad.stage} step {bad.step}, skipped as {bad.reason}",
            f"then: loss {bad.loss!r}, gradient norm {bad.grad_norm!r}",
            f"now:  loss {self.loss!r}, gradient norm {self.grad_norm!r} (checkpoint of step "
            f"{self.checkpoint_step})",
            "batch: " + ("; ".join(self.not_finite) or "all entries are finite"),
            *(f"row {index}: {row}" for index, row in enumerate(bad.rows)),
        ]
        return "\n".join(lines)


def replay_file(path: Path) -> Replayed:
    """Compute loss and gradient norm of a file of RUN/bad_batches with the run's newest checkpoint.

    The same compiled step as in training, on the same number of devices: the numbers are those of
    the skipped step, to the bit, where no step between the checkpoint and it was accepted. Nothing
    is written.

    Raises:
        UserError: not such a file, not in its run folder, no checkpoint there.
    """
    settings = settings_beside(path)
    run_dir = absolute(path).parent.parent
    with together(f"{path} cannot be replayed"):
        batch, bad = bad_batches.read_batch(path)
        stage = assemble(settings, open_bases(settings))
        _check_shapes(batch, settings, labels=len(stage.pipeline.labels), path=path)
        newest, metadata = checkpoint.read_metadata(run_dir)
    prepared = restored(prepare(stage, saved=newest), newest)
    state = dataclasses.replace(prepared.state, step=jnp.full_like(prepared.state.step, bad.step))
    share = batch_share(stage.mesh)
    rows = len(next(iter(batch.values()))) // share.count
    mine = slice(share.index * rows, (share.index + 1) * rows)
    placed = host_batch_to_global({name: leaf[mine] for name, leaf in batch.items()}, stage.mesh)
    _, metrics = prepared.step_fn(state, prepared.frozen, placed, prepared.key)
    return Replayed(
        bad=bad,
        checkpoint_step=int(metadata["step"]),
        loss=float(metrics["loss"]),
        grad_norm=float(metrics["grad_norm"]),
        not_finite=bad_batches.not_finite(batch),
    )


def settings_beside(path: Path) -> StageSettings:
    """Read the settings of the run that a file of RUN/bad_batches belongs to."""
    config = absolute(path).parent.parent / "config.json"
    if not config.is_file():
        raise UserError(
            f"{path} does not lie in the run it comes from: there is no {config}; replay it where "
            f"it was written, RUN/{bad_batches.FOLDER}"
        )
    return stage_settings(read_json(config))


def _check_shapes(
    batch: Mapping[str, np.ndarray], settings: StageSettings, *, labels: int, path: Path
) -> None:
    """Require the arrays of a global batch of this stage; only the number of targets is free."""
    text = batch["input_ids"].shape[-1] if "input_ids" in batch else 0
    wanted = batch_shapes(settings, text_length=text, labels=labels)
    if batch.keys() != wanted.keys():
        raise UserError(
            f"{path} holds {', '.join(sorted(batch))}; a batch of {settings.stage} has "
            f"{', '.join(sorted(wanted))}"
        )
    for name, leaf in batch.items():
        shape = wanted[name].shape
        if name in (TARGET_POSITIONS, TARGET_IDS):
            shape = (shape[0], batch[TARGET_IDS].shape[-1])
        if leaf.shape != shape or leaf.dtype != wanted[name].dtype:
            raise UserError(
                f"{path}: {name} is {leaf.dtype} {leaf.shape}; a batch of this run has "
                f"{wanted[name].dtype} {shape}"
            )
