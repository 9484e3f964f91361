"""Put the parameters of a stage on its devices: base weights, and an adapter to go on from."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from ltu_jax import checkpoint
from ltu_jax.core.axes import Array
from ltu_jax.core.distributed import is_main, together
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.trees import Params
from ltu_jax.training.head_start import fitted_head, fitted_projection
from ltu_jax.training.program import (
    compile_step,
    is_adapter,
    resident_dtype,
    split_parameters,
    stage_optimizer,
)
from ltu_jax.training.stage import Stage
from ltu_jax.training.stage_config import StageSettings
from ltu_jax.training.state import TrainState, create_state, state_shardings
from ltu_jax.training.step import StepFn
from ltu_jax.weights.open import label_names, open_adapter
from ltu_jax.weights.placement import place, place_language_model
from ltu_jax.weights.store import Weights
from ltu_jax.weights.tensors import as_tensors

# What each stage must find where it starts from (prefixes of parameter paths).
INHERITED = {"stage1": ("tltr.",), "stage2": ("tltr.", "audio_proj."), "stage3": ("",)}
HEAD = "label_head."
TAGGER = ("tltr.", HEAD)


def starting_adapter(stage: Stage) -> Params:
    """Return the first adapter parameters: random ones, and over them those that are inherited.

    `weights.tltr` (tagging and stage 1) gives the TLTR alone, and in tagging the label head where
    the labels are the same; `init_from` gives all that the stage has a place for.

    Raises:
        UserError: nothing to start from (unless allow_random_tltr), weights that hold no TLTR, a
            TLTR for another encoder, a checkpoint without the needed parameters or of another size,
            a projection in the place of which `head_clips` would put another.
    """
    settings = stage.settings
    shapes = {path: leaf for path, leaf in stage.model.shapes.items() if is_adapter(path)}
    tagging = settings.stage == "tagging"
    tltr = settings.weights.tltr if settings.stage in ("tagging", "stage1") else ""
    source = tltr or settings.init_from
    if not source and (tagging or settings.allow_random_tltr):
        return _random(stage, tuple(shapes))
    if not source:
        raise UserError(
            f"{settings.stage} would start from a TLTR that has learned nothing. Give its weights "
            "(--config.weights.tltr=DIR), a run to start from (--config.init_from=RUN; "
            "configs/tagging.py trains a TLTR), or ask for it: --config.allow_random_tltr=True"
        )
    inherited = open_adapter(source)
    _check_tltr(inherited, settings)
    saved = inherited.params.shapes
    if tltr:
        saved = {path: leaf for path, leaf in saved.items() if path.startswith(TAGGER)}
    if not tagging or not _same_labels(inherited, stage.pipeline.labels):
        saved = {path: leaf for path, leaf in saved.items() if not path.startswith(HEAD)}
    wanted = INHERITED.get(settings.stage, ("tltr.",))
    must = {path: leaf for path, leaf in shapes.items() if path.startswith(wanted)}
    if settings.stage == "stage2":
        must = {path: leaf for path, leaf in must.items() if ".lora_" not in path}
    sizes = {path: list(shape) for path, shape in saved.items()}
    checkpoint.check_sizes(sizes, must, where=source)
    shared = {path: leaf for path, leaf in shapes.items() if path in saved}
    checkpoint.check_sizes(sizes, shared, where=source)
    projection = any(path.startswith("audio_proj.") for path in shared)
    if settings.stage == "stage1" and settings.head_clips and projection:
        raise UserError(
            f"{source} has a projection, and config.head_clips={settings.head_clips} would put one "
            "that is fitted in its place: keep it with --config.head_clips=0, or start from the "
            f"TLTR alone: --config.weights.tltr={source}"
        )
    surplus = [path for path in saved if path not in shapes]
    if surplus:
        raise UserError(
            f"{source} has {len(surplus)} parameters that {settings.stage} has no place for: "
            f"{shorten(surplus)}; start from a run of the stage before, with the same model config"
        )
    random = _random(stage, tuple(path for path in shapes if path not in shared))
    return {path: inherited.params[path] if path in shared else random[path] for path in shapes}


def label_head(settings: StageSettings) -> tuple[tuple[str, ...], Params]:
    """Return the labels and the label head of the tagger that stage 1 starts from.

    Raises:
        UserError: it has no head, or its labels no names.
    """
    labels, head = None, {}
    if source := settings.weights.tltr or settings.init_from:
        tagger = open_adapter(source)
        labels = label_names(tagger)
        head = {path: leaf for path, leaf in tagger.params.items() if path.startswith(HEAD)}
    if labels is None or not head:
        raise UserError(
            f"config.head_clips={settings.head_clips} fits the projection to what a tagger hears, "
            f"and {source or 'a random TLTR'} has no label head with names: start from a run of "
            "configs/tagging.py (--config.init_from=RUN), or let the projection begin at random "
            "(--config.head_clips=0)"
        )
    return labels, head


def saved_adapter(stage: Stage, folder: Path) -> Params:
    """Read the adapter of one of the stage's own checkpoints, trained and frozen parameters.

    Raises:
        CheckpointError: it has other parameters, or other sizes.
    """
    metadata, params = checkpoint.load_adapter(folder, verify=False)
    shapes = {path: leaf for path, leaf in stage.model.shapes.items() if is_adapter(path)}
    checkpoint.check_sizes(metadata["parameters"], shapes, where=folder)
    return {path: params[path] for path in shapes}


def _random(stage: Stage, paths: tuple[str, ...]) -> Params:
    """Return random parameters; only these are made, so never a random 7B base."""
    if not paths:
        return {}
    made = _init(jax.random.key(stage.settings.seed), init=stage.model.init, paths=paths)
    return {path: np.asarray(leaf, np.float32) for path, leaf in made.items()}


@functools.partial(jax.jit, static_argnames=("init", "paths"))
def _init(key: Array, *, init: Callable[[Array], Params], paths: tuple[str, ...]) -> Params:
    made = init(key)
    return {path: made[path] for path in paths}


def _check_tltr(weights: Weights, settings: StageSettings) -> None:
    """Require the TLTR that the settings describe: shapes alone tell neither heads nor layers."""
    wanted: dict[str, int | None] = dataclasses.asdict(settings.model.tltr)
    tltr, audio_layers = weights.config["tltr"], weights.config["audio_layers"]
    d_input = weights.config.get("d_input")  # of the features where it is not that of the TLTR
    if d_input is not None:
        raise UserError(
            f"{weights.named} is a low variant of Whisper-AT: it projects features of width "
            f"{d_input} to a TLTR of width {tltr['d_model']}, and {settings.stage} "
            f"needs a TLTR of width {wanted['d_model']} on the features themselves; import the "
            "full variant (NAME_ori.pth instead of NAME_low.pth)"
        )
    here = wanted | {"audio_layers": settings.model.whisper.n_audio_layer}
    there = dict(tltr) | {"audio_layers": audio_layers}
    if audio_layers is None:  # the source does not say
        there["audio_layers"] = here["audio_layers"]
    differing = [f"{key} is {there[key]} there and {here[key]} here" for key in here
                 if there[key] != here[key]]  # fmt: skip
    if differing:
        raise UserError(
            f"{weights.named} has a TLTR for another encoder or of another config: "
            f"{', '.join(differing)}; give the one of the Whisper in config.weights.whisper "
            "(--config.weights.tltr or --config.init_from), or choose that TLTR's Whisper and set "
            "config.model.whisper and config.model.tltr to its sizes"
        )


def _same_labels(weights: Weights, labels: Sequence[str]) -> bool:
    """Return whether a label head goes on: with the same labels, or as many unnamed ones."""
    if f"{HEAD}bias" not in weights.params.shapes:
        return False
    (count,) = weights.params.shapes[f"{HEAD}bias"]
    names = label_names(weights)
    same = count == len(labels) if names is None else names == tuple(labels)
    if not same and is_main():
        print(
            f"{weights.named}: its {count} labels are not the {len(labels)} of these records; the "
            "TLTR goes on, the label head starts anew",
            flush=True,
        )
    return same


def place_bases(stage: Stage) -> Params:
    """Place the base parameters: LLaMA in compute.base_dtype; the encoder if the step runs it."""
    settings, bases = stage.settings, stage.bases
    placed: Params = {}
    if bases.llama is not None:
        wanted = {p: leaf for p, leaf in stage.model.shapes.items() if not is_adapter(p)}
        placed |= place_language_model(
            bases.llama.params.tensors,
            wanted,
            base_dtype=settings.compute.base_dtype,
            dtype=settings.compute.dtype,
            mesh=stage.mesh,
            subject=str(bases.llama.path),
        )
    if settings.data.features == "on_the_fly":
        encoder = {
            f"whisper.{name}": tensor
            for name, tensor in bases.whisper.params.tensors.items()
            if name.startswith("encoder.")
        }
        dtypes = {path: resident_dtype(path, leaf, settings) for path, leaf in encoder.items()}
        placed |= place(encoder, mesh=stage.mesh, dtypes=dtypes)
    return placed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A stage ready to step; `frozen_adapter` is the part of `frozen` that a checkpoint holds.

    `key` is folded with the step, so a resumed run draws the same dropout.
    """

    state: TrainState
    frozen: Params
    frozen_adapter: Params
    step_fn: StepFn
    mesh: Mesh
    key: Array


def prepare(stage: Stage, *, saved: Path | None, start: Params | None = None) -> Prepared:
    """Place a stage's parameters and compile its step.

    Args:
        stage: the stage.
        saved: checkpoint to go on from: all of its adapter is taken, also what the stage does not
            train; `restored` then fills in the optimiser's state. None to start.
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
        fits_projection = settings.stage == "stage1" and settings.head_clips and not saved
        labels, head = label_head(settings) if fits_projection else ((), {})
    params = {**adapter, **place_bases(stage)}
    anew = not (saved or settings.init_from or settings.weights.tltr)
    if settings.stage == "tagging" and settings.head_clips and anew:
        params |= fitted_head(stage, params, clips=settings.head_clips)
    if fits_projection:
        params |= fitted_projection(
            stage, params, clips=settings.head_clips, head=head, labels=labels
        )
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
    return Prepared(
        state=state,
        frozen=frozen,
        frozen_adapter=frozen_adapter,
        step_fn=step_fn,
        mesh=mesh,
        key=jax.random.key(settings.seed),
    )


def restored(prepared: Prepared, folder: Path) -> Prepared:
    """Fill in the state of a verified checkpoint, optimiser and step included."""
    state, _ = checkpoint.restore(
        folder,
        like=prepared.state,
        shardings=state_shardings(prepared.state, mesh=prepared.mesh),
        verify=False,
    )
    return dataclasses.replace(prepared, state=state)
