"""Which questions go into which stage: the table that the stage configs read.

The poster trains stages 1 and 2 on classification (closed-ended) questions, so that the answer
cannot be guessed from the language model's habits, and stage 3 on everything. The ablation mixtures
are the poster's rows "trained on audio only" and "trained on speech only".
"""

import dataclasses
import fnmatch
from collections.abc import Sequence

import numpy as np

from data_pipelines.records import Entry
from ltu_jax.core.errors import UserError

CLOSED, OPEN = "closed", "open"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """A choice of pairs.

    `tasks` holds "closed", "open" or shell patterns of task names; `datasets` shell patterns of
    dataset names. A pair is taken when it matches one of each.
    """

    tasks: tuple[str, ...]
    datasets: tuple[str, ...] = ("*",)


# Datasets of Open-ASQA as the poster groups them (facts: Open-ASQA); the mini corpus names its own
# by kind.
AUDIO_DATASETS = (
    "as_strong*", "audioset*", "vggsound*", "fsd50k*", "audiocaps*", "freesound*", "clotho*",
    "sound_bible*",
    "mini_sound*", "mini_music*",
)  # fmt: skip
SPEECH_DATASETS = ("iemocap*", "libritts*", "voxceleb*", "mosei*", "mini_speech*")

MIXTURES = {
    "closed": Mixture(tasks=(CLOSED,)),
    "open": Mixture(tasks=(OPEN,)),
    "all": Mixture(tasks=("*",)),
    "audio_only": Mixture(tasks=("*",), datasets=AUDIO_DATASETS),
    "speech_only": Mixture(tasks=("*",), datasets=SPEECH_DATASETS),
}

STAGES = {1: "closed", 2: "closed", 3: "all"}


def mixture(name: str) -> Mixture:
    """The mixture called `name`; `UserError` naming the known ones."""
    if name not in MIXTURES:
        raise UserError(f"mixture {name!r} is unknown; known are {', '.join(MIXTURES)}")
    return MIXTURES[name]


def for_stage(stage: int) -> Mixture:
    """What curriculum stage 1, 2 or 3 is trained on (poster)."""
    if stage not in STAGES:
        raise UserError(
            f"stage {stage!r} is unknown; the curriculum has {', '.join(map(str, STAGES))}"
        )
    return MIXTURES[STAGES[stage]]


def takes_task(tasks: Sequence[str], *, task: str, closed_ended: bool) -> bool:
    """Whether a pair of this task is chosen by `Mixture.tasks`."""
    kind = CLOSED if closed_ended else OPEN
    return any(
        wanted == kind if wanted in (CLOSED, OPEN) else fnmatch.fnmatchcase(task, wanted)
        for wanted in tasks
    )


def takes_dataset(datasets: Sequence[str], *, dataset: str) -> bool:
    """Whether a clip of this dataset is chosen by `Mixture.datasets`, in upper or lower case."""
    return any(fnmatch.fnmatchcase(dataset.lower(), wanted.lower()) for wanted in datasets)


def choose(
    entries: Sequence[Entry], *, tasks: Sequence[str] | None, datasets: Sequence[str], where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs that a mixture takes.

    Args:
        entries: records, as their index has them.
        tasks: see `Mixture`; None takes every tagged clip instead, as one pair.
        datasets: see `Mixture`.
        where: name of the records in a message.

    Returns:
        int64 [P] each: the record of each pair, its number within the record, and its number among
        the pairs of all records.

    Raises:
        UserError: nothing is taken; the message names what is there.
    """
    taken: list[tuple[int, int, int]] = []
    before = 0
    for number, entry in enumerate(entries):
        if takes_dataset(datasets, dataset=entry.dataset):
            if tasks is None:
                taken += [(number, 0, before)] if entry.tags else []
            else:
                taken += [
                    (number, place, before + place)
                    for place, (task, closed_ended, _) in enumerate(entry.pairs)
                    if takes_task(tasks, task=task, closed_ended=closed_ended)
                ]
        before += len(entry.pairs)
    if not taken:
        found = sorted({pair[0] for entry in entries for pair in entry.pairs})
        there = sorted({entry.dataset for entry in entries})
        raise UserError(
            f"no {'tagged clip' if tasks is None else 'pair'} of {where} is taken by tasks {tasks} "
            f"and datasets {datasets}; tasks there: {', '.join(found) or 'none'}; datasets there: "
            f"{', '.join(there)}"
        )
    records, pairs, numbers = np.asarray(taken, np.int64).T
    return records, pairs, numbers
