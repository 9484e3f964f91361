"""One benchmark from its data to its figures: read, transcribe, answer, score; resumable."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ltu_jax.clients.clap import Clap
from ltu_jax.core import distributed, provenance
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.evaluation.datasets.dataset import Dataset
from ltu_jax.evaluation.datasets.item import EvaluationMode
from ltu_jax.evaluation.run import answers, baselines, results, run_dir
from ltu_jax.evaluation.run.answers import AnsweringModel, CollectedAnswers, collect
from ltu_jax.evaluation.run.clips import ClipFacts, read_clip_facts, transcribe_clips
from ltu_jax.evaluation.run.samples import finish, read_samples
from ltu_jax.evaluation.scoring.interface import Tools
from ltu_jax.generation.sampling import SamplingConfig

_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings of an evaluation.

    Attributes:
        system: what the model is called in tables: its path.
        weights: hashes of checkpoint, base and Whisper, and the feature fingerprint.
        whisper: what Whisper's transcripts are called as a source.
        dtype: of the language model.
        modes, decodings: what every item is asked in.
        batch_size: answers computed at once.
        seed: of the shuffled mode's pairing.
        limit: items a row, None for all.
        allow_missing: count items of unreadable clips as missing, instead of stopping.
        resume: insist that there is something to go on with.
        writing: how words are written that the data do not bring: rule and Whisper.
        remarks: what a reader of the results should know.
    """

    system: str
    weights: Mapping[str, Any]
    whisper: str
    dtype: str
    modes: tuple[EvaluationMode, ...]
    decodings: tuple[str, ...]
    batch_size: int
    seed: int
    limit: int | None
    allow_missing: bool
    resume: bool
    writing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOutcome:
    """Metrics of a run and what it computed this time."""

    metrics: Mapping[str, Any]
    collected: CollectedAnswers
    wanted: int


def run(
    dataset: Dataset,
    settings: EvaluationSettings,
    *,
    load: Callable[[], AnsweringModel],
    out: Path,
    tools: Tools,
    clap: Clap | None,
    predictions: Mapping[str, Path],
) -> EvaluationOutcome:
    """Answer what is missing, then score everything.

    Args:
        dataset: the items.
        settings: how they are asked.
        load: gives the model; not called when every answer is there.
        out: the run's folder, on a disk that all processes share.
        tools: what scoring needs.
        clap: the CLAP baseline's model, if wanted.
        predictions: other systems' answers, name -> file.

    Raises:
        UserError: unreadable clips, a folder of another evaluation when `settings.resume`.
    """
    config = _config(dataset, settings)
    with contextlib.ExitStack() as stack:
        with distributed.together("preparing the results folder"):
            if distributed.is_main():
                stack.enter_context(run_dir.locked(out))
                run_dir.prepare_folder(out, config, resume=settings.resume)
                clusters = {clip.clip_id: clip.cluster for clip in dataset.clips.values()}
                run_dir.write_items(out, dataset.items, clusters)
                _write_systems(dataset, predictions, out)
        distributed.barrier("evaluation folder")
        with distributed.together("looking into the results folder"):
            run_dir.check_shared(out, config)
        return _run(dataset, settings, _Once(load), out, tools, clap)


def _run(
    dataset: Dataset,
    settings: EvaluationSettings,
    model: AnsweringModel,
    out: Path,
    tools: Tools,
    clap: Clap | None,
) -> EvaluationOutcome:
    """Do `run` in a folder that is ready."""
    process = (jax.process_index(), jax.process_count())
    clips = _prepare_clips(dataset, settings, model, out, process)
    wanted = list(answers.sample_keys(dataset, modes=settings.modes, decodings=settings.decodings))
    with distributed.together("answering"):
        collected = collect(
            dataset,
            wanted=wanted,
            clips=clips,
            model=model,
            out=out,
            samples=read_samples(out),
            batch_size=settings.batch_size,
            process=process,
        )
    collected = _of_all(collected)
    metrics: Mapping[str, Any] = {}
    with distributed.together("scoring"):
        if distributed.is_main():
            finish(out, read_samples(out), wanted)
            run_dir.finish(out)
            if clap is not None:
                _write_clap(dataset, clap, clips, out)
            throughput = _throughput(out, collected)
            metrics = results.score(run_dir.read_run(out), tools, throughput=throughput)
    distributed.barrier("evaluation scores")
    return EvaluationOutcome(metrics=metrics, collected=collected, wanted=len(wanted))


def _config(dataset: Dataset, settings: EvaluationSettings) -> dict[str, Any]:
    """Return config.json; what the answers depend on is `identity`."""
    sampling = SamplingConfig.official(seed=0)
    written = any(dataset.clips[item.clip_id].spoken_text is None
                  for item in dataset.items)  # fmt: skip
    return {
        "identity": {
            "benchmark": dataset.name,
            "split": dataset.split,
            "manifest": dataset.manifest,
            "weights": {k: v for k, v in settings.weights.items() if k != "path"},
            "dtype": settings.dtype,
            "seed": settings.seed,
            "max_new_tokens": {
                name: row.max_new_tokens for name, row in dataset.benchmark.rows.items()
            },
            **({"writing": dict(settings.writing)} if written else {}),
        },
        "remarks": list(settings.remarks),
        "bad_records": list(dataset.bad_records),
        "system": settings.system,
        "checkpoint": settings.weights.get("path"),
        "modes": [str(mode) for mode in settings.modes],
        "decodings": list(settings.decodings),
        "sampling": {name: vars(sampling)[name] for name in _SAMPLING},
        "questions": {name: row.question for name, row in dataset.benchmark.rows.items()},
        "limit": settings.limit,
        "environment": provenance.environment(),
    }


class _Once:
    """The model, loaded when it is first needed."""

    def __init__(self, load: Callable[[], AnsweringModel]):
        self._load = load
        self._model: AnsweringModel | None = None

    def __getattr__(self, name: str) -> Any:
        if self._model is None:
            self._model = self._load()
        return getattr(self._model, name)


def _prepare_clips(
    dataset: Dataset,
    settings: EvaluationSettings,
    model: AnsweringModel,
    out: Path,
    process: tuple[int, int],
) -> dict[str, ClipFacts]:
    """Transcribe every clip that is asked about or heard instead; processes share the work."""
    needed = {item.clip_id for item in dataset.items}
    if EvaluationMode.SHUFFLED in settings.modes:
        needed |= {dataset.partner[item.item_id] for item in dataset.items}
    ordered = [clip for name, clip in dataset.clips.items() if name in needed]
    files = [out / "clips.jsonl", *sorted(out.glob("clips.[0-9]*.jsonl"))]
    with distributed.together("reading the clips"):
        mine = [
            clip
            for clip in ordered
            if int.from_bytes(hashlib.sha256(clip.clip_id.encode()).digest()[:8]) % process[1]
            == process[0]
        ]
        transcribe_clips(
            mine,
            model=model,
            path=out / f"clips.{process[0]}.jsonl",
            known=read_clip_facts(files),
            whisper=settings.whisper,
            batch_size=settings.batch_size,
            allow_missing=settings.allow_missing,
        )
    distributed.barrier("evaluation clips")
    known = read_clip_facts([out / "clips.jsonl", *sorted(out.glob("clips.[0-9]*.jsonl"))])
    distributed.barrier("evaluation clips read")
    if process[0] == 0:
        order = [clip.clip_id for clip in ordered if clip.clip_id in known]
        chosen = set(order)
        rest = sorted(name for name in known if name not in chosen)
        lines = [dataclasses.asdict(known[name]) for name in [*order, *rest]]
        write_jsonl(out / "clips.jsonl", lines)
        for part in out.glob("clips.[0-9]*.jsonl"):
            part.unlink()
    return {name: facts for name, facts in known.items() if name in needed}


def _of_all(collected: CollectedAnswers) -> CollectedAnswers:
    """Return what all processes computed, in the time of the slowest; each keeps its samples."""
    mine = np.array([collected.computed, collected.audio_seconds, collected.seconds])
    gathered = multihost_utils.process_allgather(mine).reshape(-1, 3)
    return dataclasses.replace(
        collected,
        computed=int(gathered[:, 0].sum()),
        audio_seconds=float(gathered[:, 1].sum()),
        seconds=float(gathered[:, 2].max()),
    )


def _write_systems(dataset: Dataset, predictions: Mapping[str, Path], out: Path) -> None:
    """Write other systems' answers into the folder, so that a run can be scored again."""
    for name, path in predictions.items():
        _write_system(name, baselines.read_predictions(path, dataset.ids), out)


def _write_clap(dataset: Dataset, clap: Clap, readable: Mapping[str, ClipFacts], out: Path) -> None:
    scores: dict[str, dict[str, str]] = {}
    for name, row in dataset.rows.items():
        items = [item for item in dataset.items if item.row == name and item.clip_id in readable]
        labels = baselines.clap_labels(items, row, dataset.clips, clap)
        for system, outputs in labels.items():
            scores.setdefault(system, {}).update(outputs)
    for name, outputs in scores.items():
        _write_system(name, outputs, out)


def _write_system(name: str, outputs: Mapping[str, str], out: Path) -> None:
    short = hashlib.sha256(name.encode()).hexdigest()[:12]
    write_json(out / f"system.{short}.json", {"name": name, "outputs": dict(outputs)})


def _throughput(out: Path, collected: CollectedAnswers) -> Mapping[str, Any]:
    """Return how fast the answers came: of this run, or of the one that computed them."""
    if not collected.computed and (out / "metrics.json").exists():
        return throughput_of(out)
    seconds = max(collected.seconds, 1e-9)
    return {
        "answers": collected.computed,
        "seconds": round(collected.seconds, 2),
        "answers_per_second": round(collected.computed / seconds, 3),
        "audio_seconds_per_second": round(collected.audio_seconds / seconds, 3),
    }


def throughput_of(out: Path) -> Mapping[str, Any]:
    """Return how fast the answers of a run came, by its metrics.json.

    Raises:
        UserError: there is none (the run ended before it was scored), or it is broken.
    """
    path = out / "metrics.json"
    metrics = read_json(path)
    throughput = metrics.get("throughput") if isinstance(metrics, dict) else None
    if not isinstance(throughput, dict) or not isinstance(
        throughput.get("answers_per_second"), int | float
    ):
        raise UserError(f"{path} has no throughput; delete it and give the run's command again")
    return throughput


def check(dataset: Dataset, unreadable_clips: Sequence[tuple[Any, str]]) -> str:
    """Return what `--check` prints: counts, then each clip that is missing or broken."""
    lines = [
        f"{dataset.name}, {dataset.split}: {len(dataset.items)} items, "
        f"{len(dataset.clips)} clips, {len(unreadable_clips)} of them missing or broken"
    ]
    lines += [f"  {text}" for _, text in unreadable_clips]
    if bad := dataset.bad_records:
        lines += [f"{len(bad)} records cannot be asked", *(f"  {text}" for text in bad)]
        lines.append(
            "correct them or copy a newer release; without them the rest is asked by "
            "--skip-bad-records"
        )
    return "\n".join(lines)
