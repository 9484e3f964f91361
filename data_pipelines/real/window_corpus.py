"""A corpus of windows on disk: audio, what is heard in it, and what a teacher hears.

    DIR/audio/<split>/<clip>.flac   ten seconds, 16 kHz mono
    DIR/clips.jsonl                 a line a window, as `write_records --corpus` reads it
    DIR/windows.jsonl               the same for questions about it (`window_manifest`)
    DIR/tag_labels.json             the classes; behind them the teacher's others, and genders
    DIR/teacher_scores.jsonl        the teacher's scores of the windows that are learnt from
    DIR/manifest.json               how it was made, and what is in it

Each file of audio and each line of scores is written once: a run that was stopped goes on.
"""

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
from tqdm import tqdm

from data_pipelines.real import (
    fetch_recordings,
    recording_table,
    speech_lines,
    teacher_scores,
    window_manifest,
    window_mix,
)
from data_pipelines.real.recording_table import Recording
from data_pipelines.real.speech_lines import SpokenClip
from data_pipelines.real.window_mix import SAMPLE_RATE, Load
from data_pipelines.real.window_plan import CLASSES, SECONDS, AbsentClasses
from data_pipelines.real.window_sides import PlacedWindow, PlannedSides
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file, read_json, sha256_file, write_json
from ltu_jax.core.jsonl import JsonlWriter, read_jsonl, write_jsonl
from ltu_jax.core.outputs import Maker
from ltu_jax.preprocessing import audio
from ltu_jax.sources.packages import PackageError

CLIPS, MANIFEST, SCORES = "clips.jsonl", "manifest.json", "teacher_scores.jsonl"
TAG_LABELS = "tag_labels.json"
NAMES = (
    CLIPS,
    window_manifest.WINDOWS_FILE,
    "open_asqa_*.json",
    TAG_LABELS,
    SCORES,
    MANIFEST,
    "work",
    "audio",
)
MAKER = Maker(name="`python -m data_pipelines.real.build_windows`")
_FORMAT = 1
_PLAN, _RENDERED = "work/plan.json", "work/rendered.jsonl"
_KEPT = 48  # recordings in memory
_SPEECH_TAGS = {
    "female": ("Speech", "Female speech, woman speaking"),
    "male": ("Speech", "Male speech, man speaking"),
}


class Teacher(Protocol):
    """What labels windows: `classes`, and `scores(samples)` of each in patches."""

    classes: tuple[str, ...]

    def scores(self, samples: np.ndarray) -> np.ndarray: ...


def read_spoken(folder: Path) -> dict[str, SpokenClip]:
    """Return name -> what is said, of the lines of a folder's speech.jsonl.

    Raises:
        UserError: no such file, none that is learnt from, a broken line, audio that is gone.
    """
    found = {one.name: one for one in speech_lines.read_speech(folder)}
    if all(one.split != recording_table.TRAIN for one in found.values()):
        raise UserError(
            f"--speech {folder}: {speech_lines.SPEECH_FILE} has no line of split "
            f"{recording_table.TRAIN!r}: render speech for it, or leave --speech out"
        )
    for one in found.values():
        if not (folder / one.file).is_file():
            raise UserError(
                f"--speech {folder}: there is no {one.file}, of which "
                f"{speech_lines.SPEECH_FILE} tells: render the speech again"
            )
    return found


def sources(
    folder: Path,
    given: Sequence[Recording],
    spoken: Mapping[str, SpokenClip],
    *,
    speech: Path | None,
) -> tuple[Load, Load]:
    """Return the functions that load recordings below a folder, and speech below another."""
    packages = recording_table.recording_packages()
    known = {one.clip: one for one in given}

    @functools.lru_cache(_KEPT)
    def load(name: str) -> np.ndarray:
        one = known[name]
        place = fetch_recordings.package_folder(folder, packages[one.package])
        file = fetch_recordings.audio_file(place, one)
        if not file.is_file():
            raise PackageError(
                f"{file} is not there: fetch it with `python -m "
                f"data_pipelines.real.fetch_recordings --out {folder} --only {one.package}`"
            )
        return audio.load_audio(file).samples

    def load_speech(name: str) -> np.ndarray:
        return audio.load_audio(speech / spoken[name].file).samples

    return load, load_speech


def write_corpus(
    out: Path,
    planned: PlannedSides,
    *,
    options: Mapping[str, Any],
    given: Sequence[Recording],
    spoken: Mapping[str, SpokenClip],
    load: tuple[Load, Load],
    teacher: Teacher,
) -> dict[str, Any]:
    """Render the windows of a plan that are not there yet, score them, and write their lists.

    Args:
        out: folder.
        planned: the windows.
        options: how they were planned, which a folder has once.
        given: the recordings of the plan.
        spoken: what is said in it, by name.
        load: of recordings and speech.
        teacher: labels the windows of split train.

    Returns:
        The manifest.

    Raises:
        UserError: `out` was made with other options.
    """
    _same_plan(out, planned, options)
    rows = _render(out, planned.windows, load=load)
    learnt = {one.clip_id: out / _file(one) for one in planned.windows if one.split == "train"}
    problems = teacher_scores.score_files(
        learnt, out=out / SCORES, teacher=teacher, seconds=SECONDS
    )
    if problems:
        raise UserError(f"{out / SCORES}: {problems} windows cannot be decoded: delete {out}")
    known = {one.clip: one for one in given}
    clips = [
        _clip(one, sha256=rows[one.clip_id], known=known, spoken=spoken) for one in planned.windows
    ]
    for split in ("train", "val", "test"):
        write_json(out / f"open_asqa_{split}.json", [])
    of_speech = (tag for tags in _SPEECH_TAGS.values() for tag in tags)  # YAMNet has no genders
    labels = dict.fromkeys((*CLASSES, *teacher.classes, *of_speech))
    write_json(out / TAG_LABELS, list(labels))
    write_jsonl(out / CLIPS, clips)
    lines = _window_lines(planned, known=known, spoken=spoken, seed=options["seed"])
    write_jsonl(out / window_manifest.WINDOWS_FILE, lines)
    manifest = {
        **_identity(planned, options),
        "classes": len(CLASSES),
        "labels": len(labels),
        "unlearnt": list(planned.unlearnt),
        "counts": _counts(planned.windows),
    }
    write_json(out / MANIFEST, manifest)
    return manifest


def _identity(planned: PlannedSides, options: Mapping[str, Any]) -> dict[str, Any]:
    plan = json.dumps([dataclasses.asdict(one) for one in planned.windows]).encode()
    digest = hashlib.sha256(plan).hexdigest()
    return {"ltu_jax_windows": _FORMAT, "options": dict(options), "plan": digest}


def _same_plan(out: Path, planned: PlannedSides, options: Mapping[str, Any]) -> None:
    identity = json.loads(json.dumps(_identity(planned, options)))
    if (out / _PLAN).is_file() and (there := read_json(out / _PLAN)) != identity:
        apart = [
            f"{name} {there.get('options', {}).get(name)!r} there and {value!r} here"
            for name, value in identity["options"].items()
            if there.get("options", {}).get(name) != value
        ] or ["its plan, by another version of the recordings or of the planner"]
        raise UserError(f"{out} was made differently ({'; '.join(apart)}): give another --out")
    write_json(out / _PLAN, identity)


def _file(one: PlacedWindow) -> str:
    return f"audio/{one.split}/{one.clip_id}.flac"


def _render(
    out: Path, windows: Sequence[PlacedWindow], *, load: tuple[Load, Load]
) -> dict[str, str]:
    """Write the audio that is not there; return clip -> SHA-256 of all."""
    rows = {row["clip_id"]: row["sha256"] for _, row in read_jsonl(out / _RENDERED)}
    files = {one.clip_id: out / _file(one) for one in windows}
    done = {
        clip: digest
        for clip, digest in rows.items()
        if clip in files and files[clip].is_file() and sha256_file(files[clip]) == digest
    }
    with (
        JsonlWriter(out / _RENDERED) as file,
        tqdm(total=len(windows), initial=len(done), desc="windows", unit="window") as bar,
    ):
        for one in windows:
            if one.clip_id in done:
                continue
            samples = window_mix.mix(one.window, load=load[0], load_speech=load[1])
            with atomic_file(files[one.clip_id]) as new:
                soundfile.write(new, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
            done[one.clip_id] = sha256_file(files[one.clip_id])
            file.append({"clip_id": one.clip_id, "sha256": done[one.clip_id]})
            bar.update()
    return done


def _clip(
    placed: PlacedWindow,
    *,
    sha256: str,
    known: Mapping[str, Recording],
    spoken: Mapping[str, SpokenClip],
) -> dict[str, Any]:
    """Return the line of a window."""
    window = placed.window
    used = [known[clip] for layer in window.layers for clip in layer.clips]
    said = spoken.get(window.speech)
    licences = dict.fromkeys(one.licence for one in used)
    tags = list(window.classes)
    if said is not None:
        licences |= {said.licence: None}
        tags += _SPEECH_TAGS[said.gender]
    return {
        "clip_id": placed.clip_id,
        "audio": _file(placed),
        "dataset": placed.dataset,
        "split": placed.split,
        "spoken_text": "",
        "tags": tags,
        "sample_rate": SAMPLE_RATE,
        "seconds": SECONDS,
        "synthetic": False,
        "sha256": sha256,
        "source": {
            "license": " and ".join(licences) or window_manifest.MADE_HERE,
            "clusters": list(window.clusters),
            "packages": [] if said is None else list(said.packages),
        },
        "labels": {
            "classes": list(window.classes),
            "groups": list(window.groups),
            "packages": list(dict.fromkeys(one.package for one in used)),
            "folds": sorted({one.fold for one in used}),
            "ships": window.ships and (said is None or said.ships),
        },
        "window": dataclasses.asdict(window),
    }


def _window_lines(
    planned: PlannedSides,
    *,
    known: Mapping[str, Recording],
    spoken: Mapping[str, SpokenClip],
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Yield what is heard in each window, and of as many classes that they are not."""
    absent = {
        split: AbsentClasses(
            [one.window for one in planned.windows if one.split == split], seed=seed
        )
        for split in {one.split for one in planned.windows}
    }
    for one in planned.windows:
        line = window_manifest.window_line(
            one.window,
            split=one.split,
            file=_file(one),
            kind=one.kind,
            absent=absent[one.split].of(one.window, count=max(1, len(one.window.classes))),
            recordings=known,
            speech=spoken.get(one.window.speech),
        )
        yield dataclasses.replace(line, window_id=one.clip_id).to_json()


def _counts(windows: Sequence[PlacedWindow]) -> list[dict[str, Any]]:
    """Count what a corpus holds, by split and dataset."""
    parts: dict[tuple[str, str], list[PlacedWindow]] = {}
    for one in windows:
        parts.setdefault((one.split, one.dataset), []).append(one)
    return [
        {
            "split": split,
            "dataset": dataset,
            "windows": len(own),
            "quiet": sum(one.kind != window_manifest.SOUNDS for one in own),
            "spoken": sum(bool(one.window.speech) for one in own),
            "classes": len({name for one in own for name in one.window.classes}),
            "groups": len({name for one in own for name in one.window.groups}),
            "clusters": len({name for one in own for name in one.window.clusters}),
            "ships": sum(one.window.ships for one in own),
        }
        for (split, dataset), own in parts.items()
    ]


def show(manifest: Mapping[str, Any], *, say: Callable[[str], None] = print) -> None:
    """Print what is in a corpus as a table."""
    columns = ("windows", "quiet", "spoken", "classes", "groups", "clusters", "ships")
    say(f"{'split':6} {'dataset':18}" + "".join(f"{name:>9}" for name in columns))
    total: Counter[str] = Counter()
    for row in manifest["counts"]:
        say(f"{row['split']:6} {row['dataset']:18}" + "".join(f"{row[n]:9}" for n in columns))
        total.update({name: row[name] for name in ("windows", "quiet", "spoken", "ships")})
    say(f"all: {total['windows']} windows, {total['windows'] * SECONDS / 60:.0f} minutes, "
        f"{manifest['labels']} labels")  # fmt: skip
    if manifest["unlearnt"]:
        say(f"held out, and nothing left to learn from: {', '.join(manifest['unlearnt'])}")
