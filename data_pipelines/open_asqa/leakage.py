"""Test clips among the clips of sources: found by the recordings that they are of, and by audio.

Which recordings are tested on is told by the sources' own metadata (the test lists published beside
the training lists, WavCaps' blacklists), by the folders of benchmarks, and by lists of a user.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from data_pipelines.metadata import fma_tables, freesound_tables, speech_tables, video_tables
from data_pipelines.metadata.table_files import RecordProblems, UnusableRecords, text_lines
from data_pipelines.open_asqa.folders import metadata_file
from data_pipelines.open_asqa.recordings import names_in
from data_pipelines.open_asqa.sources_file import GivenData
from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS
from ltu_jax.evaluation.datasets.item import AudioClip
from ltu_jax.preprocessing.names import stem_key

# Splits of benchmarks that are tested on; of others it is the first one.
TESTED = {
    "librispeech": ("test-clean", "test-other"),
    "voxceleb2": ("test", "age_test"),
    "fma": ("test-full",),
}
# Blacklists of WavCaps for tests on AudioCaps, Clotho, UrbanSound8K, ESC-50 and VGGSound. They go
# farther than these tests: Clotho's and AudioCaps' validation and VGGSound's training clips are in
# them. So they are applied to WavCaps' own sounds of Freesound alone.
BLACKLISTS = (
    "blacklist_exclude_test_ac.json", "blacklist_exclude_ub8k_esc50_vggsound.json",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutRecording:
    """A recording that must not be trained on: its shared name, and which rule names it."""

    name: str
    rule: str


# --- what is tested on ----------------------------------------------------------------------------


def held_out_recordings(given: GivenData, problems: RecordProblems) -> Iterator[HeldOutRecording]:
    """Yield the recordings that sources.toml leads to; `problems` takes rows that are broken.

    Raises:
        UserError: a file that is there cannot be read.
    """
    for name, source in given.sources.items():
        reader = _TESTED_OF_SOURCE.get(name)
        if reader is not None:
            benchmark, read = reader
            for recording in read(source.metadata, problems):
                yield HeldOutRecording(name=recording, rule=f"{benchmark}, by its list")
        for file in BLACKLISTS:
            path = metadata_file(source.metadata, file, optional=True)
            if path is not None:
                yield from _blacklisted(path)
    for name, clip in benchmark_clips(given, problems):
        for recording in _NAMES.get(name, _by_stem)(clip):
            yield HeldOutRecording(name=recording, rule=f"{name}, by its list")
    for path in given.lists:
        for _, line in text_lines(path, expected="names of recordings, one a line"):
            for recording in names_in(line):
                yield HeldOutRecording(name=recording, rule=f"{path.name}, by name")


def benchmark_clips(given: GivenData, problems: RecordProblems) -> Iterator[tuple[str, AudioClip]]:
    """Yield (benchmark, clip) of the tested splits of the benchmarks whose folders are given."""
    for name, folder in given.benchmarks.items():
        benchmark = BENCHMARKS[name]
        for split in TESTED.get(name, benchmark.splits[:1]):
            try:
                corpus = benchmark.read(folder, split=split)
            except UnusableRecords as error:
                problems.found += error.problems
                corpus = error.rest
            for clip in corpus.clips.values() if corpus is not None else ():
                yield name, clip


def _by_stem(clip: AudioClip) -> list[str]:
    return [f"name:{stem_key(clip.audio.name)}"]


# Benchmark -> the recordings of a clip, where its ids tell them.
_NAMES: Mapping[str, Callable[[AudioClip], list[str]]] = {
    "esc50": lambda clip: [f"freesound:{clip.cluster}"],
    "audiocaps": lambda clip: [f"youtube:{clip.clip_id}"],
    "librispeech": lambda clip: [f"reader:{clip.cluster}"],
    "iemocap": lambda clip: [f"iemocap:{clip.clip_id[:5]}"],
    "voxceleb2": lambda clip: [
        f"speaker:{clip.cluster}", f"youtube:{clip.clip_id.split('/')[1]}"
    ],
    "vggsound": lambda clip: [f"youtube:{clip.cluster}"],
    "fsd50k": lambda clip: [f"freesound:{clip.clip_id}"],
    "clotho": lambda clip: [f"clotho:{clip.clip_id}"],
    "fma": lambda clip: [f"fma:{int(clip.clip_id)}"],
    "mosei": lambda clip: [f"youtube:{clip.cluster}"],
}  # fmt: skip


def _blacklisted(path: Path) -> Iterator[HeldOutRecording]:
    lists = freesound_tables.wavcaps_blacklist(path)
    for number in sorted(lists.get("FreeSound", ())):
        yield HeldOutRecording(name=f"wavcaps:{number}", rule=f"{path.name}, by id")


# --- test lists that are published beside training lists ------------------------------------------


def _audiocaps(folder: Path, problems: RecordProblems) -> Iterator[str]:
    table = metadata_file(folder, "test.csv", optional=True)
    if table is not None:
        for clip in video_tables.audiocaps(table, problems=problems, captions=(5,)):
            yield f"youtube:{clip.youtube_id}"


def _vggsound(folder: Path, problems: RecordProblems) -> Iterator[str]:
    for clip in video_tables.vggsound(metadata_file(folder, "vggsound.csv"), problems=problems):
        if clip.split == "test":
            yield f"youtube:{clip.video}"


def _fsd50k(folder: Path, problems: RecordProblems) -> Iterator[str]:
    table = metadata_file(folder, "eval.csv", optional=True)
    if table is not None:
        names = freesound_tables.fsd50k_vocabulary(metadata_file(folder, "vocabulary.csv"))
        for clip in freesound_tables.fsd50k(table, names=names, problems=problems):
            yield f"freesound:{clip.name}"


def _clotho(folder: Path, problems: RecordProblems) -> Iterator[str]:
    table = metadata_file(folder, "clotho_captions_evaluation.csv", optional=True)
    about = metadata_file(folder, "clotho_metadata_evaluation.csv", optional=True)
    if table is not None:
        for clip in freesound_tables.clotho(table, problems=problems):
            yield f"clotho:{clip.file}"
    if about is not None:
        for sound in freesound_tables.clotho_metadata(about).values():
            if sound.sound_id:
                yield f"freesound:{sound.sound_id}"


def _voxceleb2(folder: Path, problems: RecordProblems) -> Iterator[str]:
    del problems
    speakers = speech_tables.voxceleb2_speakers(metadata_file(folder, "vox2_meta.csv"))
    yield from (f"speaker:{name}" for name, (_, part) in speakers.items() if part == "test")
    tested = metadata_file(folder, "age-test.txt", optional=True)
    if tested is not None:
        ages = speech_tables.voxceleb2_ages([tested], speakers)
        yield from dict.fromkeys(f"speaker:{speaker}" for speaker, _ in ages)


def _readers(folder: Path, problems: RecordProblems) -> Iterator[str]:
    """Yield the readers of LibriSpeech's test parts, as LibriTTS lists them."""
    del problems
    path = metadata_file(folder, "speakers.tsv", optional=True)
    path = path or metadata_file(folder, "SPEAKERS.txt", optional=True)
    if path is None:
        return
    mark = "\t" if path.suffix == ".tsv" else "|"
    for _, line in text_lines(path, expected="LibriTTS's list of readers"):
        fields = [field.strip() for field in line.split(mark)]
        if len(fields) > 2 and fields[2].startswith("test"):
            yield f"reader:{fields[0]}"


def _iemocap(folder: Path, problems: RecordProblems) -> Iterator[str]:
    del folder, problems
    yield "iemocap:Ses05"


def _mosei(folder: Path, problems: RecordProblems) -> Iterator[str]:
    table = metadata_file(folder, "CMU_MOSEI_Labels.csv")
    for sentence in speech_tables.mosei_of_s3prl(table, emotions=False, problems=problems):
        if sentence.split == "test":
            yield f"youtube:{sentence.video}"


def _fma(folder: Path, problems: RecordProblems) -> Iterator[str]:
    del problems
    table = metadata_file(folder, "tracks.csv")
    for _, track, (split,) in fma_tables.tracks(table, columns=(("set", "split"),)):
        if split == "test":
            yield f"fma:{track}"


# Source -> the benchmark whose test list its metadata has, and how it is read.
_TESTED_OF_SOURCE: Mapping[
    str, tuple[str, Callable[[Path, RecordProblems], Iterable[str]]]
] = {
    "audiocaps": ("audiocaps", _audiocaps), "vggsound": ("vggsound", _vggsound),
    "fsd50k": ("fsd50k", _fsd50k), "clotho": ("clotho", _clotho),
    "voxceleb2": ("voxceleb2", _voxceleb2), "libritts": ("librispeech", _readers),
    "iemocap": ("iemocap", _iemocap), "mosei": ("mosei", _mosei), "fma": ("fma", _fma),
}  # fmt: skip
