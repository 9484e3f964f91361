"""VoxCeleb2: speech of celebrities from YouTube (Chung et al. 2018), asked for gender and age.

Published layout; audio that was converted to wav or flac may lie in `test/wav` as well.

    vox2_meta.csv       VoxCeleb2 ID, VGGFace2 ID, Gender, Set, set apart by tabs or commas
    test/aac/id00017/01dfn2spqyE/00001.m4a

Ages are another publication's (Hechmi et al. 2021, hechmik/voxceleb_enrichment_age_gender): from
its `dataset` folder put `final_dataframe_extended.csv`, or `age-train.txt` and `age-test.txt`, next
to `vox2_meta.csv`. An age is the year that a video's title and description name, less the year of
birth; most videos have none. Without these files there is no age row.

Splits:
    test: VoxCeleb2's own test set: 118 speakers, ages where known.
    age_test: ages only, of the 1,127 videos of `age-test.txt`, the test list of the paper that has
        the 9.4 years of LTU-AS's "best supervised". Only 22 of its speakers are in `test`, the
        others in `dev`. LTU-AS's own list is not published.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from data_pipelines.metadata.speech_tables import GENDERS, voxceleb2_ages, voxceleb2_speakers
from data_pipelines.metadata.table_files import (
    check_split,
    find,
    visible,
)
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item

SPLITS = ("test", "age_test")

_AGE_TEST = "age-test.txt"
_AGE_TABLES = ("final_dataframe_extended.csv", "age-train.txt", _AGE_TEST)
# Listed as test speakers; the published archives have no audio of them.
_NEVER_RELEASED = {"id04170", "id05348"}
_SUFFIXES = (".wav", ".flac", ".m4a")  # a converted copy before its original
_EXPECTED = "the folder of VoxCeleb2, with vox2_meta.csv, test/ and, for split age_test, dev/"

_Speakers = Mapping[str, tuple[str, str]]  # speaker -> (gender, "dev" or "test")
_Video = tuple[str, str]  # speaker, video
_Utterance = tuple[str, str, str]  # speaker, video, number


def read(data: Path, *, split: str) -> Corpus:
    """Read every utterance of the split, by speaker, video and number; the cluster is the speaker.

    Raises:
        UserError: unknown split; a table or the audio folder is missing; a table's row is broken
            or contradicts another; a speaker or video of the split has no audio.
    """
    check_split(split, SPLITS, dataset="VoxCeleb2")
    meta = find(data, ("vox2_meta.csv", "meta/vox2_meta.csv"), expected=_EXPECTED)
    speakers = voxceleb2_speakers(meta)
    choose = _test if split == "test" else _age_test
    ages, files = choose(data, meta, speakers)
    items, clips = [], {}
    for (speaker, video, number), file in files.items():
        clip_id, gender = f"{speaker}/{video}/{number}", speakers[speaker][0]
        clips[clip_id] = AudioClip(clip_id=clip_id, audio=file, cluster=speaker)
        if split == "test":
            items.append(
                Item(
                    item_id=f"{clip_id}-gender",
                    clip_id=clip_id,
                    row="voxceleb2_gender",
                    references=(gender,),
                    choices=tuple(GENDERS.values()),
                )
            )
        if (speaker, video) in ages:
            items.append(
                Item(
                    item_id=f"{clip_id}-age",
                    clip_id=clip_id,
                    row="voxceleb2_age",
                    references=(ages[speaker, video],),
                    groups={"gender": gender},
                )
            )
    return Corpus(items=tuple(items), clips=clips)


def _test(
    data: Path, meta: Path, speakers: _Speakers
) -> tuple[dict[_Video, str], dict[_Utterance, Path]]:
    tables = [meta.parent / name for name in _AGE_TABLES if (meta.parent / name).exists()]
    listed = [name for name, (_, part) in speakers.items() if part == "test"]
    files = _files(_roots(data, ("test",)), listed)
    absent = set(listed) - {speaker for speaker, _, _ in files} - _NEVER_RELEASED
    if absent:
        raise UserError(
            f"{data} has no audio of speakers {shorten(absent)}, which {meta} lists as test: "
            "unpack the test archive again"
        )
    ages = voxceleb2_ages(tables, speakers)
    _need_audio({video for video in ages if speakers[video[0]][1] == "test"}, files, data)
    return ages, files


def _age_test(
    data: Path, meta: Path, speakers: _Speakers
) -> tuple[dict[_Video, str], dict[_Utterance, Path]]:
    ages = voxceleb2_ages([meta.parent / _AGE_TEST], speakers)
    files = _files(_roots(data, ("test", "dev")), sorted({speaker for speaker, _ in ages}))
    files = {key: file for key, file in files.items() if key[:2] in ages}
    _need_audio(set(ages), files, data)
    return ages, files


def _need_audio(videos: set[_Video], files: Mapping[_Utterance, Path], data: Path) -> None:
    absent = videos - {key[:2] for key in files}
    if absent:
        raise UserError(
            f"{data} has no audio of {shorten('/'.join(video) for video in absent)}, whose "
            "ages the tables give: unpack the archives again"
        )


def _roots(data: Path, parts: Iterable[str]) -> list[Path]:
    """Return the folders of speakers; each part in at least one of the places it may have."""
    roots = []
    for part in parts:
        places = [f"{part}/wav", f"{part}/aac", f"vox2_{part}_aac/aac"]
        find(data, places, expected=_EXPECTED)
        roots += [data / place for place in places if (data / place).exists()]
    return roots


def _files(roots: Iterable[Path], speakers: Iterable[str]) -> dict[_Utterance, Path]:
    """Return every utterance once, sorted within its speaker, from whichever folder has it."""
    files: dict[_Utterance, Path] = {}
    for speaker in speakers:
        own: dict[_Utterance, Path] = {}
        for root in roots:
            for file in _sounds(root / speaker):
                key = (speaker, file.parent.name, file.stem)
                own[key] = min(own.get(key, file), file, key=_preference)
        files |= sorted(own.items())
    return files


def _sounds(speaker: Path) -> Iterator[Path]:
    for video in visible(speaker) if speaker.is_dir() else []:
        if video.is_dir():
            yield from (file for file in visible(video) if file.suffix.lower() in _SUFFIXES)


def _preference(file: Path) -> int:
    return _SUFFIXES.index(file.suffix.lower())
