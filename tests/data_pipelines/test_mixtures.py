"""The tables of what is trained on: questions by task, clips by dataset."""

import fnmatch

import pytest

from data_pipelines.input import mixtures
from data_pipelines.input.mixtures import Count
from data_pipelines.mini import clip_facts
from data_pipelines.mini.closed_questions import closed_pairs
from data_pipelines.records.record_index import IndexEntry, of_entries
from ltu_jax.core.errors import UserError
from ltu_jax.planning import open_asqa_counts

# Names in the released JSON files of Open-ASQA, and of the mini corpus, by hand.
AUDIO = {
    "as_20k", "as_2m", "as_strong_train", "vggsound_train", "fsd50k_tr", "fsd50k_val",
    "audiocaps_train", "freesound_10s", "clotho_development", "sound_bible",
    "mini_sound", "mini_real_sound", "mini_music", "real_sounds", "real",
}  # fmt: skip
SPEECH = {
    "iemocap_tr", "IEMOCAP", "libritts_tr", "libritts", "voxceleb_tr", "voxceleb", "mosei_tr",
    "mosei_dev", "mosei",
    "mini_speech", "mini_unseen_voice", "real_speech",
}  # fmt: skip
JOINT = {"audioset", "fma", "FMA", "mini_joint"}
EVERYTHING = AUDIO | SPEECH | JOINT


def entry(dataset: str, *tasks: str, tags: tuple[str, ...] = ()) -> IndexEntry:
    return IndexEntry(
        shard="s", number=0, offset=0, length=0, crc32=0, clip_id="c", dataset=dataset,
        seconds=1.0, tags=tags, pairs=tuple((task, task[:4] != "open", 1) for task in tasks),
    )  # fmt: skip


# Tasks of the official scripts and of the mini corpus, by hand.
CLASSIFICATION = {
    "cla_label", "cla_label_des", "gender_cla", "gender_emotion_cla", "age_cla", "pitch_cla",
    "speed_cla", "energy_cla", "emotion_cla", "emotion_bin", "emotion_score", "emotion_detail",
    "genre_cla",
}  # fmt: skip
OTHER_CLOSED = {"caption", "temporal", "temporal_single", "temporal_order", "ASR"}
OPEN = {"open-ended question"}


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("classification",), CLASSIFICATION),
        (("closed",), CLASSIFICATION | OTHER_CLOSED),
        (("open",), OPEN),
        (("all",), CLASSIFICATION | OTHER_CLOSED | OPEN),
        (("classification", "asr"), CLASSIFICATION | {"ASR"}),
        (("temporal*", "age_cla", "open"), {t for t in OTHER_CLOSED if "temp" in t} | OPEN
         | {"age_cla"}),
    ],
)  # fmt: skip
def test_lists_names_and_patterns_of_tasks(names, taken):
    there = CLASSIFICATION | OTHER_CLOSED | OPEN
    mixtures.check_tasks(names, there=there, where="R")
    found = {
        task for task in there
        if mixtures.takes_task(names, task=task, closed_ended=task not in OPEN)
    }  # fmt: skip
    assert found == taken


def test_a_plan_counts_what_a_run_takes():
    """The counts of the official scripts, and `choose` on records with a pair of each count."""
    everything = dict(tasks=("all",), datasets=("all",))
    assert open_asqa_counts.pairs(**everything | {"tasks": ("classification",)}) == 2_072_481
    assert open_asqa_counts.pairs(**everything | {"tasks": ("closed",)}) == 2_951_180
    assert open_asqa_counts.pairs(**everything | {"tasks": ("ASR",)}) == 151_294
    assert open_asqa_counts.pairs(**everything) == 9_641_740
    assert open_asqa_counts.pairs(**everything | {"datasets": ("audio",)}) == 5_681_708
    assert open_asqa_counts.pairs(**everything | {"datasets": ("speech",)}) == 940_760 + 1_784_049
    single = [one for one in open_asqa_counts.COUNTED if len(one.tasks) == len(one.datasets) == 1]
    records = of_entries([entry(one.datasets[0], one.tasks[0]) for one in single])
    there = records.dataset_names
    for tasks, names in (
        (("classification",), ("all",)),
        (("classification",), ("speech",)),
        (("gender*", "ASR"), ("voxceleb*", "joint")),
        (("open", "emotion_bin"), ("joint", "mosei*")),
    ):  # fmt: skip
        datasets = mixtures.datasets(names, there=there, where="R")
        taken, _, _ = mixtures.choose(records, tasks=tasks, datasets=datasets, where="R")
        run = sum(single[number].pairs for number in taken)
        together = sum(
            one.pairs for one in open_asqa_counts.COUNTED
            if one not in single and "open" in tasks and "mosei" in one.datasets
        )  # fmt: skip
        if together:
            with pytest.raises(UserError, match="1,784,049 pairs of open-ended question about"):
                open_asqa_counts.pairs(tasks=tasks, datasets=names)
        else:
            assert open_asqa_counts.pairs(tasks=tasks, datasets=names) == run


def test_the_mini_corpus_has_tasks_of_every_list():
    facts = dict(clip_id="c", sound="", group="", music="", gender="", spoken_text="", style={})
    style = {axis: ends[1] for axis, ends in clip_facts.STYLE_AXES.items()}
    kinds = [
        dict(kind="sound", sound="siren", group="device"),
        dict(kind="music", music="solo piano"),
        dict(kind="speech", gender="male", spoken_text="Yes.", style=style),
        dict(kind="joint", sound="siren", group="device", gender="male", spoken_text="Yes."),
    ]
    pairs = [p for kind in kinds for p in closed_pairs(clip_facts.Facts(**{**facts, **kind}))]
    left = {
        pair.task for pair in pairs
        if not mixtures.takes_task(("classification",), task=pair.task, closed_ended=True)
    }  # fmt: skip
    assert left == {"ASR", "ASR_background"}
    assert not any("poken text:" in pair.output for pair in pairs if pair.task not in left)
    official = {"cla_label", "genre_cla", "gender_cla", "pitch_cla", "speed_cla", "energy_cla"}
    assert official <= {pair.task for pair in pairs}


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("all",), EVERYTHING),
        (("audio",), AUDIO),
        (("speech",), SPEECH),
        (("joint",), JOINT),
        (("audio", "joint"), AUDIO | JOINT),
        (("speech", "AS_20K"), SPEECH | {"as_20k"}),
        (("mosei*",), {"mosei_tr", "mosei_dev", "mosei"}),
    ],
)
def test_groups_and_names_of_datasets(names, taken):
    assert mixtures.datasets(names, there=EVERYTHING, where="R") == taken


def test_no_dataset_is_in_two_groups():
    for name in EVERYTHING:
        found = [
            group
            for group, patterns in mixtures.GROUPS.items()
            if any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)
        ]
        assert found == [mixtures.group(name)]


@pytest.mark.parametrize(
    ("names", "there", "message"),
    [
        (
            ("sounds",),
            {"as_20k", "mine"},
            "data.datasets: 'sounds' is no group and no dataset there; groups are all, audio, "
            "speech, joint; datasets of R: as_20k, mine",
        ),
        (("audio", "min"), {"as_20k", "mine"}, "'min' is no group and no dataset there"),
        (("audio",), {"as_20k", "mine"}, "group 'audio', but mine of R is in no group: add it to"),
        ((), {"as_20k"}, "data.datasets is (); use ('all',)"),
    ],
)
def test_unknown_datasets_are_refused_with_what_is_there(names, there, message):
    with pytest.raises(UserError) as error:
        mixtures.datasets(names, there=there, where="R")
    assert message in str(error.value)


def test_a_dataset_of_no_group_is_taken_by_name():
    there = {"as_20k", "mine", "yours"}
    assert mixtures.datasets(("audio", "mine", "yours"), there=there, where="R") == there
    assert mixtures.datasets(("as_20k", "mine"), there=there, where="R") == {"as_20k", "mine"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("everything",), "'everything' is no list and no task there; lists are classification,"),
        (("classification", "caption*"), "'caption*' is no list and no task there"),
        (("Closed",), "'Closed' is no list and no task there"),
        ((), "data.tasks is ()"),
    ],
)
def test_unknown_tasks_are_refused_with_what_is_there(names, message):
    with pytest.raises(UserError) as error:
        mixtures.check_tasks(names, there={"ASR", "cla_label"}, where="R")
    assert message in str(error.value) and "tasks of R: ASR, cla_label" in str(error.value)


ENTRIES = of_entries(
    [
        entry("as_20k", "cla_label", "open_q", "cla_label", tags=("dog",)),
        entry("mosei", "ASR", "open_q"),
        entry("as_20k", "open_q"),
        entry("as_2m", "cla_label", tags=("cat",)),
    ]
)


def chosen(tasks, datasets):
    arrays = mixtures.choose(ENTRIES, tasks=tasks, datasets=datasets, where="R")
    return arrays[0], list(zip(*(array.tolist() for array in arrays), strict=True))


def test_pairs_are_chosen_by_question_and_dataset():
    assert chosen(("*",), {"mosei", "as_2m"})[1] == [(1, 0, 3), (1, 1, 4), (3, 0, 6)]
    assert chosen(("closed",), {"as_20k"})[1] == [(0, 0, 0), (0, 2, 2)]
    assert chosen(None, {"as_20k", "mosei", "as_2m"})[1] == [(0, 0, 0), (3, 0, 6)]


def test_what_is_chosen_is_counted_and_told():
    records, _ = chosen(("closed",), {"as_20k", "as_2m"})
    selection = mixtures.count(ENTRIES, records, tagged=False)
    assert selection.taken == {"as_20k": Count(clips=1, pairs=2), "as_2m": Count(clips=1, pairs=1)}
    assert selection.left_out == {"mosei": Count(clips=1, pairs=2)}
    assert str(selection) == (
        "trained on as_20k 1 clips 2 pairs, as_2m 1 clips 1 pairs; left out mosei 1 clips 2 pairs"
    )
    records, _ = chosen(None, {"as_20k"})
    told = str(mixtures.count(ENTRIES, records, tagged=True))
    assert told == "trained on as_20k 1 clips; left out as_2m 1 clips, mosei 1 clips"


def test_nothing_left_is_refused_with_what_is_there():
    with pytest.raises(UserError) as error:
        chosen(("cla_sound",), {"mosei"})
    assert str(error.value) == (
        "no pair of R is taken by tasks ('cla_sound',) and datasets mosei; tasks there: ASR, "
        "cla_label, open_q; datasets there: as_20k, as_2m, mosei"
    )
