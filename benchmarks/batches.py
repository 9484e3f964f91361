"""Random question-answer pairs about clips, as batches of every layout the benchmarks compare.

Lengths are uniform between 48 and 108 tokens: their mean of 78 is what the official logs of stage
3 say a pair has, and 108 is the recipe's cut-off.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ltu_jax.preprocessing.text import IGNORE

SHORTEST, CUTOFF = 48, 108
MULTIPLE = 8  # the official collator pads to it
GROUPED_AT_ONCE = 50  # batches that group_by_length sorts together
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Token ids of a pair, and which clip it asks about."""

    ids: np.ndarray
    clip: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """The same pairs as lists of batches: rows in the order drawn, rows of like length, grouped."""

    pairs: int
    text_tokens: int
    random: tuple[Batch, ...]
    sorted: tuple[Batch, ...]
    grouped: tuple[Batch, ...]


def make_work(
    *,
    vocab: int,
    feature_shape: tuple[int, int, int],
    batches: int,
    pairs_per_batch: int,
    pairs_per_clip: int,
    seed: int,
) -> Work:
    """Draw pairs as a length-grouped epoch would hand them out, and lay them out three ways.

    Of 50 batches sorted by length the benchmark takes a few at equal distances, so its lengths are
    those of the whole and its sorted batches have as little padding as the official ones.

    Args:
        vocab: ids are below it.
        feature_shape: of one clip, [W, A, D].
        batches: how many of each list.
        pairs_per_batch: a multiple of `pairs_per_clip`.
        pairs_per_clip: pairs that share a clip, and a row where rows are grouped.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(SHORTEST, CUTOFF + 1, GROUPED_AT_ONCE * pairs_per_batch)
    drawn = np.sort(drawn).reshape(GROUPED_AT_ONCE, pairs_per_batch)
    lengths = drawn[((np.arange(batches) + 0.5) / batches * GROUPED_AT_ONCE).astype(int)].ravel()
    clips = rng.permutation(np.arange(lengths.size) // pairs_per_clip)
    features = rng.normal(size=(clips.max() + 1, *feature_shape)).astype(np.float32)
    pairs = [
        Pair(ids=rng.integers(3, vocab, length).astype(np.int32), clip=int(clip))
        for length, clip in zip(lengths, clips, strict=True)
    ]
    order = rng.permutation(lengths.size)
    rows = [[pair for pair in pairs if pair.clip == clip] for clip in range(len(features))]
    rows_per_batch = pairs_per_batch // pairs_per_clip
    return Work(
        pairs=lengths.size,
        text_tokens=int(lengths.sum()),
        random=tuple(
            reference([pairs[place] for place in part], features)
            for part in order.reshape(batches, -1)
        ),
        sorted=tuple(
            reference(pairs[start : start + pairs_per_batch], features)
            for start in range(0, len(pairs), pairs_per_batch)
        ),
        grouped=tuple(
            grouped(rows[start : start + rows_per_batch], features)
            for start in range(0, len(rows), rows_per_batch)
        ),
    )


def reference(pairs: Sequence[Pair], features: np.ndarray) -> Batch:
    """Lay out the official collator's batch: a pair a row, left pads, positions count them."""
    longest = _rounded(max(len(pair.ids) for pair in pairs))
    batch = _empty(len(pairs), longest, audio_tokens=features.shape[2])
    for row, pair in enumerate(pairs):
        start = longest - len(pair.ids)
        batch["input_ids"][row, start:] = pair.ids
        batch["labels"][row, start:] = pair.ids
        batch["segment_ids"][row, start:] = 1
    batch["positions"][:] = np.arange(batch["positions"].shape[1])
    return batch | {"features": features[[pair.clip for pair in pairs]]}


def grouped(rows: Sequence[Sequence[Pair]], features: np.ndarray) -> Batch:
    """Lay out rows of [audio][pair 1][pair 2]...: the pairs of a row ask about one clip."""
    longest = _rounded(max(sum(len(pair.ids) for pair in row) for row in rows))
    audio_tokens = features.shape[2]
    batch = _empty(len(rows), longest, audio_tokens=audio_tokens)
    batch["positions"][:, :audio_tokens] = np.arange(audio_tokens)
    for number, row in enumerate(rows):
        start = 0
        for segment, pair in enumerate(row, start=1):
            place = slice(start, start + len(pair.ids))
            batch["input_ids"][number, place] = pair.ids
            batch["labels"][number, place] = [IGNORE, *pair.ids[1:]]
            batch["segment_ids"][number, place] = segment
            counted = audio_tokens + np.arange(len(pair.ids))
            batch["positions"][number, audio_tokens:][place] = counted
            start = place.stop
    return batch | {"features": features[[row[0].clip for row in rows]]}


def with_true_positions(batch: Batch) -> Batch:
    """Lay out a reference batch as grouped rows see it: positions skip pads, BOS is no target."""
    audio_tokens = batch["features"].shape[2]
    real = np.pad(batch["segment_ids"], ((0, 0), (audio_tokens, 0)), constant_values=1)
    first = np.argmax(batch["segment_ids"], axis=1)
    labels = batch["labels"].copy()
    labels[np.arange(len(labels)), first] = IGNORE
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0).astype(np.int32)
    return batch | {"labels": labels, "positions": positions}


def _rounded(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE


def _empty(rows: int, length: int, *, audio_tokens: int) -> Batch:
    return {
        "input_ids": np.zeros((rows, length), np.int32),
        "labels": np.full((rows, length), IGNORE, np.int32),
        "segment_ids": np.zeros((rows, length), np.int32),
        "positions": np.zeros((rows, audio_tokens + length), np.int32),
    }
