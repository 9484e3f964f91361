"""Soft labels: what a teacher hears in the clips of a split, beside the labels that people gave.

The target of a label is the higher of 1, where the clip has it, and the teacher's score times a
weight: what a person heard is never doubted, and what nobody wrote down is learnt as far as the
teacher is sure of it. The loss is the same binary cross-entropy.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.input import mixtures
from data_pipelines.input.data_config import PipelineSettings
from data_pipelines.real import teacher_scores
from data_pipelines.records.record_files import RecordStore
from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.paths import as_path


class SoftLabels:
    """The scores of a teacher, times their weight."""

    def __init__(self, scores: Mapping[str, Float[np.ndarray, "N"]], *, weight: float):
        """Take scores from 0 to 1 by clip; it is pickled into the processes that make rows."""
        self._scores, self._weight = dict(scores), np.float32(weight)

    def beside(self, clip_id: str, marked: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
        """Return the targets of a clip whose own labels are `marked` by 1."""
        return np.maximum(marked, self._weight * self._scores[clip_id])


def of_split(
    store: RecordStore, config: PipelineSettings, *, labels: Sequence[str]
) -> SoftLabels | None:
    """Read what the teacher of a config hears in the tagged clips of a split; None without one.

    Args:
        store: the records of the split.
        config: names the file of scores, their weight, and the datasets that are learnt from.
        labels: in the order of the targets; the teacher says nothing of those it does not know.

    Raises:
        UserError: no such file, or it lacks clips; it scores none of the labels.
    """
    if not config.teacher:
        return None
    path, weight = as_path(config.teacher), config.teacher_weight
    if not path.is_file():
        raise UserError(
            f"config.data.teacher: there is no file {path}: make it with "
            f"{teacher_scores.MAKER.name}, or set data.teacher to '' for hard labels alone"
        )
    if not 0 <= weight <= 1:
        raise UserError(f"config.data.teacher_weight is {weight}; use a number from 0 to 1")
    there = {name for split in store.manifest["splits"].values() for name in split["datasets"]}
    taken = mixtures.datasets(config.datasets, there=there, where=config.records)
    records, _, _ = mixtures.choose(store.entries, tasks=None, datasets=taken, where=config.records)
    wanted = [store.entries[number].clip_id for number in records.tolist()]
    scores = teacher_scores.read_scores(path)
    if missing := [clip for clip in wanted if clip not in scores]:
        raise UserError(
            f"config.data.teacher: {path} has no scores of {len(missing)} of {len(wanted)} clips "
            f"({shorten(missing, most=3)}): score the audio that the records were made of, with "
            f"{teacher_scores.MAKER.name}"
        )
    heard = {clip: teacher_scores.soft_labels(scores[clip], labels) for clip in wanted}
    if not any(row.any() for row in heard.values()):
        raise UserError(
            f"config.data.teacher: {path} scores none of the labels ({shorten(labels, most=3)}): "
            "the labels of the records must have the teacher's names"
        )
    return SoftLabels(heard, weight=weight)
