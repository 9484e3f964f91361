"""Everything that a step of a stage is called with, on the devices, and the compiled step."""

import dataclasses
from pathlib import Path

from ltu_jax.core.distributed import together
from ltu_jax.core.trees import Params
from ltu_jax.training.initialize import place_bases, saved_adapter, starting_adapter
from ltu_jax.training.program import compile_step, is_adapter, split_parameters, stage_optimizer
from ltu_jax.training.stage import Stage
from ltu_jax.training.state import TrainState, create_state
from ltu_jax.training.step import StepFn
from ltu_jax.weights.placement import place
from ltu_jax.weights.tensors import as_tensors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A stage ready to step; `frozen_adapter` is the part of `frozen` that a checkpoint holds."""

    state: TrainState
    frozen: Params
    frozen_adapter: Params
    step_fn: StepFn


def prepare(stage: Stage, *, saved: Path | None, start: Params | None = None) -> Prepared:
    """Place a stage's parameters and compile its step.

    Args:
        stage: the stage.
        saved: checkpoint to go on from: all of its adapter is taken, also what the stage does not
            train; `checkpoint.restore` then fills in the optimiser's state. None to start.
        start: the adapter to start with, where it was made before; None to make it now.

    Raises:
        AgreedError: a start that is refused.
    """
    settings, mesh = stage.settings, stage.mesh
    with together(f"{settings.stage} cannot {'go on' if saved else 'start'}"):
        if saved:
            adapter = saved_adapter(stage, saved)
        else:
            adapter = starting_adapter(stage) if start is None else start
    params = {**adapter, **place_bases(stage)}
    trainable, frozen = split_parameters(params, settings)
    tx = stage_optimizer(settings, paths=trainable, steps=stage.steps)
    state = create_state(trainable, tx, mesh=mesh)
    frozen_adapter = {path: leaf for path, leaf in frozen.items() if is_adapter(path)}
    # Left on the host they would travel to the devices in every step.
    frozen_adapter = place(
        as_tensors(frozen_adapter), mesh=mesh, dtypes=dict.fromkeys(frozen_adapter, "float32")
    )
    frozen |= frozen_adapter
    step_fn = compile_step(settings, stage.loss_fn, tx, state=state, frozen=frozen, mesh=mesh)
    return Prepared(state=state, frozen=frozen, frozen_adapter=frozen_adapter, step_fn=step_fn)
