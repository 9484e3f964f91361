"""The text of a batch as the models and the loss read it: arrays that belong together, as one."""

import dataclasses
from collections.abc import Mapping
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.preprocessing.text import IGNORE

TARGET_POSITIONS, TARGET_IDS, ROW_WEIGHTS = "target_positions", "target_ids", "row_weights"
# The share of a row's length that its targets may fill, per bucket: few shapes to compile, and
# the last one always suffices.
_BUCKETS = (0.375, 0.75, 1.0)
_MULTIPLE = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TextBatch:
    """Rows of tokens that follow the audio of their clips; fields are called as in input batches.

    Attributes:
        input_ids: tokens.
        segment_ids: pair of each token, 0 for padding.
        positions: RoPE positions of [audio][text].
        clip_ids: clip 0..G-1 of each token; None where a row has one clip or none.
        target_positions: text positions that predict a target.
        target_ids: the targets, -100 in unused places.
        row_weights: factor of a row's targets in the loss; None for the mean over all targets.
    """

    input_ids: Int[Array, "B T"]
    segment_ids: Int[Array, "B T"]
    positions: Int[Array, "B S"]
    clip_ids: Int[Array, "B T"] | None = None
    target_positions: Int[Array, "B P"] | None = None
    target_ids: Int[Array, "B P"] | None = None
    row_weights: Float[Array, "B"] | None = None

    @classmethod
    def of(cls, batch: Mapping[str, Array]) -> Self:
        """Pick the text out of a batch of the input pipeline, which holds audio too."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: batch[name] for name in names if name in batch})

    def visible(self, *, audio_tokens: int, clips: int = 1) -> Bool[Array, "B S S"]:
        """Return which position of [audio][text] sees which.

        Audio is causal and seen by every text position, pads included. Text sees earlier text of
        its own segment; a pad (segment 0) is seen by nobody, so several pairs about one clip share
        a row. With `clip_ids` the audio of a clip is seen by itself and by the text with its
        number only.

        Args:
            audio_tokens: of all clips together.
            clips: clips in a row, their audio one after another.
        """
        batch, time = self.segment_ids.shape
        total = audio_tokens + time
        causal = jnp.tril(jnp.ones((total, total), bool))
        padded = jnp.pad(self.segment_ids, ((0, 0), (audio_tokens, 0)), constant_values=-1)
        same = (padded[:, :, None] == padded[:, None, :]) & (padded != 0)[:, None, :]
        audio_key = (jnp.arange(total) < audio_tokens)[None, None, :]
        seen = causal[None] & (same | audio_key)
        if self.clip_ids is None:
            return seen
        ahead = jnp.repeat(jnp.arange(clips, dtype=self.clip_ids.dtype), audio_tokens // clips)
        ahead = jnp.broadcast_to(ahead, (batch, audio_tokens))
        clip = jnp.concatenate([ahead, self.clip_ids], axis=1)
        return seen & (~audio_key | (clip[:, :, None] == clip[:, None, :]))


def with_targets(batch: Mapping[str, np.ndarray], *, most: int = 0) -> dict[str, np.ndarray]:
    """Replace host "labels" by the positions and ids of their targets.

    A target is `labels[t + 1] != -100`, predicted from position t. The vocabulary head is the
    dearest layer per token, so it runs at target positions only. All rows get P places: the
    smallest bucket of T that holds the row with the most targets, so nothing is ever cut. Several
    processes must agree on P though each sees only its own rows: they give the same `most`.

    Args:
        batch: rows of text with "labels" [B, T].
        most: targets that some row has, here or in another process; T - 1 for P = T - 1.

    Returns:
        the batch with int32 "target_positions" [B, P] (position t that predicts) and "target_ids"
        [B, P] (-100 in unused places) instead of "labels" [B, T].
    """
    shifted = np.asarray(batch["labels"])[:, 1:]
    targets = shifted != IGNORE
    places = _bucket(int(targets.sum(axis=1).max(initial=most)), length=shifted.shape[1])
    # A stable sort of "no target" brings the positions of targets to the front, in order.
    positions = np.argsort(~targets, axis=1, kind="stable")[:, :places].astype(np.int32)
    ids = np.take_along_axis(shifted, positions, axis=1).astype(np.int32)
    rest = {name: leaf for name, leaf in batch.items() if name != "labels"}
    return {**rest, TARGET_POSITIONS: positions, TARGET_IDS: ids}


def _bucket(needed: int, *, length: int) -> int:
    for share in _BUCKETS:
        places = min(length, -(-int(np.ceil(length * share)) // _MULTIPLE) * _MULTIPLE)
        if needed <= places:
            return places
    return length
