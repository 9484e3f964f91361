"""The folder of a run: of one evaluation, written by one run at a time, earlier ones aside."""

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltu_jax.core import outputs, staging
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json
from ltu_jax.core.jsonl import read_jsonl, write_jsonl
from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS, BenchmarkRow
from ltu_jax.evaluation.datasets.item import EvaluationMode, Item
from ltu_jax.evaluation.run.clips import ClipFacts, read_clip_facts
from ltu_jax.evaluation.run.samples import SampleKey, read_samples
from ltu_jax.evaluation.scoring.interface import Tools

CONFIG = "config.json"
# All that a run leaves; config.json last, so that a kill while they are moved loses nothing.
_LEFT = (
    "items.jsonl",
    "samples.jsonl",
    "samples.[0-9]*.jsonl",
    "clips.jsonl",
    "clips.[0-9]*.jsonl",
    "system.*.json",
    "metrics.json",
    "results.txt",
    "results.png",
    "grounding.png",
    "confusion_*.png",
    "report.html",
    CONFIG,
)


def claim(out: Path, *, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse a folder whose files a run would move or overwrite and no run has written.

    Raises:
        UserError: names them; or `out` is one of `inputs`.
    """
    names = (*_LEFT, "features.[0-9]*")
    outputs.join(out, MAKER, names=names, inputs=inputs)


def _run_before(out: Path) -> tuple[str, ...] | None:
    """Recognise a run's folder by its config.json, or if that is lost by its answers or items."""
    if (out / CONFIG).exists():
        return outputs.json_with("identity", "modes", "decodings")(out / CONFIG)
    files = {
        "items.jsonl": ("item_id", "cluster", "row"),
        "samples*.jsonl": ("item_id", "decoding"),
    }
    for pattern, keys in files.items():
        for path in out.glob(pattern):
            if outputs.text_with(*(f'"{key}": ' for key in keys))(path) is not None:
                return ()
    return None


MAKER = outputs.Maker(name="`python -m ltu_jax.evaluate`", before=_run_before)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep `out`, which is made if need be, for this process: two would mix their lines.

    The lock goes with the process, whatever ends it. On a disk that has no locks there is none.

    Raises:
        UserError: another process has it.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process evaluates into {out}; wait until it has ended, or give another "
                "--out"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            print(f"{out} lies on a disk without locks: start one evaluation into it at a time")
        yield
    finally:
        os.close(folder)


def prepare_folder(out: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Make `out` the folder of the evaluation that `config["identity"]` tells.

    What another evaluation left there, and answers that no config.json tells anything of, go to
    `OUT/old.<number>`, a whole run's folder as before.

    Raises:
        UserError: `resume`, and `out` holds nothing or another evaluation; a broken config.json.
    """
    staging.clear(out)  # what a killed run left
    before = read_config(out)["identity"] if (out / CONFIG).exists() else None
    if resume and before is None:
        raise UserError(f"--resume: {out} holds no evaluation; leave --resume out to start one")
    now = config["identity"]
    changed = sorted(name for name in now if before is not None and before.get(name) != now[name])
    if resume and changed:
        raise UserError(
            f"--resume: {out} holds another evaluation, which differs in {', '.join(changed)}; "
            "give another --out, or leave --resume out to put its answers aside and start afresh"
        )
    if changed or (before is None and _left(out)):
        why = ", ".join(changed) or f"it has no {CONFIG}"
        old = _aside(out)
        print(f"{out} held another evaluation ({why}): starting afresh, that one is now {old}")
    write_json(out / CONFIG, {**config, "finished": False})


def check_shared(out: Path, config: Mapping[str, Any]) -> None:
    """Raise `UserError` in a process that does not see the folder that the main one prepared."""
    if not (out / CONFIG).exists() or read_config(out)["identity"] != config["identity"]:
        raise UserError(
            f"{out} is not what process 0 has written there: give an --out on a disk of all hosts"
        )


def finish(out: Path) -> None:
    """Note in config.json that every answer is there."""
    write_json(out / CONFIG, {**read_config(out), "finished": True})


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a run.

    Raises:
        UserError: it is not there, not that of a run, or of a benchmark that is not known here.
    """
    path = folder / CONFIG
    config = read_json(path)
    try:
        identity = config["identity"]
        texts = [identity["benchmark"], identity["split"], config["system"], *config["modes"]]
        broken = not all(isinstance(text, str) for text in [*texts, *config["decodings"]])
    except (KeyError, TypeError):
        broken = True
    if broken:
        raise UserError(
            f"{path} is not that of an evaluation; delete it and run the evaluation again, which "
            "puts the answers aside"
        )
    if identity["benchmark"] not in BENCHMARKS:
        raise UserError(
            f"{path} is of the benchmark {identity['benchmark']!r}, which this version does not "
            f"have; known: {', '.join(BENCHMARKS)}"
        )
    return config


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """The contents of a run's folder."""

    folder: Path
    config: Mapping[str, Any]
    items: tuple[Item, ...]
    clusters: Mapping[str, str]  # by clip id
    clips: Mapping[str, ClipFacts]
    samples: dict[SampleKey, dict[str, Any]]
    systems: Mapping[str, Mapping[str, str]]  # other systems' answers, by name and item id

    @property
    def modes(self) -> tuple[EvaluationMode, ...]:
        """The input modes that were asked, in the usual order."""
        return tuple(mode for mode in EvaluationMode if str(mode) in self.config["modes"])

    @property
    def rows(self) -> dict[str, BenchmarkRow]:
        """The rows that have items."""
        present = {item.row for item in self.items}
        rows = BENCHMARKS[self.config["identity"]["benchmark"]].rows
        return {name: row for name, row in rows.items() if name in present}

    @property
    def spoken_texts(self) -> dict[str, str]:
        """Whisper's transcript (or the data's) of each clip."""
        return {name: clip.spoken_text for name, clip in self.clips.items()}


def write_items(out: Path, items: Sequence[Item], clusters: Mapping[str, str]) -> None:
    """Leave what was asked in `OUT/items.jsonl`, so that a run can be scored without its data."""
    write_jsonl(
        out / "items.jsonl",
        [{**_plain(item), "cluster": clusters[item.clip_id]} for item in items],
    )


def _plain(item: Item) -> dict[str, Any]:
    return {**dataclasses.asdict(item), "groups": dict(item.groups)}


def read_run(folder: Path) -> EvaluationRun:
    """Read a run as it lies on disk.

    Raises:
        UserError: not the folder of a finished run, or a broken file in it.
    """
    if not (folder / CONFIG).is_file() or not (folder / "items.jsonl").is_file():
        raise UserError(
            f"{folder} is not the folder of an evaluation: it has no config.json and items.jsonl; "
            "give what --out was (with the benchmark's name where there were several)"
        )
    config = read_config(folder)
    if config.get("finished") is not True:  # what it lacks would count as never answered
        raise UserError(f"{folder} holds a run that did not end: give its command again to go on")
    known = BENCHMARKS[config["identity"]["benchmark"]].rows
    items, clusters = [], {}
    for where, record in read_jsonl(folder / "items.jsonl"):
        item, cluster = _item(record, where)
        if item.row not in known:
            raise UserError(f"{where}: row {item.row!r} is unknown; known: {', '.join(known)}")
        items.append(item)
        clusters[item.clip_id] = cluster
    systems = {}
    for path in sorted(folder.glob("system.*.json")):
        name, outputs = _system(read_json(path), path)
        systems[name] = outputs
    return EvaluationRun(
        folder=folder,
        config=config,
        items=tuple(items),
        clusters=clusters,
        clips=read_clip_facts([folder / "clips.jsonl"]),
        samples=read_samples(folder),
        systems=systems,
    )


def _item(record: dict[str, Any], where: str) -> tuple[Item, str]:
    """Return an item and its cluster, from a line that `write_items` wrote."""
    lists = [record.get("references"), record.get("choices")]
    texts = [record.get(name) for name in ("item_id", "clip_id", "row", "question", "cluster")]
    texts += [member for group in lists if isinstance(group, list) for member in group]
    groups = record.get("groups")
    texts += groups.values() if isinstance(groups, dict) else [groups]
    whole = all(isinstance(member, list) for member in lists) and record["references"]
    if not whole or not all(isinstance(member, str) for member in texts):
        raise UserError(f"{where} is not an item; run the evaluation again, which writes the file")
    fields = {field.name: record[field.name] for field in dataclasses.fields(Item)}
    lists = {name: tuple(record[name]) for name in ("references", "choices")}
    return Item(**{**fields, **lists}), record["cluster"]


def _system(entry: Any, path: Path) -> tuple[str, dict[str, str]]:
    """Return name and answers of another system."""
    outputs = entry.get("outputs") if isinstance(entry, dict) else None
    if not isinstance(outputs, dict) or not isinstance(entry.get("name"), str):
        raise UserError(f"{path} holds no system's answers; delete it and give --predictions again")
    return entry["name"], outputs


def tool_names(tools: Tools) -> dict[str, str | None]:
    """Return the names of the tools that score, for config.json."""
    return {
        "embedder": None if tools.embedder is None else tools.embedder.name,
        "judge": None if tools.judge is None else tools.judge.name,
        "spice_jars": None if tools.spice_jars is None else str(tools.spice_jars),
    }


def other_tools(run: EvaluationRun, tools: Tools) -> list[str]:
    """Return a line for each tool that a run was scored with, where it is another one now."""
    before, now = run.config.get("tools") or {}, tool_names(tools)
    return [
        f"{run.folder}: scored before with {name} {used}, now with {now.get(name) or 'none'}"
        for name, used in before.items()
        if used is not None and used != now.get(name)
    ]


def _left(out: Path) -> list[Path]:
    return [path for pattern in _LEFT for path in sorted(out.glob(pattern))]


def _aside(out: Path) -> Path:
    """Move a run's files to a folder of their own; encoded clips are dropped."""
    number = 1
    while (out / f"old.{number}").exists():
        number += 1
    old = out / f"old.{number}"
    old.mkdir()
    for path in _left(out):
        os.replace(path, old / path.name)
    for folder in out.glob("features.[0-9]*"):
        shutil.rmtree(folder)
    return old
