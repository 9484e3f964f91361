"""How many pairs Open-ASQA has of each task and dataset, for plans and models of it.

Classification and spoken text are counted exactly by task and dataset: each count is clips times
questions, and their sums are those that the official scripts print (2,072,481 pairs of
classification, 2,951,180 closed-ended ones, 9,641,740 in all). Of captions, order of events and
open-ended questions only the sum over several datasets is known exactly.
"""

import dataclasses
from collections.abc import Sequence

from data_pipelines.input import mixtures
from ltu_jax.core.errors import UserError

NAME = "Open-ASQA"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """Pairs of some tasks about some datasets, counted together."""

    tasks: tuple[str, ...]
    datasets: tuple[str, ...]
    closed_ended: bool
    pairs: int


_TAGGED = {
    "as_strong_train": 101_791, "vggsound_train": 183_727, "fsd50k_tr": 36_796,
    "fsd50k_val": 4_170, "as_20k": 18_691,
}  # fmt: skip
_MOSEI = {"mosei_tr": 16_327, "mosei_dev": 1_871}
_SPOKEN = {"iemocap_tr": 4_290, "libritts_tr": 21_598, "voxceleb_tr": 107_208, **_MOSEI}
_BY_DATASET = {
    "cla_label": _TAGGED,
    "cla_label_des": {**_TAGGED, "as_2m": 500_139},
    "gender_cla": {**_SPOKEN, "iemocap_tr": 3_445},
    "gender_emotion_cla": {"iemocap_tr": 845},
    "age_cla": {"voxceleb_tr": 107_208},
    "pitch_cla": _SPOKEN,
    "speed_cla": _SPOKEN,
    "energy_cla": _SPOKEN,
    "emotion_cla": {"iemocap_tr": 4_290, **_MOSEI},
    "emotion_bin": _MOSEI,
    "emotion_score": _MOSEI,
    "emotion_detail": _MOSEI,
    "genre_cla": {"fma": 92_526},
    "ASR": _SPOKEN,
}
OPEN = ("open-ended question",)
_CAPTIONED = (
    "as_strong_train", "audiocaps_train", "freesound_10s", "clotho_development", "sound_bible",
)  # fmt: skip

COUNTED = (
    *(
        Counted(tasks=(task,), datasets=(dataset,), closed_ended=True, pairs=pairs)
        for task, counts in _BY_DATASET.items()
        for dataset, pairs in counts.items()
    ),
    Counted(
        tasks=("caption", "temporal", "temporal_single", "temporal_order"),
        datasets=_CAPTIONED,
        closed_ended=True,
        pairs=727_405,
    ),
    Counted(
        tasks=OPEN,
        datasets=(*_CAPTIONED, "as_20k", "vggsound_train", "fsd50k_tr", "fsd50k_val"),
        closed_ended=False,
        pairs=3_763_814,
    ),
    Counted(
        tasks=OPEN,
        datasets=("IEMOCAP", "libritts", "voxceleb", "mosei"),
        closed_ended=False,
        pairs=1_784_049,
    ),
    Counted(tasks=OPEN, datasets=("audioset",), closed_ended=False, pairs=746_947),
    Counted(tasks=OPEN, datasets=("FMA",), closed_ended=False, pairs=395_750),
)


def pairs(*, tasks: Sequence[str], datasets: Sequence[str]) -> int:
    """Count the pairs of Open-ASQA that a training takes in one epoch.

    Args:
        tasks: as `data.tasks` has them.
        datasets: as `data.datasets` has them.

    Raises:
        UserError: a name that Open-ASQA does not have, or a choice that was not counted apart.
    """
    there = {name for group in COUNTED for name in group.tasks}
    mixtures.check_tasks(tasks, there=there, where=NAME)
    there = {name for group in COUNTED for name in group.datasets}
    chosen = mixtures.datasets(datasets, there=there, where=NAME)
    total = 0
    for group in COUNTED:
        taken = [
            mixtures.takes_task(tasks, task=task, closed_ended=group.closed_ended)
            and dataset in chosen
            for task in group.tasks
            for dataset in group.datasets
        ]
        if any(taken) and not all(taken):
            raise UserError(
                f"of {NAME} {group.pairs:,} pairs of {', '.join(group.tasks)} about "
                f"{', '.join(group.datasets)} are counted together, and only some are asked for"
            )
        total += group.pairs if all(taken) else 0
    return total
