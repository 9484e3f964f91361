"""The samples of a run on disk: keys of answers, reading, merging when a run ends."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import DELETE, read_jsonl, write_jsonl
from ltu_jax.evaluation.datasets.item import EvaluationMode

GREEDY, SAMPLING = "greedy", "sampling"
# What a sample has from the model: equal for all keys whose input is the same.
ANSWER = ("output", "tokens", "finish_reason", "latency_ms")
# What a line of the samples file must have to be read back; the rest of it is told to people.
_FIELDS = dict.fromkeys(("item_id", "row", "mode", "decoding", "output", "finish_reason"), str)
_FIELDS |= {"draw": int, "tokens": int, "latency_ms": int | float}


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class SampleKey:
    """The name of an answer: item, input mode, decoding, and number of the draw."""

    item_id: str
    mode: EvaluationMode
    decoding: str
    draw: int


def read_samples(out: Path) -> dict[SampleKey, dict[str, Any]]:
    """Read the samples written so far, by any process.

    Raises:
        UserError: a finished line is not a sample.
    """
    samples = {}
    for path in [out / "samples.jsonl", *sorted(out.glob("samples.[0-9]*.jsonl"))]:
        for where, record in read_jsonl(path):
            samples.setdefault(_key(record, where), record)
    return samples


def _key(record: Mapping[str, Any], where: str) -> SampleKey:
    for name, kind in _FIELDS.items():
        if not isinstance(record.get(name), kind):
            raise UserError(f"{where} is not a sample: {name} is {record.get(name)!r}; {DELETE}")
    if record["mode"] not in list(EvaluationMode):
        raise UserError(f"{where} is not a sample: mode is {record['mode']!r}; {DELETE}")
    return SampleKey(
        item_id=record["item_id"],
        mode=EvaluationMode(record["mode"]),
        decoding=record["decoding"],
        draw=record["draw"],
    )


def finish(
    out: Path, samples: Mapping[SampleKey, Mapping[str, Any]], order: Sequence[SampleKey]
) -> None:
    """Write one samples.jsonl of all processes' parts, ordered by `order`, others after them."""
    wanted = [key for key in order if key in samples]
    chosen = set(wanted)
    rest = sorted(key for key in samples if key not in chosen)
    write_jsonl(out / "samples.jsonl", [samples[key] for key in [*wanted, *rest]])
    for part in out.glob("samples.[0-9]*.jsonl"):
        part.unlink()
    for folder in out.glob("features.[0-9]*"):
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()
