"""Measure the speaking style of clips with speech: pitch, speed and volume, in classes.

    python -m data_pipelines.open_asqa style DIR --workers 8
    python -m data_pipelines.open_asqa style DIR --bounds official --guard 0

Writes style.jsonl and style_bounds.json of each source with speech, and its closed-ended questions
anew. Speed needs words: those of the source, else those of `transcribe`. What was measured of a
file is kept, so other bounds cost seconds. docs/open_asqa_speech.md says what is measured, and how.
"""

import argparse
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.measures import clipping, voice_measures
from data_pipelines.measures.speaking_style import speaking_style
from data_pipelines.measures.voice_measures import VoiceMeasures, measure_voice
from data_pipelines.open_asqa import style_classes
from data_pipelines.open_asqa.build_folder import SPOKEN_TEXT, STYLE, BuildFolder
from data_pipelines.open_asqa.clip_journal import ClipJournal, name_of
from data_pipelines.open_asqa.closed_file import write_closed_ended
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.source_clip import SourceClip
from data_pipelines.open_asqa.style_classes import ClipVoice, StyleBounds, classify, make_bounds
from data_pipelines.open_asqa.text_tables import table
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.core.lock import RunLock
from ltu_jax.core.processes import in_processes
from ltu_jax.core.values import whole
from ltu_jax.preprocessing.audio import AudioError, load_audio

STYLE_BOUNDS = "style_bounds.json"
_JOURNAL = f"voices-{voice_measures.FORMAT}.jsonl"
_NO_AUDIO, _UNREADABLE, _NOBODY = "no audio", "unreadable audio", "nobody speaks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a build")
    parser.add_argument("--only", default="", metavar="NAME,...", help="these sources alone")
    parser.add_argument("--workers", type=int, default=2, help="processes that measure")
    parser.add_argument(
        "--bounds",
        choices=style_classes.MODES,
        default="percentile",
        help="of pitch: of the source's own speakers, or those of LTU-AS in Hz",
    )
    parser.add_argument(
        "--guard",
        type=float,
        default=0.2,
        help="half the band around a bound that has no class, as a share of a class (default: 0.2)",
    )
    parser.add_argument(
        "--least-clips", type=int, default=50, help="of fewer a source gets no classes"
    )
    parser.add_argument(
        "--gender",
        choices=("pitch", "known"),
        default="pitch",
        help="of clips whose source tells none: by a clearly low or high pitch, or none at all",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the step; see the module's docstring."""
    whole("workers", arguments.workers)
    whole("least_clips", arguments.least_clips)
    if not 0 <= arguments.guard < 0.5:
        raise UserError(f"--guard is {arguments.guard}: give a share from 0 to below 0.5")
    folder = BuildFolder(arguments.folder)
    seed = str(folder.about()["seed"])
    sources = folder.chosen(arguments.only, speech=True)
    lock = RunLock(folder.root, job="measuring the style of Open-ASQA")
    with lock.hold(), ClipJournal(folder.root / _JOURNAL) as journal:
        for source in sources:
            _measure(folder, source, journal, workers=arguments.workers)
            rows, bounds = _classes(folder, source, journal, arguments)
            write_jsonl(folder.file(source, STYLE), rows)
            write_json(folder.file(source, STYLE_BOUNDS), bounds.to_json())
            write_closed_ended(folder, source, seed)
    print(_table(folder, sources))


def _measure(folder: BuildFolder, source: str, journal: ClipJournal, *, workers: int) -> None:
    """Measure the audio files of a source that were not measured yet."""
    names = [name for clip in folder.clips(source) if (name := _measured_name(clip)) is not None]
    known = sum(journal.find(name) is not None for name in names)

    def missing() -> Iterator[tuple[str, str]]:
        for clip in folder.clips(source):
            name = _measured_name(clip)
            if name is not None and journal.find(name) is None:
                yield name, clip.audio

    bar = tqdm(desc=f"{source}: voices", total=len(names), initial=known, unit="clip", disable=None)
    with bar:
        for name, measures in in_processes(_measured, missing(), workers=workers):
            journal.add(name, measures)
            if "error" in measures:
                bar.write(measures["error"])
            bar.update()


def _measured_name(clip: SourceClip) -> str | None:
    """Return the audio to measure; None where there is none, or sounds were added to a voice."""
    return None if clip.window_kind else name_of(clip)


def _measured(item: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the name of an audio file and what the journal says of it."""
    name, path = item
    try:
        decoded = load_audio(path)
        scale = clipping.full_scale(Path(path), decoded)
    except AudioError as error:
        return name, {"error": str(error)}
    voice = measure_voice(decoded.samples)
    return name, {**dataclasses.asdict(voice), **dataclasses.asdict(scale)}


def _classes(
    folder: BuildFolder, source: str, journal: ClipJournal, arguments: argparse.Namespace
) -> tuple[Iterator[Mapping[str, Any]], StyleBounds]:
    """Return the rows of style.jsonl, and the bounds that they are made with."""
    voices = functools.partial(_voices, folder, source, journal)
    bounds = make_bounds(
        (voice for _, voice in voices()),
        mode=arguments.bounds,
        guard=arguments.guard,
        least_clips=arguments.least_clips,
    )
    guess = arguments.gender == "pitch" and "gender_cla" in SOURCES[source].tasks
    rows = (
        {"clip_id": clip.clip_id, **classify(voice, bounds, guess_gender=guess)}
        for clip, voice in voices()
    )
    return rows, bounds


def _voices(
    folder: BuildFolder, source: str, journal: ClipJournal
) -> Iterator[tuple[SourceClip, ClipVoice]]:
    for clip, (texts,) in folder.joined(source, SPOKEN_TEXT):
        if clip.window_kind:
            yield clip, _of_voice_alone(clip)
            continue
        name = name_of(clip)
        found = None if name is None else journal.find(name)
        if found is None or "error" in found:
            problem = _NO_AUDIO if found is None else _UNREADABLE
            yield clip, ClipVoice(gender=clip.gender, problem=problem)
            continue
        text = clip.gold_text or (texts[0]["text"] if texts else "")
        voice = VoiceMeasures(**{name: found[name] for name in ("f0_hz", "speech_seconds", "dbfs")})
        yield (
            clip,
            ClipVoice(
                gender=clip.gender,
                trained=clip.split == "train",
                style=speaking_style(voice, text=text),
                peak=found["peak"],
                clipped=found["clipped"],
            ),
        )


def _of_voice_alone(clip: SourceClip) -> ClipVoice:
    """Return the voice of a window, as it was before sounds were added: its level is no longer."""
    if not clip.gold_text:
        return ClipVoice(problem=_NOBODY)
    figures = VoiceMeasures(f0_hz=clip.f0_hz, speech_seconds=clip.speech_seconds, dbfs=None)
    return ClipVoice(
        gender=clip.gender,
        trained=clip.split == "train",
        style=speaking_style(figures, text=clip.gold_text),
    )


def _table(folder: BuildFolder, sources: Sequence[str]) -> str:
    """Return how many clips have each class, and why the others have none, as a table."""
    rows = []
    for source in sources:
        counts = style_classes.count_classes(folder.lines(source, STYLE))
        for axis, of in counts.items():
            rows += [(source, axis, name, count) for name, count in of.most_common()]
    return table(("source", "axis", "class", "clips"), rows)
