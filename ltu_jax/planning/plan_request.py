"""The request for a plan: a stage, how its rows fill, and how many pairs the stage has."""

import dataclasses
import functools
import math
from typing import Any

from data_pipelines.input.data_config import DataConfig, RowLayout
from data_pipelines.input.row_report import RowReport
from ltu_jax.core.errors import UserError
from ltu_jax.planning import open_asqa_counts, open_asqa_model
from ltu_jax.training.flops import StepWork
from ltu_jax.training.program import data_config, longest_text
from ltu_jax.training.stage_config import StageSettings

_SHARE = 1 / 100  # of Open-ASQA whose rows are laid out to see how they fill
_TAGGED_CLIPS = 2_000_000  # AudioSet
TAGS = 527  # labels of AudioSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """A step to plan, and the stage that it belongs to.

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
    def clip_places(self) -> int:
        """Places for clips in every row; each costs an encoder run, used or not."""
        return data_config(self.settings).clips_per_row

    @property
    def filled_text(self) -> float:
        """Share of a row's text positions that hold a token; 1 where there are none."""
        return self.mean_text * self.pairs_per_row / self.text_length if self.text_length else 1.0

    def real_work(self) -> StepWork:
        """Return the work of real tokens and clips alone, as the trainer counts a batch."""
        if self.settings.stage == "tagging":
            return self._work(clips=self.rows, text=0, targets=0, pairs=0)
        pairs = self.pairs_per_step
        text = self.mean_text * pairs
        # Official rows predict the first token of a pair, too, from the padding before it.
        first = 0 if self.settings.data.layout == RowLayout.REFERENCE else pairs
        clips = self.rows * self.clips_per_row
        return self._work(clips=clips, text=text, targets=text - first, pairs=pairs)

    def padded_work(self) -> StepWork:
        """Return the work of the whole shapes; a row of several pairs attends over all of it."""
        clips = self.rows * self.clip_places
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


def plan_request(
    settings: StageSettings,
    *,
    text_length: int | None,
    mean_text: float | None,
    pairs_per_row: float | None,
    pairs: float | None,
    clips_per_row: float | None = None,
) -> PlanRequest:
    """Return the request, with what is not given taken from the original's logs and Open-ASQA.

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
        return PlanRequest(
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
    report = _modelled_rows(settings, mean=mean)
    several = pairs_per_row or report.pairs / report.rows
    longest = text_length or longest_text(settings)
    text, typical = math.ceil(mean * several), longest
    if not text_length and settings.data.group_by_length and not data_config(settings).one_length:
        # The mean width of batches of like length: as much above the rows' as they are padded.
        typical = min(longest, math.ceil(mean * several / (1 - report.padding)))
    if text > typical:
        raise UserError(
            f"rows of {typical} text tokens cannot hold {several:g} pairs of {mean} tokens in the "
            f"mean, which are {text}; give --text-length, --pairs-per-row or --mean-text"
        )
    return PlanRequest(
        settings=settings,
        text_length=typical,
        longest=longest,
        mean_text=mean,
        pairs_per_row=several,
        clips_per_row=clips_per_row or min(report.clips_per_row, several),
        pairs=pairs or _pairs_of_stage(settings, pairs_per_row=several),
    )


@functools.lru_cache(maxsize=32)
def _modelled_pairs(
    tasks: tuple[str, ...], datasets: tuple[str, ...], mean: float, cutoff: int
) -> tuple[Any, Any]:
    sizes = dict(mean=mean, cutoff=cutoff, share=_SHARE)
    try:
        return open_asqa_model.corpus(tasks=tasks, datasets=datasets, **sizes)
    except UserError:  # of data that are not Open-ASQA nothing is known: as if they were
        return open_asqa_model.corpus(tasks=("all",), datasets=("all",), **sizes)


@functools.lru_cache(maxsize=128)
def _row_report(config: DataConfig, mean: float) -> RowReport:
    pairs = _modelled_pairs(config.tasks, config.datasets, mean, config.cutoff)
    return open_asqa_model.rows(config, *pairs)


def _modelled_rows(settings: StageSettings, *, mean: float) -> RowReport:
    """Lay the pairs of a small Open-ASQA into rows of these settings and count them."""
    return _row_report(data_config(settings, records=""), mean)


def _pairs_of_stage(settings: StageSettings, *, pairs_per_row: float) -> float:
    """Return the pairs of all epochs: as many as the steps take, or those of Open-ASQA."""
    data = settings.data
    if settings.steps:
        return settings.steps * data.rows_per_batch * pairs_per_row
    try:
        if data.weights:
            raise UserError(f"data.weights is {data.weights!r}")
        return open_asqa_counts.pairs(tasks=data.tasks, datasets=data.datasets) * data.epochs
    except UserError as error:
        raise UserError(
            "how many pairs the stage has is not known here: give --pairs, those of all epochs "
            f"together ({error})"
        ) from error
