"""How many tokens each pair has, counted once per tokenizer and kept beside the records.

    DIR/tokens/<tokenizer>/<shard>.npz    "counts" int32 [P, 2], pairs in the order of the shard;
                                          "shard" the SHA-256 of what was counted

With them rows are packed to the token, and every host knows the padded length of a global batch
without asking the others. `write_records --tokenizer` counts them, and so does
`python -m data_pipelines.token_lengths`, in many processes. A pipeline that finds none counts up to
`MOST_UNCOUNTED` pairs itself and refuses more.
"""

import functools
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipelines.records import record_files
from data_pipelines.records.array_cache import keep_arrays, load_arrays
from data_pipelines.records.schema import RecordError
from data_pipelines.records.tf_example import parse
from ltu_jax.core.axes import Int
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import as_path, in_turn
from ltu_jax.preprocessing.text import Tokenizer, load_tokenizer, prompt_ids, tokenize_pair

FOLDER = "tokens"
UNREADABLE = (1, 1)  # counts of a pair whose record is damaged: one place in a row, left empty
MOST_UNCOUNTED = 200_000  # pairs that a start counts itself, a minute or two
_WITHOUT_CUTOFF = 1 << 30


def command(records: str | Path, tokenizer_dir: str | Path) -> str:
    """Return the command that counts the tokens of all pairs of a records directory."""
    return (
        f"python -m data_pipelines.token_lengths --records {shlex.quote(str(records))} "
        f"--tokenizer {shlex.quote(str(tokenizer_dir))} --workers {os.cpu_count() or 1}"
    )


def pair_tokens(
    tokenizer: Tokenizer, *, instruction: str, spoken_text: str, output: str
) -> tuple[int, int]:
    """Count the tokens of the prompt with BOS, and of the whole uncut pair with BOS and EOS.

    A pair cut at c has min(whole, c) tokens, min(prompt, c) of them from the prompt.
    """
    prompt = prompt_ids(tokenizer, instruction=instruction, spoken_text=spoken_text)
    whole = tokenize_pair(
        tokenizer,
        instruction=instruction,
        spoken_text=spoken_text,
        output=output,
        cutoff=_WITHOUT_CUTOFF,
    )
    return len(prompt), len(whole.input_ids)


def token_lengths(
    directory: str | Path,
    *,
    split: str,
    tokenizer: Tokenizer,
    show: bool,
    tokenizer_dir: str | Path | None = None,
) -> Int[np.ndarray, "P 2"]:
    """Count the (prompt, whole) tokens of every pair of a split, in the order of its records.

    What has not been counted yet is counted now, and kept where the folder can be written. Pairs
    of a damaged record have `UNREADABLE` counts, which are not kept.

    Args:
        directory: records directory.
        split: of it.
        tokenizer: of the language model.
        show: whether a bar moves while pairs are counted.
        tokenizer_dir: its folder, for the command in a message.

    Raises:
        UserError: not a records directory, a damaged index, or more pairs to count than
            `MOST_UNCOUNTED`; the message is the command that counts them.
    """
    shards = record_files.read_manifest(directory)["splits"][split]["shards"]
    kept = functools.partial(_kept, directory, tokenizer=tokenizer)
    counts_of = in_turn(shards, kept, remote=directory)
    missing = [index for index, counts in enumerate(counts_of) if counts is None]
    pairs = sum(len(record_files.read_index(directory, shards[index]).tasks) for index in missing)
    if pairs > MOST_UNCOUNTED:
        raise UserError(
            f"the tokens of {pairs:,} pairs of {directory}, split {split!r}, are not counted for "
            f"this tokenizer; count them once: "
            f"{command(directory, tokenizer_dir or 'LLAMA_WEIGHTS')}"
        )
    bar = tqdm(missing, desc="counting tokens", unit="shard", disable=None if show else True)
    for index in bar:
        counts_of[index] = _count(directory, shards[index], tokenizer=tokenizer)
    return np.concatenate(counts_of)


def folder(directory: str | Path, *, tokenizer: Tokenizer) -> Path:
    """Return the folder of what is counted with a tokenizer."""
    return as_path(directory) / FOLDER / tokenizer.identity[:16]


def _path(directory: str | Path, shard: dict[str, Any], *, tokenizer: Tokenizer) -> Path:
    return folder(directory, tokenizer=tokenizer) / f"{shard['file']}.npz"


def _kept(
    directory: str | Path, shard: dict[str, Any], *, tokenizer: Tokenizer
) -> np.ndarray | None:
    arrays = load_arrays(_path(directory, shard, tokenizer=tokenizer)) or {}
    current = str(arrays.get("shard")) == shard["sha256"]
    return arrays.get("counts") if current else None


def _count(directory: str | Path, shard: dict[str, Any], *, tokenizer: Tokenizer) -> np.ndarray:
    counts, damaged = [], False
    entries = record_files.read_index(directory, shard)
    payloads = record_files.read_payloads(directory, entries)
    for entry, payload in zip(entries, payloads, strict=True):
        try:
            if isinstance(payload, RecordError):
                raise payload
            record = parse(payload, where=record_files.where(directory, entry))
        except RecordError:  # whoever reads the record names it
            damaged = True
            counts += [UNREADABLE] * len(entry.pairs)
            continue
        counts += [
            pair_tokens(
                tokenizer,
                instruction=pair.instruction,
                spoken_text=record.spoken_text,
                output=pair.output,
            )
            for pair in record.pairs
        ]
    counted = np.asarray(counts, np.int32).reshape(-1, 2)
    if damaged:  # counted again once it is repaired
        return counted
    # Records may lie where nothing can be written; then every start counts them again.
    arrays = {"counts": counted, "shard": np.asarray(shard["sha256"])}
    keep_arrays(_path(directory, shard, tokenizer=tokenizer), arrays)
    return counted


@functools.cache
def _tokenizer(path: Path) -> Tokenizer:
    return load_tokenizer(path)


def count_shard(job: tuple[Path, dict[str, Any], Path]) -> int:
    directory, shard, tokenizer = job
    counts = _kept(directory, shard, tokenizer=_tokenizer(tokenizer))
    if counts is None:
        counts = _count(directory, shard, tokenizer=_tokenizer(tokenizer))
    return len(counts)
