"""What is published of Open-ASQA's size: rows of the poster, and counts that the authors' scripts
print.

The printed counts by task and dataset are those of `planning.open_asqa_counts`.
"""

import dataclasses
from collections.abc import Mapping

from data_pipelines.open_asqa.registry import SOURCES, STYLE
from ltu_jax.planning.open_asqa_counts import COUNTED


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosterRow:
    """A row of the poster's table: clips, closed-ended and open-ended pairs, as it rounds them.

    Attributes:
        clips, closed, open: counts.
        unit: to which they are rounded.
    """

    clips: int
    closed: int
    open: int
    unit: int = 1_000


POSTER: Mapping[str, PosterRow] = {
    "as_strong": PosterRow(clips=102_000, closed=683_000, open=901_000),
    "audioset": PosterRow(clips=500_000, closed=538_000, open=184_000),
    "vggsound": PosterRow(clips=184_000, closed=367_000, open=907_000),
    "fsd50k": PosterRow(clips=41_000, closed=82_000, open=403_000),
    "audiocaps": PosterRow(clips=46_000, closed=97_000, open=478_000),
    "freesound": PosterRow(clips=91_000, closed=91_000, open=791_000),
    "clotho": PosterRow(clips=5_000, closed=48_000, open=89_000),
    "soundbible": PosterRow(clips=1_200, closed=12_000, open=10_000),
    "iemocap": PosterRow(clips=4_300, closed=26_000, open=83_000),
    "libritts": PosterRow(clips=22_000, closed=167_000, open=418_000),
    "voxceleb2": PosterRow(clips=107_000, closed=194_000, open=926_000),
    "mosei": PosterRow(clips=18_000, closed=554_000, open=355_000),
    "joint_audioset": PosterRow(clips=82_000, closed=0, open=747_000),
    "fma": PosterRow(clips=93_000, closed=93_000, open=396_000),
}
SPEECH = ("iemocap", "libritts", "voxceleb2", "mosei")
SPEECH_CLOSED, CLASSIFICATION = 940_760, 2_072_481


def printed(source: str) -> dict[str, int]:
    """Return task -> rows that the authors' scripts print, of tasks that are counted apart."""
    datasets = SOURCES[source].datasets[0].split(", ")
    counts: dict[str, int] = {}
    for group in COUNTED:
        alone = group.closed_ended and len(group.tasks) == len(group.datasets) == 1
        if alone and group.datasets[0] in datasets:
            counts[group.tasks[0]] = counts.get(group.tasks[0], 0) + group.pairs
    return counts


def whole(source: str) -> bool:
    """Tell whether all closed-ended tasks of a source are counted apart."""
    return set(SOURCES[source].tasks) <= set(printed(source))


def disagreements() -> list[str]:
    """Say where the poster's closed-ended rows are not what the authors' scripts print."""
    found = []
    for source, row in POSTER.items():
        total = sum(printed(source).values())
        if whole(source) and abs(total - row.closed) >= row.unit:
            found.append(
                f"{source}: the poster has {row.closed:,} closed-ended rows, the authors' scripts "
                f"print {total:,}"
            )
    return found


# (source, task) -> why our rules give another count than is printed; "*" for all other tasks.
_REASONS: Mapping[tuple[str, str], str] = {
    ("as_strong", "*"): "all segments published, less videos of tests; the authors had 101,791",
    ("audioset", "cla_label"): "all balanced segments published, less videos of tests; the "
    "authors had 18,691",
    ("audioset", "cla_label_des"): "which 500,139 unbalanced segments were taken is not published",
    ("vggsound", "*"): "the training part as published, less videos of tests",
    ("fsd50k", "*"): "the dev part as published, less sounds of tests",
    ("libritts", "*"): "which 21,598 utterances were taken is not published",
    ("voxceleb2", "*"): "without the speakers of age-test.txt; those that the authors left out are "
    "not published",
    ("mosei", "gender_cla"): "CMU-MOSEI tells no gender: `style` adds it by the voice",
    ("mosei", "*"): "sentences that end before they begin are left out",
    ("fma", "*"): "training and validation with a genre; damaged files are known with the audio",
}


def reason(source: str, task: str, *, ours: int) -> str:
    """Return why a count differs; "" where no reason is known."""
    if task in STYLE and ours == 0:
        return "`style` was not run"
    if task == "cla_label_des" and ours == 0:
        return "no class has a description"
    if task == "ASR" and ours == 0:
        return "`transcribe` was not run"
    return _REASONS.get((source, task)) or _REASONS.get((source, "*"), "")
