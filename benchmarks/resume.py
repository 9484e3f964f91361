"""How soon a run at step 100,000 of ten million pairs is at work again, in the real trainer.

    python -m benchmarks.resume [--pairs 10000000] [--step 100000] [--rounds 3] [--out DIR]

The records have an index and token counts of all their clips. Their shards are holes in a file but
for the clips of the steps that are read: ten seconds of tones in noise, nine pairs each, written by
`write_records`. The mini model trains on them with the full-size layout of rows, on the fly; its
checkpoint says that it made so many steps. Then `python -m ltu_jax.train` goes on from there in a
process of its own, with the index no longer in the page cache where the system allows that, and
its log tells when the first batch was ready. Beside it stands what it would take to make all the
batches before and throw them away: a projection from a few of them.
"""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np

from benchmarks import alternate
from benchmarks.input_pipeline import TOKENIZER, WHISPER, make_clip
from data_pipelines.input import token_counts
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.records import record_files, record_index
from data_pipelines.records.schema import AnnotatedClip
from data_pipelines.records.write import write_records
from ltu_jax import train
from ltu_jax.core import errors
from ltu_jax.core.files import write_json
from ltu_jax.preprocessing.text import Tokenizer, load_tokenizer
from ltu_jax.training import trainer
from ltu_jax.training.logs import read_rows
from ltu_jax.training.program import data_config
from ltu_jax.training.stage_config import stage_settings

LIMIT = 10.0  # seconds
SHARDS, KINDS = 8, 64  # clips differ in their id and are otherwise one of so many
SPACE = 1 << 19  # bytes of a shard for each record
STEPS = 4  # whose clips are there

# Rows as the full size has them, fewer at once, and nothing but training.
SETTINGS = (
    "--config=configs/stage3.py:mini", "--config.init_from=", "--config.allow_random_tltr=true",
    "--config.data.layout=grouped", "--config.data.features=on_the_fly",
    "--config.data.pairs_per_clip=8", "--config.data.clips_per_row=2",
    "--config.data.row_tokens=622", "--config.data.rows_per_batch=2", "--config.data.lengths=()",
    "--config.data.group_by_length=50", "--config.log.validate_batches=0",
    "--config.log.samples=0", "--config.log.tensorboard=false", "--config.checkpoint.every=0",
)  # fmt: skip


def kind_of(folder: Path, number: int, *, clip_id: str) -> AnnotatedClip:
    """Return one of the few different clips under another id."""
    folder.mkdir(exist_ok=True)
    return dataclasses.replace(make_clip(folder, number), clip_id=clip_id)


class BigRecords:
    """A records directory with the index of very many clips."""

    def __init__(self, folder: Path, *, pairs: int, tokenizer: Tokenizer) -> None:
        """Make index, token counts and manifest; the shards are empty space."""
        self.folder, self._tokenizer, self._scratch = folder / "records", tokenizer, folder
        self._audio = folder / "audio"
        few = folder / "few"
        write_records(
            [kind_of(self._audio, n, clip_id=f"kind{n}") for n in range(KINDS)], few, shards=1
        )
        self._few = record_files.RecordStore(few, split="train")
        counts = token_counts.token_lengths(few, split="train", tokenizer=tokenizer, show=False)
        each = len(counts) // KINDS
        self._clips = -(-pairs // each // SHARDS) * SHARDS
        self.pairs = self._clips * each
        self._columns = [self._shard(shard) for shard in range(SHARDS)]
        manifest = json.loads((few / record_files.MANIFEST).read_text())
        split = manifest["splits"]["train"]
        split |= {"clips": self._clips, "pairs": self.pairs, "datasets": {"benchmark": self._clips}}
        split["shards"] = []
        for shard, columns in enumerate(self._columns):
            (name,), size = columns.shard_names, len(columns)
            path = record_files.shard_path(self.folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(size * SPACE)
            split["shards"].append(
                {"file": name, "bytes": size * SPACE, "sha256": f"{shard:064}", "records": size,
                 "index_crc32": shard}
            )  # fmt: skip
            tokens = token_counts.folder(self.folder, tokenizer=tokenizer) / f"{name}.npz"
            tokens.parent.mkdir(parents=True, exist_ok=True)
            tiled = np.tile(counts.reshape(KINDS, each, 2), (-(-size // KINDS), 1, 1))[:size]
            np.savez(tokens, counts=tiled.reshape(-1, 2), shard=f"{shard:064}")
        write_json(self.folder / record_files.MANIFEST, manifest)
        self._save()

    def _shard(self, shard: int) -> record_index.RecordIndex:
        size, few = self._clips // SHARDS, self._few.entries
        ids = [f"clip{shard}-{number}".encode() for number in range(size)]

        def tiled(values: np.ndarray, each: int = 1) -> np.ndarray:
            return np.resize(values, size * each)

        each = len(few.tasks) // len(few)
        return dataclasses.replace(
            few,
            offset=np.arange(size, dtype=np.int64) * SPACE,
            length=tiled(few.length).copy(),
            crc32=tiled(few.crc32).copy(),
            seconds=tiled(few.seconds),
            shard=np.zeros(size, np.int32),
            number=np.arange(size, dtype=np.int32),
            clip_ids=b"".join(ids),
            clip_ends=np.cumsum([len(name) for name in ids]),
            dataset=tiled(few.dataset),
            tag_ends=np.zeros(size, np.int64),
            tasks=tiled(few.tasks, each),
            closed=tiled(few.closed, each),
            characters=tiled(few.characters, each),
            pair_ends=np.arange(1, size + 1) * each,
            shard_names=(f"{record_files.BUILDER}-train.tfrecord-{shard:05d}-of-{SHARDS:05d}",),
        )

    def _save(self) -> None:
        (self.folder / record_files.INDEX).mkdir(exist_ok=True)
        for shard, columns in enumerate(self._columns):
            path = self.folder / record_files.INDEX / f"{columns.shard_names[0]}.npz"
            record_index.save(path, columns, source=shard)

    def fill(self, clip_ids: Sequence[str]) -> None:
        """Write the records of these clips into their places."""
        places = {}
        for clip_id in clip_ids:
            shard, number = map(int, clip_id.removeprefix("clip").split("-"))
            places[clip_id] = shard, number
        wanted = [
            kind_of(
                self._audio,
                int(self._few.entries[number % KINDS].clip_id.removeprefix("kind")),
                clip_id=clip_id,
            )
            for clip_id, (_, number) in places.items()
        ]
        out = self._scratch / "filled"
        write_records(wanted, out, shards=1)
        filled = record_files.RecordStore(out, split="train")
        for entry in filled.entries:
            shard, number = places[entry.clip_id]
            columns = self._columns[shard]
            content = record_files.shard_path(out, entry.shard).read_bytes()
            payload = content[entry.offset : entry.offset + entry.length]
            columns.length[number], columns.crc32[number] = len(payload), zlib.crc32(payload)
            with record_files.shard_path(self.folder, columns.shard_names[0]).open("r+b") as file:
                file.seek(columns.offset[number])
                file.write(payload)
        self._save()

    def forget(self) -> None:
        """Ask the system to drop what it keeps of the files in memory."""
        os.sync()
        for path in self.folder.rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def leave_a_checkpoint(arguments: list[str], *, step: int) -> None:
    """Train one step as if it were step `step`, and stop by SIGTERM, which saves."""
    prepare = trainer.prepare

    def far(stage: Any, **options: Any) -> Any:
        prepared = prepare(stage, **options)

        def once(*args: Any) -> Any:
            signal.raise_signal(signal.SIGTERM)
            return prepared.step_fn(*args)

        state = dataclasses.replace(prepared.state, step=jnp.full_like(prepared.state.step, step))
        return dataclasses.replace(prepared, state=state, step_fn=once)

    with mock.patch.object(trainer, "prepare", far):
        code = train.main(arguments)
    if code != train.RESUME:
        raise errors.UserError(f"the run that leaves a checkpoint ended with {code}")


def go_on(arguments: list[str], run_dir: Path) -> dict[str, float]:
    """Run `python -m ltu_jax.train` until its next step has ended; return its seconds by part."""
    before, begin = len(read_rows(run_dir / "log.jsonl")), time.monotonic()
    command = [sys.executable, "-m", "ltu_jax.train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    wall = time.monotonic() - begin
    if done.returncode:
        raise errors.UserError(f"the resumed run ended with {done.returncode}: {done.stderr}")
    row = next(row for row in read_rows(run_dir / "log.jsonl")[before:] if "seconds_of" in row)
    parts = row["seconds_of"]
    return {
        "first_batch": sum(parts[part] for part in ("start", "restore", "compare", "data")),
        **{part: parts[part] for part in ("start", "restore", "compare", "data", "compile")},
        "whole_process": wall,
    }


def measure(scratch: Path, *, pairs: int, step: int, rounds: int) -> dict[str, Any]:
    """Make the records and the checkpoint, and resume `rounds` times from a copy of it."""
    tokenizer = load_tokenizer(TOKENIZER)
    alternate.show(f"an index of {pairs:,} pairs")
    big = BigRecords(scratch, pairs=pairs, tokenizer=tokenizer)
    first = scratch / "first"

    def arguments(run_dir: Path) -> list[str]:
        return [
            *SETTINGS, f"--config.data.records={big.folder}", f"--config.run_dir={run_dir}",
            f"--config.steps={step + 2}",
        ]  # fmt: skip

    settings = stage_settings(train.resolve(train.parse_config(arguments(first)))[0])
    config = data_config(settings)
    begin = time.monotonic()
    pipeline = InputPipeline(config, tokenizer=tokenizer)
    rows = range(step * config.rows_per_batch, (step + STEPS) * config.rows_per_batch)
    wanted = [clip for row in rows for clip, _ in pipeline.contents(row)]
    opened = time.monotonic() - begin
    alternate.show(f"opened in {opened:.1f} s; {len(set(wanted))} clips are written")
    big.fill(sorted(set(wanted)))
    pipeline = InputPipeline(config, tokenizer=tokenizer)
    begin = time.monotonic()
    for row in rows:
        pipeline.row(row)
    each = (time.monotonic() - begin) / STEPS
    alternate.show(f"a checkpoint of step {step + 1:,}")
    leave_a_checkpoint(arguments(first), step=step)
    found = []
    for number in range(rounds):
        run_dir = shutil.copytree(first, scratch / f"run{number}")
        big.forget()
        found.append(go_on(arguments(run_dir), run_dir))
        alternate.show(f"round {number + 1} of {rounds}: {found[-1]['first_batch']:.1f} s")
    worst = max(one["first_batch"] for one in found)
    return {
        "pairs": big.pairs,
        "step": step + 1,
        "rows_per_epoch": pipeline.rows_per_epoch,
        "rounds": found,
        "worst_first_batch_seconds": worst,
        "limit_seconds": LIMIT,
        "within_limit": worst < LIMIT,
        "batches_thrown_away_seconds_projected": each * step,
        "ratio_projected": each * step / worst,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.resume",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=10_000_000, help="default 10,000,000")
    parser.add_argument("--step", type=int, default=100_000, help="default 100,000")
    parser.add_argument("--rounds", type=int, default=3, help="resumed so often (default 3)")
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    given = parser.parse_args()
    for folder in (TOKENIZER, WHISPER):
        if not folder.is_dir():
            raise errors.UserError(
                f"no weights in {folder}; make them with `python -m ltu_jax.fetch {folder.name}`"
            )
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch), pairs=given.pairs, step=given.step, rounds=given.rounds)
    print(alternate.table(found["rounds"]))
    print(
        f"first batch {found['worst_first_batch_seconds']:.1f} s after the start at worst; making "
        f"the batches before it would take {found['batches_thrown_away_seconds_projected']:,.0f} s "
        "(a projection)"
    )
    alternate.write("resume", {"what": "resuming a run in the middle"} | found, out=given.out)


if __name__ == "__main__":
    errors.main(main)
