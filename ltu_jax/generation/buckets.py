"""The few sizes that programs are compiled for, and prompts padded to them."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Int

PROMPT_BUCKETS = (16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512)
# Slots of the cache for a prompt. Each is another program for every answer size; with a single one
# of 512 every token of a short prompt would read a cache that is mostly empty.
PROMPT_ROOMS = (64, 128, 256, 512)
ANSWER_BUCKETS = (8, 16, 32, 64, 128, 256, 512)
BATCH_BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
PAD_ID = 0


def bucket(n: int, sizes: Sequence[int]) -> int:
    """Return the smallest size that holds `n`; beyond the last, the next multiple of the last."""
    return next((size for size in sizes if size >= n), -(-n // sizes[-1]) * sizes[-1])


def left_pad(
    rows: Sequence[Sequence[int]], *, length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pad token lists on the left with 0 to int32 [B, T]; return them and the mask of real tokens.

    Raises `ValueError` for an empty prompt or one longer than `length`.
    """
    longest = max(len(row) for row in rows)
    length = bucket(longest, PROMPT_BUCKETS) if length is None else length
    ids = np.full((len(rows), length), PAD_ID, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for index, row in enumerate(rows):
        if not 0 < len(row) <= length:
            raise ValueError(f"prompt {index} has {len(row)} tokens; give 1 to {length}")
        ids[index, length - len(row) :] = row
        mask[index, length - len(row) :] = True
    return ids, mask


def text_positions(mask: Int[Array, "B T"], *, audio_tokens: int) -> Int[Array, "B S"]:
    """Count `[audio][pads][text]`: `cumsum(mask) - 1`, 1 at masked places (facts 19)."""
    full = jnp.concatenate(
        [jnp.ones((mask.shape[0], audio_tokens), jnp.int32), mask.astype(jnp.int32)], axis=1
    )
    return jnp.where(full > 0, jnp.cumsum(full, axis=1) - 1, 1)


def slots(prompt: int, *, audio: int, answer: int) -> int:
    """Return the slots of the cache for a prompt and an answer of at most so many tokens."""
    return audio + bucket(prompt, PROMPT_ROOMS) + bucket(answer, ANSWER_BUCKETS)
