"""Which questions go into which stage: the table that the stage configs read.

The poster trains stages 1 and 2 on classification (closed-ended) questions, so that the answer
cannot be guessed from the language model's habits, and stage 3 on everything. The ablation mixtures
are the poster's rows "trained on audio only" and "trained on speech only".
"""

import dataclasses
import fnmatch
from collections.abc import Sequence

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
