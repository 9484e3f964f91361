"""One training row in plain Python: what is heard, and its text laid out."""

from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.data_config import DataConfig, Features, Layout
from data_pipelines.records import TAG_LABELS, Record
from data_pipelines.schema import Pair, RecordError
from ltu_jax.core.axes import Float
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.text import IGNORE, Tokenizer, tokenize_pair

Example = dict[str, np.ndarray]
# Columns of a row's text and what a padded place holds (None: the tokenizer's pad id).
COLUMNS = {"input_ids": None, "labels": IGNORE, "segment_ids": 0, "positions": 0, "clip_ids": 0}


def heard(record: Record, config: DataConfig, *, where: str) -> Float[np.ndarray, "..."]:
    """The log-mel [frames, M] or the stored features [W, A, D] of a clip, float32.

    Raises:
        RecordError: audio that cannot be decoded, or numbers that are not finite.
    """
    if config.features == Features.STORED:
        name, values = "features", record.features
    else:
        try:
            samples = audio.load_audio(record.audio).samples
        except audio.AudioError as error:
            raise RecordError(f"{where}: field 'audio': {error}") from error
        name = "log_mel"
        values = audio.model_log_mel(samples, n_mels=config.n_mels, frames=config.frames).log_mel
    if not np.isfinite(values).all():
        raise RecordError(
            f"{where}: {name} is not finite; write the records again from sound audio"
        )
    return values


def targets(
    record: Record, label_index: Mapping[str, int], *, where: str
) -> Float[np.ndarray, "N"]:
    """The clip's labels as 0 and 1; raises `RecordError` for one that has no place."""
    marked = np.zeros(len(label_index), np.float32)
    for tag in record.tags:
        if tag not in label_index:
            raise RecordError(
                f"{where}: field 'tags': {tag!r} is not in {TAG_LABELS}; add it there"
            )
        marked[label_index[tag]] = 1
    return marked


def pair_columns(
    tokenizer: Tokenizer,
    pair: Pair,
    *,
    spoken_text: str,
    config: DataConfig,
    segment: int,
    clip: int,
    expected: int,
    where: str,
) -> Example:
    """The text columns of one pair, int32 [its tokens].

    Args:
        segment: number of the pair in its row, from 1.
        clip: number of its clip in the row, from 0.
        expected: tokens that the row was planned with.

    Raises:
        RecordError: a token outside the vocabulary, or another number of tokens than planned.
    """
    tokens = tokenize_pair(
        tokenizer,
        instruction=pair.instruction,
        spoken_text=spoken_text,
        output=pair.output,
        cutoff=config.cutoff,
        train_on=config.train_on,
    )
    ids = np.asarray(tokens.input_ids, np.int32)
    labels = np.asarray(tokens.labels, np.int32)
    if ids.min() < 0 or ids.max() >= tokenizer.vocab_size:
        raise RecordError(
            f"{where}, pair {pair.pair_id!r}: token {ids.max()} is outside the "
            f"vocabulary of {tokenizer.vocab_size}; use the tokenizer of this model"
        )
    if len(ids) != expected:
        raise RecordError(
            f"{where}, pair {pair.pair_id!r}: {len(ids)} tokens, but {expected} were counted; the "
            "records changed since: delete the folder 'tokens' beside them"
        )
    if config.layout != Layout.REFERENCE:
        labels[0] = IGNORE
    return {
        "input_ids": ids,
        "labels": labels,
        "segment_ids": np.full(len(ids), segment, np.int32),
        "positions": config.audio_tokens + np.arange(len(ids), dtype=np.int32),
        "clip_ids": np.full(len(ids), clip, np.int32),
    }


def padded(
    example: Example, *, length: int, pad_id: int, left: bool, names: Sequence[str]
) -> list[np.ndarray]:
    """The text columns `names` of a row, each padded to `length` on the left or right."""
    missing = length - len(example["input_ids"])
    widths = (missing, 0) if left else (0, missing)
    fill = {**COLUMNS, "input_ids": pad_id}
    return [np.pad(example[name], widths, constant_values=fill[name]) for name in names]
