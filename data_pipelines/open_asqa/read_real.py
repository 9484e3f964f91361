"""Clips of the real recordings of pinned packages: sounds and music, people who speak, windows.

The first two readers take the folder that `python -m data_pipelines.real.fetch_recordings` made. A
recording that a clip of the other side of the split is cut from, too, is left out. The third takes
a folder of rendered windows, with sounds and voices together.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from data_pipelines.metadata.table_files import RecordProblems
from data_pipelines.open_asqa.folders import metadata_file
from data_pipelines.open_asqa.source_clip import SourceClip
from data_pipelines.open_asqa.window_questions import EMPTY
from data_pipelines.real import recording_table, window_manifest
from data_pipelines.real.recording_table import SPEECH, TABLE, TWIN, Recording
from data_pipelines.real.window_manifest import SILENCE, WINDOWS_FILE

HEARD = 10.0  # seconds that the model hears
MOST_PARTS = 3  # of a long recording
_WINDOWS, _JOINT, _VOICES = "real_windows", "real_joint", "real_voices"
NOT_SHIPPED = "_other"  # ends the datasets of windows that weights to give away cannot rest on
WINDOW_DATASETS = ", ".join(
    f"{name}{end}" for name in (_WINDOWS, _JOINT, _VOICES) for end in ("", NOT_SHIPPED)
)


def real(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield sounds and music; of long recordings up to three parts, evenly spread."""
    for one in _recordings(folder, problems):
        if one.label == SPEECH or not one.trusted:
            continue
        parts = min(MOST_PARTS, max(1, int(one.seconds // HEARD)))
        for part in range(parts):
            yield _clip(one, part=part if parts > 1 else None, parts=parts)


def real_speech(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield words, letters and sentences that people speak."""
    for one in _recordings(folder, problems):
        if one.label == SPEECH:
            yield SourceClip(
                source="real_speech",
                clip_id=one.clip,
                dataset="real_speech",
                split=one.split,
                recordings=(_recording_name(one),),
                files=(one.clip,),
                where=one.where,
                licence=one.licence,
                gold_text=one.text,
                gender=one.gender,
            )


def real_windows(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield windows of recordings and voices, of which everything that is heard is known."""
    path = metadata_file(folder, WINDOWS_FILE)
    for where, line in window_manifest.read_windows(path, problems):
        said = line.speech
        heard = (EMPTY[line.kind],) if line.kind in EMPTY else line.classes
        if said is not None and line.kind == SILENCE:
            heard = ()  # a voice is no silence
        dataset = _WINDOWS if said is None else _JOINT if heard else _VOICES
        spoken = {}
        if said is not None:
            spoken = {
                "gold_text": said.text,
                "gender": said.gender,
                "f0_hz": said.f0_hz,
                "speech_seconds": said.speech_seconds,
            }
        yield SourceClip(
            source="real_windows",
            clip_id=line.window_id,
            dataset=dataset if line.ships else f"{dataset}{NOT_SHIPPED}",
            split=line.split,
            recordings=tuple(map(_cluster_name, line.clusters)),
            files=(str(PurePosixPath(line.file).with_suffix("")),),
            where=where,
            licence=" and ".join(line.licences),
            labels=heard if said is None else (*heard, SPEECH),
            window_kind=line.kind,
            absent=line.absent,
            **spoken,
        )


def _recordings(folder: Path, problems: RecordProblems) -> Iterator[Recording]:
    table = metadata_file(folder, TABLE)
    # Presets are no recordings of their own, and a twin is on the other side already.
    return (
        one
        for one in recording_table.read_recordings(table, problems)
        if not one.preset and one.split != TWIN
    )


def _clip(one: Recording, *, part: int | None, parts: int) -> SourceClip:
    """Return a recording, or a part of it of as long as the model hears."""
    start = None if part is None else round((one.seconds - HEARD) * part / (parts - 1), 2)
    name = one.clip if part is None else f"{one.clip}_part{part}"
    return SourceClip(
        source="real",
        clip_id=name,
        dataset="real_sounds",
        split=one.split,
        recordings=(_recording_name(one),),
        files=(one.clip,) if part is None else (name, one.clip),
        start=start,
        end=None if start is None else round(start + HEARD, 2),
        where=one.where,
        licence=one.licence,
        labels=(one.label,),
        tags=(one.fine,) if one.fine != one.label else (),
    )


def _recording_name(one: Recording) -> str:
    return _cluster_name(one.cluster)


def _cluster_name(cluster: str) -> str:
    return f"real:{cluster}"
