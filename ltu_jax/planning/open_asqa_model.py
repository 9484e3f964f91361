"""A model of Open-ASQA where its files are not at hand: which clips have how many pairs, how long.

Clips and pairs of each dataset are the published ones (`open_asqa_counts` where they are counted
exactly, else the poster's thousands), in small. Unknown are the spread of the number of pairs of a
clip, and the distribution of lengths around their mean, which follows from the authors' logs: both
are guesses, so what is read from this model is an estimate.
"""

from collections.abc import Sequence

import numpy as np

from data_pipelines.input import mixtures
from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.row_order import OrderRule, RowOrder
from data_pipelines.input.row_report import RowReport, row_report
from ltu_jax.core.axes import Int
from ltu_jax.planning import open_asqa_counts

# Mean text tokens of a pair, after the cut, in the original training; from its logs (total_flos
# and steps x batch). The released stage 3 was cut at 160.
MEAN_TEXT = {"stage1": 74.7, "stage2": 75.7, "stage3": 78.2}
MEAN_TEXT_160 = 81.4

# Thousands of clips, captions with questions about order, open-ended pairs. Closed-ended and
# open-ended questions about speech and FMA name different datasets, so a clip is there twice.
_DATASETS = {
    "as_strong_train": (101.8, 479.4, 901), "as_20k": (18.7, 0, 184), "as_2m": (500.1, 0, 0),
    "vggsound_train": (183.7, 0, 907), "fsd50k_tr": (36.8, 0, 362), "fsd50k_val": (4.2, 0, 41),
    "audiocaps_train": (46, 97, 478), "freesound_10s": (91, 91, 791),
    "clotho_development": (4.9, 48, 89), "sound_bible": (1.2, 12, 10),
    "iemocap_tr": (4.3, 0, 0), "libritts_tr": (21.6, 0, 0), "voxceleb_tr": (107.2, 0, 0),
    "mosei_tr": (16.3, 0, 0), "mosei_dev": (1.9, 0, 0), "fma": (92.5, 0, 0),
    "IEMOCAP": (4.3, 0, 83), "libritts": (21.6, 0, 418), "voxceleb": (107.2, 0, 926),
    "mosei": (18.2, 0, 355), "audioset": (82, 0, 747), "FMA": (92.5, 0, 396),
}  # fmt: skip
_SPREAD = 0.25  # standard deviation of the pairs of a clip over their mean, where they are many
_MANY = 4
_SHAPE, _SHORTEST = 9.0, 30  # of the gamma distribution of lengths; tokens of an empty prompt


def corpus(
    *, tasks: Sequence[str], datasets: Sequence[str], mean: float, cutoff: int, share: float
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Draw the clip and the uncut tokens of each pair of a small Open-ASQA.

    Args:
        tasks: as `data.tasks` has them.
        datasets: as `data.datasets` has them.
        mean: tokens of a pair after the cut.
        cutoff: most tokens of a pair.
        share: of its clips.

    Raises:
        UserError: a name that Open-ASQA does not have, or nothing is left.
    """
    known = {name for group in open_asqa_counts.COUNTED for name in group.tasks}
    mixtures.check_tasks(tasks, there=known, where=open_asqa_counts.NAME)
    chosen = mixtures.datasets(datasets, there=tuple(_DATASETS), where=open_asqa_counts.NAME)
    rng, counts = np.random.default_rng(0), []
    for name, (thousands, captions, opened) in _DATASETS.items():
        if name not in chosen:
            continue
        clips = max(1, round(1000 * share * thousands))
        counted = sum(
            group.pairs for group in open_asqa_counts.COUNTED
            if group.datasets == (name,) and group.closed_ended and _takes(tasks, group.tasks[0])
        )  # fmt: skip
        more = captions * _takes(tasks, "caption")
        more += opened * mixtures.takes_task(
            tasks, task=open_asqa_counts.OPEN[0], closed_ended=False
        )
        drawn = _rounded(counted / 1000 / thousands, clips, rng)
        mean_more = more / thousands
        others = _rounded(mean_more, clips, rng)
        if mean_more > _MANY:
            spread = 1 + _SPREAD * rng.standard_normal(clips)
            others = np.maximum(1, np.round(others * spread)).astype(int)
        counts.append(drawn + others)
    each = np.concatenate(counts) if counts else np.zeros(0, int)
    numbers = np.repeat(np.arange(len(each)), each)
    return numbers, _lengths(len(numbers), mean=mean, cutoff=cutoff, rng=rng)


def rows(
    config: DataConfig, clips: Int[np.ndarray, " P"], whole: Int[np.ndarray, " P"]
) -> RowReport:
    """Lay given pairs into the rows of a config, by the order and packing of training."""
    order = RowOrder(
        OrderRule.from_config(config),
        records=clips,
        pairs=np.arange(len(clips)),
        tokens=np.minimum(whole, config.cutoff),
    )
    return row_report(order, config, whole=whole)


def _takes(tasks: Sequence[str], task: str) -> bool:
    return mixtures.takes_task(tasks, task=task, closed_ended=True)


def _rounded(mean: float, clips: int, rng: np.random.Generator) -> np.ndarray:
    """Draw whole numbers with this mean, each the one below or above it."""
    return (int(mean) + (rng.random(clips) < mean % 1)).astype(int)


def _lengths(count: int, *, mean: float, cutoff: int, rng: np.random.Generator) -> np.ndarray:
    """Draw uncut lengths whose mean after the cut is `mean`, as nearly as whole tokens allow."""
    drawn = rng.gamma(_SHAPE, 1 / _SHAPE, count)

    def uncut(scale: float) -> np.ndarray:
        return np.maximum(_SHORTEST, np.round(drawn * scale)).astype(int)

    low, high = 1.0, 20.0 * cutoff
    for _ in range(40):
        middle = (low + high) / 2
        short = np.minimum(uncut(middle), cutoff).mean() < mean
        low, high = (middle, high) if short else (low, middle)
    return uncut(high)
