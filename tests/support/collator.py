"""The collator of the official fine-tuning script, with 25 audio positions in front."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltu_jax.preprocessing.text import IGNORE, TokenizedPair


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Left-padded `input_ids`, `labels` int32 [B, T]; `attention_mask` float32 [B, A + T]."""

    input_ids: np.ndarray
    labels: np.ndarray
    attention_mask: np.ndarray


def collate(
    pairs: Sequence[TokenizedPair], *, pad_id: int, audio_tokens: int = 25, pad_multiple: int = 8
) -> Batch:
    """Left-pad to a multiple of `pad_multiple`, with ones for the audio in front of the mask."""
    longest = max(len(pair.input_ids) for pair in pairs)
    width = -(-longest // pad_multiple) * pad_multiple
    input_ids = np.full((len(pairs), width), pad_id, np.int32)
    labels = np.full((len(pairs), width), IGNORE, np.int32)
    mask = np.zeros((len(pairs), audio_tokens + width), np.float32)
    mask[:, :audio_tokens] = 1
    for row, pair in enumerate(pairs):
        length = len(pair.input_ids)
        input_ids[row, width - length :] = pair.input_ids
        labels[row, width - length :] = pair.labels
        mask[row, audio_tokens + width - length :] = 1
    return Batch(input_ids=input_ids, labels=labels, attention_mask=mask)
