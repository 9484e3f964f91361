"""Read a training config into frozen dataclasses, key by key.

The command line hands over a plain nested dict; an unknown, missing or misplaced key is one
`UserError`, so no other file meets a config with a key that it does not know.
"""

import dataclasses
import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.input.data_config import PipelineSettings
from ltu_jax.core.config import read
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import as_path
from ltu_jax.core.sharding import MeshConfig
from ltu_jax.generation.transcription import RULES
from ltu_jax.models.attention import BACKENDS
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.models.whisper import WhisperConfig
from ltu_jax.training.augmentation import AugmentationConfig
from ltu_jax.training.logs import LogConfig
from ltu_jax.training.optimizer import OptimizerConfig
from ltu_jax.training.resilience.guards import GuardConfig
from ltu_jax.weights import places

STAGES = ("tagging", "stage1", "stage2", "stage3")
DTYPES = ("float32", "bfloat16", "float16")
BASE_DTYPES = (*DTYPES, "int8")
# The keys whose values are paths, of this machine or of a bucket; those of weights, which may be
# names on the Hugging Face Hub too.
_PATHS = ("run_dir", "data.records", "data.teacher", "compute.compilation_cache")
_WEIGHTS = (
    "init_from",
    "weights.llama",
    "weights.whisper",
    "weights.transcriber",
    "weights.tltr",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Sizes of every part; `llama` and `lora` are None where a stage has none."""

    whisper: WhisperConfig
    tltr: TLTRConfig
    llama: LlamaConfig | None
    lora: LoRAConfig | None
    audio_tokens: int

    def ltu_as(self) -> LTUASConfig:
        """Return the assembled model's config."""
        return LTUASConfig(
            tltr=self.tltr,
            llama=self.llama,
            lora=self.lora,
            audio_layers=self.whisper.n_audio_layer,
            audio_tokens=self.audio_tokens,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """The sources of missing weights, with the commands that convert them."""

    llama: str
    whisper: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightSettings:
    """Weights folders; empty where a stage needs none."""

    llama: str
    whisper: str
    transcriber: str
    transcription: str
    tltr: str
    sources: Sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings(PipelineSettings):
    """The keys of `config.data`: pairs, their layout, and the number of passes."""

    validation_split: str
    epochs: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """Precision, memory, kernels, and where compiled programs are kept."""

    dtype: str
    base_dtype: str
    encoder_dtype: str
    remat: str
    attention: str
    loss_chunk: int
    compilation_cache: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """The interval of saves in steps (0 = only at the end) and the number of checkpoints kept.

    `allow_other_inputs`: go on though base weights, tokenizer or records are other ones than the
    checkpoint was made with. `must_exist`: a run folder without a checkpoint is an error.
    """

    every: int
    keep: int
    allow_other_inputs: bool
    must_exist: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageSettings:
    """One stage of training, complete."""

    stage: str
    seed: int
    run_dir: str
    init_from: str
    allow_random_tltr: bool
    head_clips: int
    steps: int
    model: ModelSettings
    weights: WeightSettings
    trainable: tuple[tuple[str, bool], ...]
    data: DataSettings
    augmentation: AugmentationConfig
    optimizer: OptimizerConfig
    mesh: MeshConfig
    compute: ComputeSettings
    log: LogConfig
    checkpoint: CheckpointConfig
    guards: GuardConfig

    def __post_init__(self) -> None:
        for name in _PATHS:
            as_path(operator.attrgetter(name)(self), option=f"config.{name}")
        for name in _WEIGHTS:
            places.check(operator.attrgetter(name)(self), option=f"config.{name}")
        if self.stage not in STAGES:
            raise UserError(f"stage is {self.stage!r}; use one of {', '.join(STAGES)}")
        if (self.stage == "tagging") != (self.model.llama is None):
            raise UserError(f"model.llama must be {{}} only in the tagging stage, not {self.stage}")
        if self.stage == "tagging" and self.data.layout != "tags":
            raise UserError(f"data.layout is {self.data.layout!r}; the tagging stage needs 'tags'")
        if self.stage != "tagging" and self.data.layout == "tags":
            raise UserError(f"data.layout 'tags' has no text; {self.stage} needs another one")
        if self.stage != "tagging" and self.augmentation.is_on:
            raise UserError(
                f"config.augmentation is of the tagging stage: set its keys to 0 for {self.stage}"
            )
        if self.data.micro_rows and self.optimizer.loss_mean != "micro":
            raise UserError(
                f"data.micro_rows is {self.data.micro_rows}: the loss is the mean of the means of "
                f"micro-batches, but optimizer.loss_mean is {self.optimizer.loss_mean!r}; use "
                "'micro', or data.micro_rows=0"
            )
        for name, known in (
            ("dtype", DTYPES),
            ("base_dtype", BASE_DTYPES),
            ("encoder_dtype", DTYPES),
            ("attention", BACKENDS),
        ):
            if getattr(self.compute, name) not in known:
                raise UserError(
                    f"compute.{name} is {getattr(self.compute, name)!r}; use {', '.join(known)}"
                )
        if self.weights.transcription not in RULES:
            raise UserError(
                f"weights.transcription is {self.weights.transcription!r}; use {', '.join(RULES)}"
            )
        if self.compute.loss_chunk < 0:
            raise UserError(f"compute.loss_chunk is {self.compute.loss_chunk}; use 0 or more")
        for name, least in (
            ("steps", 0),
            ("head_clips", 0),
            ("log.every", 1),
            ("log.validate_every", 0),
            ("log.validate_batches", 0),
            ("log.samples_every", 0),
            ("log.samples", 0),
            ("log.sample_tokens", 1),
            ("log.audio_clips", 0),
            ("log.peak_flops", 0),
            ("checkpoint.every", 0),
            ("checkpoint.keep", 1),
        ):
            value = operator.attrgetter(name)(self)
            if not value >= least:
                raise UserError(f"config.{name} is {value!r}; use {least} or more")
        if not self.steps and not 0 < self.data.epochs < math.inf:
            raise UserError(
                f"config.data.epochs is {self.data.epochs!r}; use a positive number, or set "
                "config.steps"
            )


def stage_settings(config: Mapping[str, Any]) -> StageSettings:
    """Read one stage from a plain nested dict.

    Raises:
        UserError: an unknown or missing key or a value of the wrong type; the message has its full
            name and the keys that exist.
    """
    return read(StageSettings, config, where="config")


def missing_weights(settings: StageSettings) -> str | None:
    """Return an error for base weights that are not there: each folder, its origin, the command."""
    wanted = [
        (name, getattr(settings.weights, name), getattr(settings.weights.sources, name))
        for name in ("llama", "whisper")
        if name == "whisper" or settings.model.llama is not None
    ]
    lines = []
    for name, folder, source in wanted:
        if places.is_elsewhere(folder):  # opening it says what is wrong
            continue
        if not folder or not (Path(folder) / "config.json").is_file():
            state = f"no weights in {folder!r}" if folder else "empty"
            lines.append(f"config.weights.{name}: {state}. Needed: {source}")
    if not lines:
        return None
    return f"{settings.stage} cannot start:\n  " + "\n  ".join(lines)
