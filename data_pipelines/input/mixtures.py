"""Which questions about which datasets a stage is trained on: the tables behind two config keys.

`data.tasks` names a choice of questions. The poster trains stages 1 and 2 on classification, so
that the answer cannot be guessed from the language model's habits, and stage 3 on everything.
`data.datasets` names datasets or groups of them; a training on one group is an ablation of the
poster ("trained on audio only", "trained on speech only").
"""

import dataclasses
import fnmatch
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from data_pipelines.records.record_index import RecordIndex
from ltu_jax.core.errors import UserError

CLOSED, OPEN = "closed", "open"

# The named lists of tasks: shell patterns of task names; "closed" and "open" stand for what the
# records say of a pair. Classification is closed-ended without captions, without the order of
# events and without spoken text: the 13 tasks of the official openasqa_classification, and tasks
# of the mini corpus or your own that are named like them.
TASKS = {
    "classification": (
        "cla_label", "cla_label_des", "gender_cla", "gender_emotion_cla", "age_cla", "pitch_cla",
        "speed_cla", "energy_cla", "emotion_cla", "emotion_bin", "emotion_score", "emotion_detail",
        "genre_cla",
        "cla_*", "*_cla",
    ),
    "closed": (CLOSED,),
    "open": (OPEN,),
    "all": ("*",),
}  # fmt: skip

ALL = "all"  # the name of every dataset there is

# Shell patterns of dataset names, in lower case, as the poster groups the datasets of Open-ASQA.
# The names are those of the released JSON files (openasqa/utils of the official repository): there
# "audioset" alone is the joint part, with questions about speech in its surroundings, and the
# audio part of AudioSet is as_20k, as_2m and as_strong. FMA counts as joint. The mini corpus names
# its own by kind; its music has no lyrics and is audio. "real" are recordings of packages.
GROUPS = {
    "audio": (
        "as_*", "audioset_*", "vggsound*", "fsd50k*", "audiocaps*", "audio_caps*", "freesound*",
        "clotho*", "sound_bible*", "soundbible*",
        "mini_sound", "mini_real_sound", "mini_music", "real_sounds", "real", "real_windows*",
    ),
    "speech": (
        "iemocap*", "libritts*", "voxceleb*", "mosei*",
        "mini_speech", "mini_unseen_voice", "real_speech", "real_voices*",
    ),
    "joint": ("audioset", "fma*", "mini_joint", "real_joint*"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count:
    """How many clips, and pairs about them (none where clips are only tagged)."""

    clips: int
    pairs: int

    def __str__(self) -> str:
        return f"{self.clips} clips" + (f" {self.pairs} pairs" if self.pairs else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """What a pipeline takes of its records, by dataset; `str` is the line that training prints.

    Attributes:
        taken: clips and pairs that are taken.
        left_out: datasets of which nothing is taken, with all their clips and pairs.
    """

    taken: Mapping[str, Count]
    left_out: Mapping[str, Count]

    def __str__(self) -> str:
        parts = [
            f"{verb} {', '.join(f'{name} {count}' for name, count in counts.items())}"
            for verb, counts in (("trained on", self.taken), ("left out", self.left_out))
            if counts
        ]
        return "; ".join(parts)


def check_tasks(names: Sequence[str], *, there: Collection[str], where: str) -> None:
    """Require that `data.tasks` names lists of `TASKS`, or tasks that are there.

    Args:
        names: lists, names of tasks, shell patterns of them, in upper or lower case.
        there: tasks of the records, all splits together.
        where: name of the records in a message.

    Raises:
        UserError: no name, or one that is no list and matches no task there.
    """
    known = f"lists are {', '.join(TASKS)}; tasks of {where}: {_listed(there)}"
    if not names:
        raise UserError(f"data.tasks is (); use ('all',), or name lists or tasks; {known}")
    for name in names:
        if name not in TASKS and not any(_matches(task, (name,)) for task in there):
            raise UserError(f"data.tasks: {name!r} is no list and no task there; {known}")


def takes_task(names: Sequence[str], *, task: str, closed_ended: bool) -> bool:
    """Return whether `names`, lists of `TASKS` or patterns of task names, take a pair."""
    kind = CLOSED if closed_ended else OPEN
    patterns = [pattern for name in names for pattern in TASKS.get(name, (name,))]
    return kind in patterns or _matches(task, [p for p in patterns if p not in (CLOSED, OPEN)])


def group(dataset: str) -> str | None:
    """Return the group of `GROUPS` that a dataset belongs to, in upper or lower case."""
    return next((name for name, patterns in GROUPS.items() if _matches(dataset, patterns)), None)


def datasets(names: Sequence[str], *, there: Collection[str], where: str) -> frozenset[str]:
    """Choose the datasets that `data.datasets` names.

    Args:
        names: "all", groups, and names of datasets or shell patterns of them in upper or lower
            case; what any of them stands for is taken.
        there: datasets of the records, all splits together.
        where: name of the records in a message.

    Raises:
        UserError: no name, a name that is no group and no dataset there, or groups asked for while
            a dataset there is in no group and not named: whether it belongs to them is not known.
    """
    if not names:
        raise UserError("data.datasets is (); use ('all',), or name groups or datasets")
    known = f"groups are {', '.join((ALL, *GROUPS))}; datasets of {where}: {_listed(there)}"
    for name in names:
        if name != ALL and name not in GROUPS and not any(_matches(d, (name,)) for d in there):
            raise UserError(f"data.datasets: {name!r} is no group and no dataset there; {known}")
    groups = [name for name in names if name in GROUPS]
    taken = frozenset(
        dataset for dataset in there if any(takes_dataset(name, dataset=dataset) for name in names)
    )
    strangers = [name for name in there if group(name) is None and name not in taken]
    if groups and strangers:
        raise UserError(
            f"data.datasets asks for the group {groups[0]!r}, but {_listed(strangers)} of {where} "
            "is in no group: add it to data.datasets to train on it, name datasets instead of "
            "groups to leave it out, or give it a group in data_pipelines/input/mixtures.py"
        )
    return taken


def takes_dataset(name: str, *, dataset: str) -> bool:
    """Return whether `name`, "all", a group or a pattern, takes a dataset."""
    if name in GROUPS:
        return group(dataset) == name
    return name == ALL or _matches(dataset, (name,))


def choose(
    entries: RecordIndex, *, tasks: Sequence[str] | None, datasets: Collection[str], where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose the pairs that are trained on.

    Args:
        entries: records, as their index has them.
        tasks: see `takes_task`; None takes every tagged clip instead, as one pair.
        datasets: names of datasets, see `datasets`.
        where: name of the records in a message.

    Returns:
        int64 [P] each: the record of each pair, its number within the record, and its number among
        the pairs of all records.

    Raises:
        UserError: nothing is taken; the message names what is there.
    """
    of_dataset = np.asarray([name in datasets for name in entries.dataset_names], bool)
    of_datasets = of_dataset[entries.dataset]
    if tasks is None:
        records = np.flatnonzero(of_datasets & entries.tagged)
        pairs, numbers = np.zeros_like(records), entries.pair_begins[records]
    else:
        of_task = np.asarray(
            [
                [takes_task(tasks, task=name, closed_ended=closed) for closed in (False, True)]
                for name in entries.task_names
            ],
            bool,
        ).reshape(-1, 2)
        # Of ten million pairs each array is 80 MB, which takes longer to get than to fill.
        taken = of_task[entries.tasks, entries.closed.astype(np.int8)]
        taken &= np.repeat(of_datasets, entries.pair_counts)
        numbers = np.flatnonzero(taken)
        records = np.repeat(np.arange(len(entries)), entries.pair_counts)
        if len(numbers) < len(records):
            records = records[numbers]
        pairs = entries.pair_begins[records]
        np.subtract(numbers, pairs, out=pairs)
    if not len(records):
        raise UserError(
            f"no {'tagged clip' if tasks is None else 'pair'} of {where} is taken by tasks {tasks} "
            f"and datasets {_listed(datasets)}; tasks there: {_listed(entries.task_names)}; "
            f"datasets there: {_listed(entries.dataset_names)}"
        )
    return records, pairs, numbers


def count(entries: RecordIndex, records: np.ndarray, *, tagged: bool) -> Selection:
    """Count, by dataset, the clips and pairs that `choose` took.

    Args:
        entries: as `choose` got them.
        records: int64 [P], ascending, as it gave them.
        tagged: whether a clip was taken as one pair.
    """
    names = entries.dataset_names
    taken_clips = np.bincount(
        entries.dataset[records[np.r_[True, records[1:] != records[:-1]]]], minlength=len(names)
    )
    taken_pairs = np.bincount(entries.dataset[records], minlength=len(names))
    clips = np.bincount(entries.dataset, minlength=len(names))
    pairs = np.bincount(entries.dataset, weights=entries.pair_counts, minlength=len(names))

    def counts(chosen: np.ndarray, of_clips: np.ndarray, of_pairs: np.ndarray) -> dict[str, Count]:
        return {
            names[place]: Count(
                clips=int(of_clips[place]), pairs=0 if tagged else int(of_pairs[place])
            )
            for place in sorted(np.flatnonzero(chosen), key=lambda place: names[place])
        }

    return Selection(
        taken=counts(taken_clips > 0, taken_clips, taken_pairs),
        left_out=counts((taken_clips == 0) & (clips > 0), clips, pairs),
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
