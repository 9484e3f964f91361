"""Build the mini Open-ASQA corpus step by step; each step goes on where it was interrupted."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.mini import clip_plan, closed_questions, corpus
from data_pipelines.mini.audio import render
from ltu_jax.core import errors, outputs, staging
from ltu_jax.core.files import inside, read_json, sha256_file
from ltu_jax.core.jsonl import JsonlWriter, read_jsonl, write_jsonl

STEPS = ("audio", "transcribe", "pairs")
SYNTHESIS = "work/synthesis.jsonl"
TRANSCRIPTS = "work/transcripts.jsonl"
# What it writes beside the audio, whose names are those of the plan's clips.
NAMES = ("clips.jsonl", "open_asqa_*.json", "*_items.jsonl", "tag_labels.json", "manifest.json",
          "work", "audio")  # fmt: skip


def _built_before(path: Path) -> tuple[str, ...] | None:
    """Recognise a corpus, or what an interrupted build left of one."""
    manifest = outputs.json_with("ltu_jax_corpus")(path / "manifest.json")
    rows = outputs.text_with('"entry": {', '"format": ')(path / SYNTHESIS)
    return None if manifest is None and rows is None else ()


MAKER = outputs.Maker(name="`python -m data_pipelines.build_mini`", before=_built_before)


class BuildError(errors.UserError):
    """A step of the corpus build cannot run; the message says which step to run first."""


def build_audio(
    out: Path, *, entries: Iterable[clip_plan.PlannedClip], cache: Path, workers: int = 2
) -> None:
    """Render every planned clip that is not there yet, with a progress bar; appends to
    ``work/synthesis.jsonl``.
    """
    out, entries = Path(out), tuple(entries)
    planned = {entry.clip_id: entry for entry in entries}
    before = _rows(out / SYNTHESIS)
    # A record counts only if this code made it from the same plan entry and its file is intact.
    done = [
        record
        for record in before
        if record.get("format") == render.FORMAT
        and planned.get(record["entry"]["clip_id"]) == clip_plan.PlannedClip(**record["entry"])
        and _intact(out, record)
    ]
    _remove_earlier(out, entries, before)
    write_jsonl(out / SYNTHESIS, done)
    ready = {record["entry"]["clip_id"] for record in done}
    missing = [entry for entry in entries if entry.clip_id not in ready]
    if not missing:
        return
    with (
        JsonlWriter(out / SYNTHESIS) as file,
        tqdm(total=len(entries), initial=len(ready), desc="audio", unit="clip") as bar,
    ):
        for record in _rendered(missing, out=out, cache=cache, workers=workers):
            file.append(record)
            bar.update()
    # Order of the plan, not of completion, so that the file is the same for any number of workers.
    order = {entry.clip_id: index for index, entry in enumerate(entries)}
    records = _rows(out / SYNTHESIS)
    write_jsonl(
        out / SYNTHESIS, sorted(records, key=lambda record: order[record["entry"]["clip_id"]])
    )


def _remove_earlier(
    out: Path, entries: Iterable[clip_plan.PlannedClip], records: Iterable[dict[str, Any]]
) -> None:
    """Delete the clips of an earlier plan, which its records name, and nothing else."""
    for folder in (out / "audio").glob("*/"):
        staging.clear(folder)  # what a killed build was rendering
    planned = {render.audio_path(entry) for entry in entries}
    for record in records:
        path = _audio(out, record)
        if corpus.audio_path(record) not in planned:
            path.unlink(missing_ok=True)


def _rendered(missing, *, out: Path, cache: Path, workers: int):
    if workers <= 1:
        _start_worker(out, cache)
        yield from map(_work, missing)
        return
    # "spawn": the neural voices' runtime has threads, which a forked child would not inherit
    # safely.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_start_worker, initargs=(out, cache)) as pool:
        yield from pool.imap_unordered(_work, missing, chunksize=8)


def _start_worker(out: Path, cache: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    global _WORKER
    _WORKER = (Path(out), Path(cache))


def _work(entry: clip_plan.PlannedClip) -> dict[str, Any]:
    out, cache = _WORKER
    return render.write(entry, corpus=out, cache=cache)


def transcribe(
    out: Path, *, transcriber: Callable[[list[Path]], list[str]], batch: int = 16
) -> None:
    """Write Whisper's text of every clip to ``work/transcripts.jsonl``, batch by batch, resuming.

    `transcriber` takes audio paths and returns one text each ("" when it hears no speech).
    """
    out = Path(out)
    records = _require(out, SYNTHESIS, step="audio")
    # A transcript belongs to the audio it was made from: a re-rendered clip is transcribed again.
    done = {(row["clip_id"], row["sha256"]): row for row in _rows(out / TRANSCRIPTS)}
    missing = [r for r in records if (r["entry"]["clip_id"], r["sha256"]) not in done]
    with (
        JsonlWriter(out / TRANSCRIPTS) as file,
        tqdm(
            total=len(records), initial=len(records) - len(missing), desc="transcribe", unit="clip"
        ) as bar,
    ):
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            texts = transcriber([_audio(out, record) for record in part])
            for record, text in zip(part, texts, strict=True):
                row = {
                    "clip_id": record["entry"]["clip_id"],
                    "sha256": record["sha256"],
                    "text": " ".join(text.split()),
                }
                file.append(row)
            bar.update(len(part))


def build_pairs(out: Path, *, seed: int, size: str) -> dict[str, Any]:
    """Write clips, official JSON, test items, tag labels and the manifest; returns the manifest."""
    out = Path(out)
    records = _require(out, SYNTHESIS, step="audio")
    texts = {
        (row["clip_id"], row["sha256"]): row["text"]
        for row in _require(out, TRANSCRIPTS, step="transcribe")
    }
    missing = [
        r["entry"]["clip_id"] for r in records if (r["entry"]["clip_id"], r["sha256"]) not in texts
    ]
    if missing:
        raise BuildError(
            f"{len(missing)} clips of {out} have no transcript (first: {missing[0]}); run the step "
            "transcribe first"
        )
    transcripts = {clip_id: text for (clip_id, _), text in texts.items()}
    return corpus.write(out, records=records, transcripts=transcripts, seed=seed, size=size)


def whisper_transcriber(weights: Path, *, batch: int) -> Callable[[list[Path]], list[str]]:
    """Return a function from audio files to the texts of the Whisper in a weights folder."""
    # Imported here: the steps audio and pairs run without JAX.
    from ltu_jax.generation.loading import load_transcriber
    from ltu_jax.generation.transcription import QUIET
    from ltu_jax.preprocessing.audio import load_audio

    model = load_transcriber(weights)

    def run(paths: list[Path]) -> list[str]:
        samples = [load_audio(path).samples for path in paths]
        transcripts = model.transcribe(samples, batch_size=batch, options=QUIET)
        return [transcript.spoken_text for transcript in transcripts]

    return run


def questions_of_another_format(out: Path) -> int | None:
    """Return the format of the questions of a corpus that this code would write otherwise."""
    path = Path(out) / "manifest.json"
    if outputs.json_with("ltu_jax_corpus")(path) is None:
        return None
    found = read_json(path).get("questions", 0)
    return None if found == closed_questions.FORMAT else found


def is_valid(out: Path, *, seed: int, size: str) -> bool:
    """Return whether `out` holds a complete, undamaged corpus of this seed and size."""
    path = Path(out) / "manifest.json"
    if not path.is_file():
        return False
    manifest = json.loads(path.read_text(encoding="utf-8"))
    expected = corpus.identity(seed=seed, size=size)
    if any(manifest.get(key) != value for key, value in expected.items()):
        return False
    expected = {
        inside(out, name, where=path): digest for name, digest in manifest["sha256"].items()
    }
    return all(file.is_file() and sha256_file(file) == digest for file, digest in expected.items())


def _audio(out: Path, record: dict[str, Any]) -> Path:
    return inside(out, corpus.audio_path(record), where=out / SYNTHESIS)


def _intact(out: Path, record: dict[str, Any]) -> bool:
    path = _audio(out, record)
    return path.is_file() and sha256_file(path) == record["sha256"]


def _require(out: Path, name: str, *, step: str) -> list[dict[str, Any]]:
    rows = _rows(out / name)
    if not rows:
        raise BuildError(
            f"{out / name} is missing or empty; run the step {step} first (--steps {step},...)"
        )
    return rows


def _rows(path: Path) -> list[dict[str, Any]]:
    """Read all complete rows; a last line cut by an interruption is made again."""
    return [row for _, row in read_jsonl(path)]
