"""Make Open-ASQA from made-up tables of the published sizes: counts, time and memory of each step.

    python -m benchmarks.open_asqa [--share 1.0] [--workers 2] [--scratch DIR] [--out DIR]

No audio exists; the tables are those of `benchmarks.published_tables`. `build` reads all of them,
about 2.6 million clips, by the rules of the registry. What `style` and `transcribe` would find is
made up for every clip, and the questions are written again with it. A second build takes as many
clips of each data set as the authors' scripts print, drawn from the first: then every count that
they print must come out. Of VoxCeleb2 they are drawn from another table, since the speakers that
the authors held out are not published, and age-test.txt leaves fewer utterances than they have.

Each step runs in a process of its own, whose largest process the operating system tells
(ru_maxrss).
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import alternate, published_tables
from benchmarks.published_tables import Sizes
from data_pipelines.open_asqa import build_folder, draw
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.closed_file import write_closed_ended
from data_pipelines.open_asqa.registry import SOURCES
from ltu_jax.core import errors
from ltu_jax.core.files import read_json
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.core.processes import in_processes
from ltu_jax.planning.open_asqa_counts import COUNTED

_MEASURED = """
import json, os, resource, subprocess, sys, time
began = time.time()
status = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"status": status, "seconds": time.time() - began,
                  "cpu_seconds": used.ru_utime + used.ru_stime,
                  "peak_bytes": used.ru_maxrss * 1024, "load_average": os.getloadavg()[0]}))
"""
_STEPS = [sys.executable, "-m", "data_pipelines.open_asqa"]


def measured(*command: object) -> dict[str, Any]:
    """Run a command to its end; return its time, and the memory of its largest process."""
    line = [sys.executable, "-c", _MEASURED, *map(str, command)]
    found = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if found.pop("status"):
        raise errors.UserError(f"{' '.join(map(str, command))} failed; see above")
    return found


def find(out: Path, *, workers: int) -> None:
    """Write made-up findings about every clip, and the questions with them."""
    jobs = [(out, source) for source in BuildFolder(out).sources()]
    for _ in in_processes(find_in, jobs, workers=workers):
        pass


def find_in(job: tuple[Path, str]) -> None:
    """Write made-up findings about the clips of a source, and the questions with them."""
    folder, source = BuildFolder(job[0]), job[1]
    words = [f"word{number}" for number in range(500)]
    ids = [line["clip_id"] for line in folder.lines(source, build_folder.CLIPS)]
    rng = np.random.default_rng(len(ids))

    def texts() -> Iterator[Mapping[str, Any]]:
        for name in ids:
            text = " ".join(words[n] for n in rng.integers(0, 500, 14))
            yield {"clip_id": name, "text": text, "raw": text, "reason": ""}

    write_jsonl(folder.file(source, build_folder.SPOKEN_TEXT), texts())
    if SOURCES[source].speech:
        style = {"pitch": "high", "speed": "very slow", "volume": "medium", "gender": "male"}
        lines = ({"clip_id": name} | style for name in ids)
        write_jsonl(folder.file(source, build_folder.STYLE), lines)
    write_closed_ended(folder, source, folder.about()["seed"])


def printed_clips() -> dict[str, int]:
    """Return dataset -> clips, of those whose questions the authors' scripts count one by one."""
    clips: dict[str, int] = {}
    for group in COUNTED:
        if group.closed_ended and len(group.tasks) == len(group.datasets) == 1:
            name = group.datasets[0]
            clips[name] = max(clips.get(name, 0), group.pairs)
    return clips


def write_lists(
    folders: Mapping[str, BuildFolder], lists: Path, *, share: float
) -> dict[str, Path]:
    """Write as many clips of each data set as are printed; return source -> its list.

    Args:
        folders: source -> the build that has its clips.
        lists: folder to write to.
        share: of the printed numbers.
    """
    lists.mkdir(exist_ok=True)
    wanted, made = printed_clips(), {}
    for source, folder in folders.items():
        names: dict[str, list[str]] = {}
        for line in folder.lines(source, build_folder.CLIPS):
            names.setdefault(line["dataset"], []).append(line["clip_id"])
        if not set(names) <= set(wanted):
            continue
        chosen: list[str] = []
        for dataset, own in names.items():
            chosen += sorted(draw.lowest(own, round(wanted[dataset] * share), seed="lists"))
        made[source] = lists / f"{source}.txt"
        made[source].write_text("".join(f"{name}\n" for name in chosen))
    return made


def run_steps(sources: Path, out: Path, *, workers: int) -> dict[str, Any]:
    """Build, find, count and merge; return what each step took, and the counts."""
    steps = {"build": measured(*_STEPS, "build", "--sources", sources, "--out", out,
                               "--workers", workers)}  # fmt: skip
    steps["findings and questions"] = measured(
        sys.executable, "-m", "benchmarks.open_asqa", "--find", out, "--workers", workers
    )
    counts = out.with_name(f"{out.name}.json")
    steps["statistics"] = measured(*_STEPS, "statistics", out, "--json", counts)
    rows = out.with_name(f"{out.name}-rows.json")
    steps["merge"] = measured(*_STEPS, "merge", out, "--out", rows)
    steps["merge"]["bytes"] = rows.stat().st_size
    steps["statistics of the rows"] = measured(*_STEPS, "statistics", rows)
    return {"steps": steps, "counts": read_json(counts)}


def official_sources(sources: Path, scratch: Path, sizes: Sizes, *, share: float) -> Path:
    """Write a sources.toml with lists of the printed sizes, and the other table of VoxCeleb2."""
    tables = sources.parent
    published = BuildFolder(scratch / "published")
    folders = dict.fromkeys(published.sources(), published)
    other = tables / "voxceleb2_official"
    if "voxceleb2" in folders:
        folders["voxceleb2"] = _other_voxceleb2(other, scratch / "voxceleb2", sizes)
    lists = write_lists(folders, scratch / "lists", share=share)
    text = ""
    for name in folders:
        folder = tables / ("audioset" if name == "joint_audioset" else name)
        if name == "voxceleb2":
            folder = other
        text += f'[{name}]\nmetadata = "{folder}"\n'
        if name in lists:
            text += f'clips = "{lists[name]}"\n'
    path = scratch / "official.toml"
    path.write_text(text)
    return path


def _other_voxceleb2(table: Path, out: Path, sizes: Sizes) -> BuildFolder:
    """Build a table of VoxCeleb2 that holds no speaker out and has utterances to spare."""
    if not table.is_dir():
        table.mkdir()
        more = dataclasses.replace(sizes, age_tested=0, aged_videos=round(sizes.aged_videos * 1.02))
        published_tables.voxceleb2(table, more, np.random.default_rng(77))
    sources = table.with_suffix(".toml")
    sources.write_text(f'[voxceleb2]\nmetadata = "{table}"\n')
    measured(*_STEPS, "build", "--sources", sources, "--out", out)
    return BuildFolder(out)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.open_asqa",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the published sizes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", type=Path, default=Path("build/open_asqa"))
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    parser.add_argument("--find", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.find is not None:
        find(given.find, workers=given.workers)
        return
    scratch = given.scratch.absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    sizes = Sizes().of(given.share) if given.share != 1 else Sizes()
    sources = published_tables.write(scratch / "tables", sizes)
    about: dict[str, Any] = {"share": given.share, "workers": given.workers}
    shutil.rmtree(scratch / "voxceleb2", ignore_errors=True)
    for name in ("published", "official"):
        shutil.rmtree(scratch / name, ignore_errors=True)
        if name == "official":
            sources = official_sources(sources, scratch, sizes, share=given.share)
        about[name] = run_steps(sources, scratch / name, workers=given.workers)
    about["left_out"] = read_json(scratch / "published" / build_folder.LEAKAGE)["left_out"]
    alternate.write("open_asqa", about, out=given.out)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    errors.main(main)
