"""How often an epoch has the pairs of a dataset or task: factors, instead of rows written twice.

`data.weights` holds texts DATASETS=FACTOR or DATASETS:TASKS=FACTOR. DATASETS is "all", a group or a
pattern as in `data.datasets`, TASKS a list or a pattern as in `data.tasks`; of several that fit a
pair the first counts. A pair with the factor 2 comes twice an epoch, its copies in rows apart. Of
a factor that is not whole, the rest is the share of the pairs that come once more: which ones
follows from their place among the records, the same in every epoch.
"""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from data_pipelines.input import mixtures
from data_pipelines.records.record_index import RecordIndex
from ltu_jax.core.errors import UserError

# Named weights. The official JSON files hold Clotho's captions twice and those of Sound Bible ten
# times; records that hold each of them once are balanced alike by these.
NAMED = {"poster": ("clotho*:caption=2", "sound*bible*:caption=10")}
MOST = 1000.0
_FORM = "DATASETS=FACTOR or DATASETS:TASKS=FACTOR, as clotho*:caption=2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weight:
    """The factor of the pairs of some datasets and tasks."""

    text: str
    datasets: str
    tasks: str
    factor: float
    named: bool

    def fits(self, *, dataset: str, task: str | None, closed_ended: bool = True) -> bool:
        """Tell whether it is about a pair; `task` None for a tagged clip, which has no task."""
        if not mixtures.takes_dataset(self.datasets, dataset=dataset):
            return False
        if task is None:
            return self.tasks == mixtures.ALL
        return mixtures.takes_task((self.tasks,), task=task, closed_ended=closed_ended)


def parse(texts: Sequence[str]) -> tuple[Weight, ...]:
    """Read `data.weights`.

    Raises:
        UserError: a text of another form, or a factor that is none.
    """
    weights = []
    for text in texts:
        for one in NAMED.get(text, (text,)):
            names, equals, number = one.rpartition("=")
            datasets, _, tasks = names.partition(":")
            try:
                factor = float(number)
            except ValueError:
                factor = float("nan")
            if not equals or not datasets or not 0 <= factor <= MOST:
                raise UserError(
                    f"data.weights: {text!r} is no weight; give {_FORM}, with a factor from 0 to "
                    f"{MOST:g}, or one of {', '.join(map(repr, NAMED))}"
                )
            weights.append(
                Weight(
                    text=one,
                    datasets=datasets,
                    tasks=tasks or mixtures.ALL,
                    factor=factor,
                    named=text in NAMED,
                )
            )
    return tuple(weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightedPairs:
    """Pairs as `mixtures.choose` returns them, each as often as an epoch has it.

    Attributes:
        records, pairs, numbers: int64 [P] each, ascending by record.
        clips: int64 [P], ascending: pairs of one clip. Copies of a pair are of clips apart.
    """

    records: np.ndarray
    pairs: np.ndarray
    numbers: np.ndarray
    clips: np.ndarray


def weigh(
    entries: RecordIndex,
    chosen: tuple[np.ndarray, np.ndarray, np.ndarray],
    weights: Sequence[Weight],
    *,
    there: Collection[str],
    tagged: bool,
    where: str,
) -> WeightedPairs:
    """Repeat and leave out chosen pairs by their weights.

    Args:
        entries: records, as their index has them.
        chosen: what `mixtures.choose` returned.
        weights: of `parse`.
        there: datasets of the records, all splits together.
        tagged: whether a clip was taken as one pair.
        where: name of the records in a message.

    Raises:
        UserError: a weight that is about nothing there, or nothing is left.
    """
    records, pairs, numbers = chosen
    factors = _factors(entries, weights, tagged=tagged)
    for weight in weights:
        known = any(mixtures.takes_dataset(weight.datasets, dataset=name) for name in there)
        if not known and not weight.named:
            raise UserError(
                f"data.weights: {weight.text!r} is about no dataset of {where}; there are "
                f"{', '.join(sorted(there))}"
            )
    if tagged:
        factor = factors[entries.dataset[records], 0, 1]
    else:
        kinds = entries.closed[numbers].astype(np.int8)
        factor = factors[entries.dataset[records], entries.tasks[numbers], kinds]
    counts = np.floor(factor).astype(np.int64)
    counts += _uniform(numbers) < factor - counts
    places = np.repeat(np.arange(len(counts)), counts)
    if not len(places):
        raise UserError(f"data.weights leaves no pair of {where}: raise a factor")
    copies = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    # A record's first copies, then its second ones: each a clip by itself.
    clips = records[places] * (int(counts.max()) + 1) + copies
    order = np.argsort(clips, kind="stable")
    places, clips = places[order], clips[order]
    return WeightedPairs(
        records=records[places], pairs=pairs[places], numbers=numbers[places], clips=clips
    )


def _factors(entries: RecordIndex, weights: Sequence[Weight], *, tagged: bool) -> np.ndarray:
    """Return the factor by dataset, task and whether it is closed-ended."""
    tasks = [None] if tagged else entries.task_names
    factors = np.ones((len(entries.dataset_names), max(len(tasks), 1), 2))
    for dataset, name in enumerate(entries.dataset_names):
        for task, asked in enumerate(tasks):
            for closed in (False, True):
                factors[dataset, task, int(closed)] = next(
                    (
                        weight.factor
                        for weight in weights
                        if weight.fits(dataset=name, task=asked, closed_ended=closed)
                    ),
                    1.0,
                )
    return factors


def _uniform(numbers: np.ndarray) -> np.ndarray:
    """Return a number in [0, 1) for each whole number, by Steele's splitmix64."""
    with np.errstate(over="ignore"):
        bits = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)) / 2.0**53
