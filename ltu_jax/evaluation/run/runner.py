"""One benchmark from its data to its figures: read, listen, answer, score; resumable."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ltu_jax.core import distributed
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json
from ltu_jax.evaluation import provenance
from ltu_jax.evaluation.clients.clap import Clap
from ltu_jax.evaluation.datasets.dataset import Questionnaire
from ltu_jax.evaluation.datasets.item import Mode
from ltu_jax.evaluation.lines import write_lines
from ltu_jax.evaluation.run import answers, baselines, results, run_dir
from ltu_jax.evaluation.run.answers import Answering, Collected, collect
from ltu_jax.evaluation.run.clips import Known, listen, read_known
from ltu_jax.evaluation.run.samples import finish, read_samples
from ltu_jax.evaluation.scoring.interface import Tools


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a benchmark is run.

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
    modes: tuple[Mode, ...]
    decodings: tuple[str, ...]
    batch_size: int
    seed: int
    limit: int | None
    allow_missing: bool
    resume: bool
    writing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """Metrics of a run and what it computed this time."""

    metrics: Mapping[str, Any]
    collected: Collected
    wanted: int


def run(
    questionnaire: Questionnaire,
    settings: Settings,
    *,
    load: Callable[[], Answering],
    out: Path,
    tools: Tools,
    clap: Clap | None,
    predictions: Mapping[str, Path],
) -> Outcome:
    """Answer what is missing, then score everything.

    Args:
        questionnaire: the items.
        settings: how they are asked.
        load: gives the model; not called when every answer is there.
        out: the run's folder, on a disk that all processes share.
        tools: what scoring needs.
        clap: the CLAP baseline's model, if wanted.
        predictions: other systems' answers, name -> file.

    Raises:
        UserError: unreadable clips, a folder of another evaluation when `settings.resume`.
    """
    config = _config(questionnaire, settings)
    with contextlib.ExitStack() as held:
        with distributed.together("preparing the results folder"):
            if distributed.is_main():
                held.enter_context(run_dir.locked(out))
                run_dir.prepare(out, config, resume=settings.resume)
                clusters = {clip.clip_id: clip.cluster for clip in questionnaire.clips.values()}
                run_dir.write_items(out, questionnaire.items, clusters)
                _write_systems(questionnaire, predictions, out)
        distributed.barrier("evaluation folder")
        with distributed.together("looking into the results folder"):
            run_dir.shared(out, config)
        return _run(questionnaire, settings, _Once(load), out, tools, clap)


def _run(
    questionnaire: Questionnaire,
    settings: Settings,
    model: Answering,
    out: Path,
    tools: Tools,
    clap: Clap | None,
) -> Outcome:
    """`run` in a folder that is ready."""
    process = (jax.process_index(), jax.process_count())
    clips = _listen(questionnaire, settings, model, out, process)
    wanted = list(answers.keys(questionnaire, modes=settings.modes, decodings=settings.decodings))
    with distributed.together("answering"):
        collected = collect(
            questionnaire,
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
                _write_clap(questionnaire, clap, clips, out)
            throughput = _throughput(out, collected)
            metrics = results.score(run_dir.read_run(out), tools, throughput=throughput)
    distributed.barrier("evaluation scores")
    return Outcome(metrics=metrics, collected=collected, wanted=len(wanted))


def _config(questionnaire: Questionnaire, settings: Settings) -> dict[str, Any]:
    """What config.json says: `identity` is what the answers depend on, the rest is told besides."""
    written = any(questionnaire.clips[item.clip_id].spoken_text is None
                  for item in questionnaire.items)  # fmt: skip
    return {
        "identity": {
            "benchmark": questionnaire.name,
            "split": questionnaire.split,
            "manifest": questionnaire.manifest,
            "weights": {k: v for k, v in settings.weights.items() if k != "path"},
            "dtype": settings.dtype,
            "seed": settings.seed,
            "max_new_tokens": {
                name: row.max_new_tokens for name, row in questionnaire.benchmark.rows.items()
            },
            **({"writing": dict(settings.writing)} if written else {}),
        },
        "remarks": list(settings.remarks),
        "bad_records": list(questionnaire.bad_records),
        "system": settings.system,
        "checkpoint": settings.weights.get("path"),
        "modes": [str(mode) for mode in settings.modes],
        "decodings": list(settings.decodings),
        "sampling": answers.PUBLISHED,
        "questions": {name: row.question for name, row in questionnaire.benchmark.rows.items()},
        "limit": settings.limit,
        "environment": provenance.environment(),
    }


class _Once:
    """The model, loaded when it is first needed."""

    def __init__(self, load: Callable[[], Answering]):
        self._load = load
        self._model: Answering | None = None

    def __getattr__(self, name: str) -> Any:
        if self._model is None:
            self._model = self._load()
        return getattr(self._model, name)


def _listen(
    questionnaire: Questionnaire,
    settings: Settings,
    model: Answering,
    out: Path,
    process: tuple[int, int],
) -> dict[str, Known]:
    """Every clip that is asked about or heard instead of another; processes share the work."""
    needed = {item.clip_id for item in questionnaire.items}
    if Mode.SHUFFLED in settings.modes:
        needed |= {questionnaire.partner[item.item_id] for item in questionnaire.items}
    ordered = [clip for name, clip in questionnaire.clips.items() if name in needed]
    files = [out / "clips.jsonl", *sorted(out.glob("clips.[0-9]*.jsonl"))]
    with distributed.together("reading the clips"):
        mine = [
            clip
            for clip in ordered
            if int.from_bytes(hashlib.sha256(clip.clip_id.encode()).digest()[:8]) % process[1]
            == process[0]
        ]
        listen(
            mine,
            model=model,
            path=out / f"clips.{process[0]}.jsonl",
            known=read_known(files),
            whisper=settings.whisper,
            batch_size=settings.batch_size,
            allow_missing=settings.allow_missing,
        )
    distributed.barrier("evaluation clips")
    known = read_known([out / "clips.jsonl", *sorted(out.glob("clips.[0-9]*.jsonl"))])
    distributed.barrier("evaluation clips read")
    if process[0] == 0:
        order = [clip.clip_id for clip in ordered if clip.clip_id in known]
        chosen = set(order)
        rest = sorted(name for name in known if name not in chosen)
        lines = [dataclasses.asdict(known[name]) for name in [*order, *rest]]
        write_lines(out / "clips.jsonl", lines)
        for part in out.glob("clips.[0-9]*.jsonl"):
            part.unlink()
    return {name: one for name, one in known.items() if name in needed}


def _of_all(collected: Collected) -> Collected:
    """What all processes computed, in the time of the slowest; each keeps its own samples."""
    mine = np.array([collected.computed, collected.audio_seconds, collected.seconds])
    found = multihost_utils.process_allgather(mine).reshape(-1, 3)
    return dataclasses.replace(
        collected,
        computed=int(found[:, 0].sum()),
        audio_seconds=float(found[:, 1].sum()),
        seconds=float(found[:, 2].max()),
    )


def _write_systems(
    questionnaire: Questionnaire, predictions: Mapping[str, Path], out: Path
) -> None:
    """Other systems' answers, left in the folder so that a run can be scored again."""
    for name, path in predictions.items():
        _write_system(name, baselines.read_predictions(path, questionnaire.ids), out)


def _write_clap(
    questionnaire: Questionnaire, clap: Clap, readable: Mapping[str, Known], out: Path
) -> None:
    found: dict[str, dict[str, str]] = {}
    for name, row in questionnaire.rows.items():
        items = [
            item for item in questionnaire.items if item.row == name and item.clip_id in readable
        ]
        labels = baselines.clap_labels(items, row, questionnaire.clips, clap)
        for system, outputs in labels.items():
            found.setdefault(system, {}).update(outputs)
    for name, outputs in found.items():
        _write_system(name, outputs, out)


def _write_system(name: str, outputs: Mapping[str, str], out: Path) -> None:
    short = hashlib.sha256(name.encode()).hexdigest()[:12]
    write_json(out / f"system.{short}.json", {"name": name, "outputs": dict(outputs)})


def _throughput(out: Path, collected: Collected) -> Mapping[str, Any]:
    """How fast the answers came: of this run, or of the one that computed them."""
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
    """How fast the answers of a run came, by its metrics.json.

    Raises:
        UserError: there is none (the run ended before it was scored), or it is broken.
    """
    path = out / "metrics.json"
    metrics = read_json(path)
    found = metrics.get("throughput") if isinstance(metrics, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("answers_per_second"), int | float):
        raise UserError(f"{path} has no throughput; delete it and give the run's command again")
    return found


def check(questionnaire: Questionnaire, problems: Sequence[tuple[Any, str]]) -> str:
    """What `--check` prints: counts, then each clip that is missing or broken."""
    lines = [
        f"{questionnaire.name}, {questionnaire.split}: {len(questionnaire.items)} items, "
        f"{len(questionnaire.clips)} clips, {len(problems)} of them missing or broken"
    ]
    lines += [f"  {text}" for _, text in problems]
    if bad := questionnaire.bad_records:
        lines += [f"{len(bad)} records cannot be asked", *(f"  {text}" for text in bad)]
        lines.append(
            "correct them or copy a newer release; without them the rest is asked by "
            "--skip-bad-records"
        )
    return "\n".join(lines)
