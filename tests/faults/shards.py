"""Damage among the records costs exactly the damaged record, and every loss is counted."""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np

from data_pipelines.records import record_files
from data_pipelines.records.bad_records import BadRecordLog
from ltu_jax.preprocessing.text import load_tokenizer
from tests.faults.count import Count
from tests.faults.runs import Lab
from tests.support import damages, records_corpus


def _flipped_payload(directory: Path, clip: str, rng: random.Random) -> set[str]:
    damages.flip(directory, clip, at=rng.randrange(damages.place_of(directory, clip)[1].length))
    return {clip}


def _flipped_length(directory: Path, clip: str, rng: random.Random) -> set[str]:
    path, entry = damages.place_of(directory, clip)
    content = bytearray(path.read_bytes())
    content[entry.offset - 12 + rng.randrange(8)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return set()  # the index says where a record lies


def _truncated(directory: Path, clip: str, rng: random.Random) -> set[str]:
    path, entry = damages.place_of(directory, clip)
    entries = record_files.RecordStore(directory, split="train").entries
    os.truncate(path, entry.offset + rng.randrange(entry.length))
    return {e.clip_id for e in entries if e.shard == entry.shard and e.number >= entry.number}


def _wrong_schema(directory: Path, clip: str, rng: random.Random) -> set[str]:
    change = rng.choice(
        [damage for name, damage in damages.DAMAGES.items() if name != damages.FLIPPED]
    )
    change(directory, clip)
    return {clip}


def _foreign_file(directory: Path, clip: str, rng: random.Random) -> set[str]:
    path, _ = damages.place_of(directory, clip)
    name = rng.choice(["open_asqa_records-train.tfrecord-00007-of-00002", "notes.txt", "a.npz"])
    path.with_name(name).write_bytes(rng.randbytes(5000))
    return set()


_KINDS = (_flipped_payload, _flipped_length, _truncated, _wrong_schema, _foreign_file)


def damage_records(lab: Lab, *, trials: int, seed: int = 0) -> Count:
    """Damage the records of the tiny corpus; every kind and every layout takes its turn.

    Passes when an epoch has all its batches, all else in them is bit for bit what it was, and the
    log has one line, with file and offset, for each record that is lost.
    """

    count, rng = Count(), random.Random(seed)
    folder = lab.make_folder("shards")
    tokenizer = load_tokenizer(records_corpus.TOKENIZER)
    whole_dir = records_corpus.records_dir()
    clips = [entry.clip_id for entry in record_files.RecordStore(whole_dir, split="train").entries]
    while count.tried < trials:
        kind = _KINDS[count.tried % len(_KINDS)]
        layout = list(damages.LAYOUTS)[count.tried // len(_KINDS) % len(damages.LAYOUTS)]
        directory = shutil.copytree(whole_dir, folder / f"damaged{count.tried}")
        victims = kind(directory, rng.choice(clips), rng)
        log = BadRecordLog(folder / f"run{count.tried}")
        options = damages.LAYOUTS[layout] | {"max_bad_share": 1.0}
        whole = damages.open_pipeline(whole_dir, tokenizer, **options)
        damaged = damages.open_pipeline(directory, tokenizer, log=log, **options)
        wrong = _differences(whole, damaged, victims=victims, tokenizer=tokenizer)
        lines = log.path.read_text().splitlines() if log.path.exists() else []
        told = [(line["clip_id"], line["file"], line["offset"]) for line in map(json.loads, lines)]
        if {clip for clip, _, _ in told} != victims or len(told) != len(victims):
            wrong = wrong or f"lost {sorted(victims)}, told {told}"
        for clip, file, offset in told:
            path, entry = damages.place_of(directory, clip)
            if (file, offset) != (str(path), entry.offset):
                wrong = wrong or f"{clip} lies in {path} at {entry.offset}, told {file}, {offset}"
        count.add(failed=f"{kind.__name__}, {layout}: {wrong}" if wrong else None)
        shutil.rmtree(directory)
    return count


def _differences(whole, damaged, *, victims: set[str], tokenizer) -> str:
    steps = whole.steps_per_epoch
    found = 0
    for step, batch in enumerate(damaged.batches(steps=steps)):
        wanted = damages.blanked(
            whole.batch(step), whole, step, tokenizer=tokenizer, victims=victims
        )
        for name, leaf in wanted.items():
            if not np.array_equal(batch[name], leaf):
                return f"{name} of step {step} differs"
        found += 1
    return "" if found == steps else f"{found} of {steps} batches came"
