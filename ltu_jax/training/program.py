"""Make the program of a stage from its settings alone: model, loss, and the compiled step.

`run_stage` hands it real arrays; the planner hands it shapes, for devices that are not there.
Nothing here reads weights or data.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from data_pipelines.input.data_config import DataConfig, PipelineSettings, RowLayout
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.sharding import audio_layout, param_shardings
from ltu_jax.core.trees import label
from ltu_jax.models.attention import require_platform
from ltu_jax.models.functional import Functional
from ltu_jax.models.int8 import SCALE
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.text_batch import ROW_WEIGHTS, TARGET_IDS, TARGET_POSITIONS
from ltu_jax.models.tltr import Tagger, TaggerConfig
from ltu_jax.models.whisper import Whisper
from ltu_jax.preprocessing.audio import CLIP_FRAMES
from ltu_jax.training import flops, losses
from ltu_jax.training.losses import WHISPER
from ltu_jax.training.optimizer import make_optimizer
from ltu_jax.training.resilience import guards
from ltu_jax.training.stage_config import StageSettings
from ltu_jax.training.state import TrainState, abstract_state, split_trainable, state_shardings
from ltu_jax.training.step import StepFn, make_train_step
from ltu_jax.weights import lineage
from ltu_jax.weights.placement import base_dtypes

Shapes = dict[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFunctions:
    """Pure functions of a stage; `encoder_shapes` are those of the Whisper encoder."""

    model: Functional[LTUAS] | Functional[Tagger]
    features: losses.Features
    loss_fn: Callable
    encoder_shapes: Shapes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A step that can be lowered: the function and the shapes of its arguments."""

    step_fn: StepFn
    loss_fn: Callable
    state: TrainState
    frozen: Shapes
    batch: Shapes
    key: jax.ShapeDtypeStruct
    size: flops.ModelSize

    def lower(self) -> jax.stages.Lowered:
        """Trace the step and partition it for the devices of its mesh."""
        return self.step_fn.lower(self.state, self.frozen, self.batch, self.key)


def model_functions(settings: StageSettings, *, labels: int, mesh: Mesh) -> ModelFunctions:
    """Make the model and the loss of a stage.

    Args:
        settings: the stage.
        labels: how many labels a tagger has.
        mesh: the devices it will run on, which need not be present.

    Raises:
        UserError: options that these devices or this stage do not have.
    """
    layout = audio_layout(mesh)
    whisper = Whisper(settings.model.whisper, dtype=settings.compute.encoder_dtype)
    features = losses.whisper_features(whisper.encoder, layout=layout)
    if settings.stage == "tagging":
        config = TaggerConfig(
            tltr=settings.model.tltr, labels=labels, d_input=None, audio_layers=None
        )
        model = Tagger.functional(
            config,
            dtype=jnp.dtype(settings.compute.dtype),
            remat=settings.compute.remat,
        )
        loss_fn = losses.tagging_loss(model, features=features, augmentation=settings.augmentation)
    else:
        model = LTUAS.functional(
            settings.model.ltu_as(),
            lay_audio=layout.gather,
            **model_options(settings, mesh=mesh),
        )
        check_trainable(settings, model.shapes)
        loss_fn = losses.language_loss(model, features=features, chunk=settings.compute.loss_chunk)
    encoder_shapes = {f"{WHISPER}{path}": leaf for path, leaf in whisper.encoder.shapes.items()}
    return ModelFunctions(
        model=model, features=features, loss_fn=loss_fn, encoder_shapes=encoder_shapes
    )


def is_adapter(path: str) -> bool:
    """Return whether a parameter belongs to the adapter, which every checkpoint holds."""
    return lineage.is_adapter(path) and not path.startswith(WHISPER)


def resident_dtype(path: str, leaf: Any, settings: StageSettings) -> Any:
    """Return the dtype of a parameter on the devices: compute dtype, adapters float32.

    Of the encoder the kernels alone, which products take in that dtype anyway: features are then
    the same numbers as those that are stored, and those that answering computes.
    """
    if is_adapter(path):
        return jnp.dtype(jnp.float32)
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return jnp.dtype(leaf.dtype)
    if path.startswith(WHISPER):
        kernel = path.endswith(".kernel")
        return jnp.dtype(settings.compute.encoder_dtype if kernel else jnp.float32)
    return jnp.dtype(settings.compute.dtype)


def split_parameters(
    params: Mapping[str, Any], settings: StageSettings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part all parameters of a step into (trainable, frozen); the encoder is always frozen."""
    rest = losses.without(dict(params), WHISPER)
    with table("trainable"):
        trainable, frozen = split_trainable(rest, settings.trainable)
    return trainable, frozen | {
        path: leaf for path, leaf in params.items() if path.startswith(WHISPER)
    }


def stage_optimizer(
    settings: StageSettings, *, paths: Iterable[str], steps: int
) -> optax.GradientTransformation:
    """Make the optimiser of a stage over exactly the trainable `paths`, for `steps` steps.

    Raises:
        UserError: a schedule that does not fit `steps`, or a table that does not fit `paths`.
    """
    with table("optimizer.group_multipliers"):
        tx = make_optimizer(settings.optimizer, paths=paths, steps=steps)
    if settings.guards.spike_sigma:
        tx = guards.looking_back(tx, window=settings.guards.spike_window)
    return tx


def compile_step(
    settings: StageSettings,
    loss_fn: Callable,
    tx: optax.GradientTransformation,
    *,
    state: TrainState,
    frozen: Mapping[str, Any],
    mesh: Mesh,
) -> StepFn:
    """Compile the stage's train step on `mesh`; `state` and `frozen` may be arrays or shapes."""
    by_token = settings.optimizer.loss_mean == "token" and settings.stage != "tagging"
    return make_train_step(
        loss_fn,
        tx,
        mesh=mesh,
        shardings=(state_shardings(state, mesh=mesh), param_shardings(mesh, frozen)),
        accumulation=settings.optimizer.accumulation,
        weigh=losses.count_targets if by_token else None,
        spike_sigma=settings.guards.spike_sigma,
    )


def make_program(
    settings: StageSettings, *, mesh: Mesh, steps: int, text_length: int, labels: int
) -> Program:
    """Make the step of a stage with shapes in place of all arrays.

    Args:
        settings: the stage.
        mesh: its devices, which need not be present.
        steps: of the whole run, for the schedule.
        text_length: padded text tokens of a row.
        labels: how many labels a tagger has.
    """
    functions = model_functions(settings, labels=labels, mesh=mesh)
    on_the_fly = settings.data.features == "on_the_fly"
    shapes = {**functions.model.shapes, **(functions.encoder_shapes if on_the_fly else {})}
    dtypes = {path: resident_dtype(path, leaf, settings) for path, leaf in shapes.items()}
    if settings.stage != "tagging":
        llama = {
            path: leaf for path, leaf in functions.model.shapes.items() if not is_adapter(path)
        }
        dtypes |= base_dtypes(
            llama, base_dtype=settings.compute.base_dtype, dtype=settings.compute.dtype
        )
    resident = {
        path: jax.ShapeDtypeStruct(leaf.shape, dtypes[path]) for path, leaf in shapes.items()
    }
    trainable, frozen = split_parameters(resident, settings)
    tx = stage_optimizer(settings, paths=trainable, steps=steps)
    state = abstract_state(trainable, tx)
    return Program(
        step_fn=compile_step(
            settings, functions.loss_fn, tx, state=state, frozen=frozen, mesh=mesh
        ),
        loss_fn=functions.loss_fn,
        state=state,
        frozen=frozen,
        batch=batch_shapes(settings, text_length=text_length, labels=labels),
        key=jax.eval_shape(functools.partial(jax.random.key, 0)),
        size=flops.model_size(settings, functions.model.shapes),
    )


def batch_shapes(
    settings: StageSettings, *, text_length: int, labels: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of the global batch as the step gets it.

    They are the same for every number of hosts, which know the tokens of all pairs. One row is
    taken to have no padding and no prompt without loss: it wants all tokens but its first.
    """
    rows, whisper = settings.data.rows_per_batch, settings.model.whisper

    clips = data_config(settings).clips_per_row
    several = (clips,) if clips > 1 else ()

    def ints(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *sizes), jnp.int32)

    def floats(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *sizes), jnp.float32)

    audio = settings.model.audio_tokens
    if settings.data.features == "on_the_fly":
        audio_inputs = {"log_mel": floats(*several, CLIP_FRAMES, whisper.n_mels)}
    else:
        audio_inputs = {
            "features": floats(*several, whisper.n_audio_layer, audio, whisper.n_audio_state)
        }
    if settings.stage == "tagging":
        return {**audio_inputs, "targets": floats(labels)}
    return {
        **audio_inputs,
        "input_ids": ints(text_length),
        "segment_ids": ints(text_length),
        "positions": ints(clips * audio + text_length),
        **({"clip_ids": ints(text_length)} if several else {}),
        **({ROW_WEIGHTS: floats()} if data_config(settings).micro_rows else {}),
        TARGET_POSITIONS: ints(text_length - 1),
        TARGET_IDS: ints(text_length - 1),
    }


def longest_text(settings: StageSettings) -> int:
    """Return the padded text length that holds any row."""
    return data_config(settings).longest


def data_config(settings: StageSettings, **changes: Any) -> DataConfig:
    """Return the settings of the input pipeline; `changes` replace fields of it."""
    keys = {field.name for field in dataclasses.fields(PipelineSettings)}
    values = {
        **{key: getattr(settings.data, key) for key in keys},
        "seed": settings.seed,
        "audio_tokens": settings.model.audio_tokens,
        "n_mels": settings.model.whisper.n_mels,
        **changes,
    }
    # Keys of one layout say nothing in the others.
    if values["layout"] != RowLayout.GROUPED:
        values |= {"pairs_per_clip": 1, "clips_per_row": 1}
    if values["layout"] != settings.data.layout:  # validation has rows of its own
        values["micro_rows"] = 0
    return DataConfig(**values)


@contextlib.contextmanager
def table(key: str) -> Iterator[None]:
    """Name the config key of a table of rules that does not fit the stage's parameters."""
    try:
        yield
    except UserError:
        raise  # it is about something else, and says about what
    except (ValueError, re.error) as error:
        raise UserError(
            f"config.{key}: {error}; the first pattern that matches a whole path counts, each path "
            "needs one, and each pattern a path"
        ) from error


def model_options(settings: StageSettings, *, mesh: Mesh) -> dict[str, Any]:
    """Return the keywords of `LTUAS.functional`.

    Raises:
        UserError: an attention backend that is not made for the devices of `mesh`.
    """
    compute = settings.compute
    require_platform(compute.attention, mesh)
    return {
        "dtype": jnp.dtype(compute.dtype),
        "remat": compute.remat,
        "attention": compute.attention,
        "longest_pair": settings.data.cutoff,
        "mesh": mesh,
        "int8_base": compute.base_dtype == "int8",
    }


def check_trainable(settings: StageSettings, shapes: Mapping[str, Any]) -> None:
    """Require that nothing is trained which int8 has no gradient for.

    Raises:
        UserError: names the kernels, or what does not fit in the table.
    """
    scales = [path for path in shapes if path.endswith(SCALE)]
    with table("trainable"):
        trained = label(settings.trainable, shapes)
    wrong = [
        path for scale in scales for path in (scale.removesuffix(SCALE), scale) if trained[path]
    ]
    if wrong:
        raise UserError(
            f"compute.base_dtype is 'int8' but {settings.stage} trains {shorten(wrong)}; an int8 "
            "kernel has no gradient: use 'bfloat16' or 'float32', or freeze it in config.trainable"
        )
