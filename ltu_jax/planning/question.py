"""What is asked of a plan: a stage, its rows, and how many pairs the stage has."""

import dataclasses
import functools
import math
from typing import Any

import jax
from jax.sharding import Mesh

from data_pipelines.input.data_config import DataConfig, RowLayout
from data_pipelines.input.row_report import RowReport
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import BATCH, param_specs
from ltu_jax.planning import open_asqa_counts, open_asqa_model
from ltu_jax.training.metrics import StepWork
from ltu_jax.training.program import Program, data_config, longest_text
from ltu_jax.training.stage_config import StageSettings

_SHARE = 1 / 100  # of Open-ASQA whose rows are laid out to see how they fill
_TAGGED_CLIPS = 2_000_000  # AudioSet
TAGS = 527  # labels of AudioSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """One step to be planned.

    Attributes:
        settings: the stage.
        text_length: padded text tokens of a row, for time; memory is planned for `longest`.
        longest: padded text tokens of the longest batch.
        mean_text: real text tokens of a pair.
        pairs_per_row: mean number of pairs that share a row.
        clips_per_row: mean number of clips whose places a row fills.
        pairs: of the whole stage.
    """

    settings: StageSettings
    text_length: int
    longest: int
    mean_text: float
    pairs_per_row: float
    clips_per_row: float
    pairs: float

    @property
    def rows(self) -> int:
        """Rows of a step."""
        return self.settings.data.rows_per_batch

    @property
    def pairs_per_step(self) -> float:
        """Pairs of a step in the mean; in tagging a clip counts as one."""
        return self.rows * self.pairs_per_row

    @property
    def steps(self) -> int:
        """Optimiser steps of the stage."""
        return self.settings.steps or max(1, math.ceil(self.pairs / self.pairs_per_step))

    @property
    def filled_text(self) -> float:
        """Share of a row's text positions that hold a token; 1 where there are none."""
        return self.mean_text * self.pairs_per_row / self.text_length if self.text_length else 1.0

    def real_work(self) -> StepWork:
        """What a step has to do: no padding and no empty places, as the trainer counts a batch."""
        if self.settings.stage == "tagging":
            return self._work(clips=self.rows, text=0, targets=0, pairs=0)
        pairs = self.pairs_per_step
        text = self.mean_text * pairs
        # Official rows predict the first token of a pair, too, from the padding before it.
        first = 0 if self.settings.data.layout == RowLayout.REFERENCE else pairs
        clips = self.rows * self.clips_per_row
        return self._work(clips=clips, text=text, targets=text - first, pairs=pairs)

    def padded_work(self) -> StepWork:
        """What a step does as its shapes are; a row of several pairs attends over all of it."""
        clips = self.rows * clip_places(self.settings)
        text = 0 if self.settings.stage == "tagging" else self.rows * self.text_length
        return self._work(clips=clips, text=text, targets=text, pairs=self.rows)

    def _work(self, *, clips: float, text: float, targets: float, pairs: float) -> StepWork:
        clips = round(clips)
        return StepWork(
            clips=clips,
            pairs=round(pairs),
            audio_tokens=clips * self.settings.model.audio_tokens,
            text_tokens=int(text),
            targets=int(targets),
        )


def ask(
    settings: StageSettings,
    *,
    text_length: int | None,
    mean_text: float | None,
    pairs_per_row: float | None,
    pairs: float | None,
    clips_per_row: float | None = None,
) -> Question:
    """Fill in what was not said from the stage, the original's logs and a model of Open-ASQA.

    Args:
        settings: the stage.
        text_length: padded text tokens of every row; None for what the input pipeline makes.
        mean_text: real text tokens of a pair.
        pairs_per_row: mean number of pairs in a row; None for what rows of the model hold.
        pairs: of the stage, all epochs together.
        clips_per_row: mean number of clips in a row, the same.

    Raises:
        UserError: rows too short for the pairs they hold, or a choice of tasks and datasets of
            which the number of pairs is not known, and no `pairs`.
    """
    stage, data = settings.stage, settings.data
    if stage == "tagging":
        clips = pairs or _TAGGED_CLIPS * data.epochs
        return Question(
            settings=settings,
            text_length=0,
            longest=0,
            mean_text=0.0,
            pairs_per_row=1.0,
            clips_per_row=1.0,
            pairs=clips,
        )
    usual = (
        open_asqa_model.MEAN_TEXT_160 if data.cutoff >= 160 else open_asqa_model.MEAN_TEXT[stage]
    )
    mean = min(mean_text or usual, data.cutoff)
    filled = _filled(settings, mean=mean)
    several = pairs_per_row or filled.pairs / filled.rows
    longest = text_length or longest_text(settings)
    text, typical = math.ceil(mean * several), longest
    if not text_length and settings.data.group_by_length and not data_config(settings).one_length:
        # The mean width of batches of like length: as much above the rows' as they are padded.
        typical = min(longest, math.ceil(mean * several / (1 - filled.padding)))
    if text > typical:
        raise UserError(
            f"rows of {typical} text tokens cannot hold {several:g} pairs of {mean} tokens in the "
            f"mean, which are {text}; give --text-length, --pairs-per-row or --mean-text"
        )
    return Question(
        settings=settings,
        text_length=typical,
        longest=longest,
        mean_text=mean,
        pairs_per_row=several,
        clips_per_row=clips_per_row or min(filled.clips_per_row, several),
        pairs=pairs or _pairs_of_stage(settings, pairs_per_row=several),
    )


@functools.lru_cache(maxsize=32)
def _modelled(
    tasks: tuple[str, ...], datasets: tuple[str, ...], mean: float, cutoff: int
) -> tuple[Any, Any]:
    names = dict(tasks=tasks, datasets=datasets)
    try:
        return open_asqa_model.corpus(**names, mean=mean, cutoff=cutoff, share=_SHARE)
    except UserError:  # of data that are not Open-ASQA nothing is known: as if they were
        names = dict(tasks=("all",), datasets=("all",))
        return open_asqa_model.corpus(**names, mean=mean, cutoff=cutoff, share=_SHARE)


@functools.lru_cache(maxsize=128)
def _rows_of(config: DataConfig, names: tuple[Any, ...]) -> RowReport:
    return open_asqa_model.rows(config, *_modelled(*names))


def _filled(settings: StageSettings, *, mean: float) -> RowReport:
    """How rows of these settings hold the pairs of a small Open-ASQA."""
    data = settings.data
    config = data_config(settings, records="")
    return _rows_of(config, (data.tasks, data.datasets, mean, data.cutoff))


def _pairs_of_stage(settings: StageSettings, *, pairs_per_row: float) -> float:
    """Pairs of all epochs: as many as the steps take, or those of Open-ASQA."""
    data = settings.data
    if settings.steps:
        return settings.steps * data.rows_per_batch * pairs_per_row
    try:
        return open_asqa_counts.pairs(tasks=data.tasks, datasets=data.datasets) * data.epochs
    except UserError as error:
        raise UserError(
            "how many pairs the stage has is not known here: give --pairs, those of all epochs "
            f"together ({error})"
        ) from error


def clip_places(settings: StageSettings) -> int:
    """Places for clips in every row; each costs an encoder run, used or not."""
    return settings.data.clips_per_row if settings.data.layout == RowLayout.GROUPED else 1


def check_batch(settings: StageSettings, mesh: Mesh) -> None:
    """Require that the batch divides over the mesh and its micro-batches.

    Raises:
        UserError: it does not; the message has the numbers and the nearest batches that do.
    """
    parts = math.prod(mesh.shape[axis] for axis in BATCH)
    unit = parts * settings.optimizer.accumulation
    rows = settings.data.rows_per_batch
    if rows % unit:
        below = rows // unit * unit
        nearest = f"{below} or {below + unit}" if below else f"{unit}"
        raise UserError(
            f"data.rows_per_batch is {rows}, which does not divide over data x fsdp = {parts} "
            f"devices x {settings.optimizer.accumulation} micro-batches = {unit}; use "
            f"--config.data.rows_per_batch={nearest}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resident:
    """Bytes that lie on one device throughout: by arithmetic from shapes and sharding."""

    base: float
    trainable: float
    optimiser: float
    batch: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.base + self.trainable + self.optimiser + self.batch


def resident(program: Program, mesh: Mesh) -> Resident:
    """What of a program's arguments lies on one device of `mesh`."""
    moments = [leaf for leaf in jax.tree.leaves(program.state.opt_state) if leaf.shape]
    rows = math.prod(mesh.shape[axis] for axis in BATCH)
    trainable = _sharded(program.state.trainable, mesh)
    # Both moments lie where their parameter lies.
    copies = sum(map(_bytes, moments)) / max(1, sum(map(_bytes, program.state.trainable.values())))
    return Resident(
        base=_sharded(program.frozen, mesh),
        trainable=trainable,
        optimiser=trainable * copies,
        batch=sum(_bytes(leaf) for leaf in program.batch.values()) / rows,
    )


def _bytes(leaf: Any) -> float:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _sharded(params: dict[str, Any], mesh: Mesh) -> float:
    total = 0.0
    for path, spec in param_specs(params, mesh).items():
        parts = math.prod(mesh.shape[axis] for axis in spec if axis is not None)
        total += _bytes(params[path]) / parts
    return total
