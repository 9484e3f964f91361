"""One training row in plain Python: what is heard, and its text laid out."""

from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.input.data_config import DataConfig, FeatureSource, RowLayout
from data_pipelines.records.record_files import TAG_LABELS
from data_pipelines.records.schema import QAPair, RecordError
from data_pipelines.records.tf_example import REWRITE, StoredClip
from ltu_jax.core.axes import Float
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.text import IGNORE, Tokenizer, tokenize_pair

Example = dict[str, np.ndarray]
_SECONDS_TOLERANCE = 0.02  # the writer states the seconds it decoded, in float32
# Columns of a row's text and what a padded place holds (None: the tokenizer's pad id).
COLUMNS = {"input_ids": None, "labels": IGNORE, "segment_ids": 0, "positions": 0, "clip_ids": 0}


def heard(
    record: StoredClip, config: DataConfig, *, shape: tuple[int, ...], where: str
) -> Float[np.ndarray, "..."]:
    """The log-mel [frames, M] or the stored features [W, A, D] of a clip, float32.

    Args:
        shape: what the batch has a place for.

    Raises:
        RecordError: audio that cannot be decoded or does not last as long as the record says,
            numbers that are not finite, another shape.
    """
    if config.features == FeatureSource.STORED:
        name, values = "features", record.features
    else:
        name, values = "log_mel", _log_mel(record, config, where=where)
    if values.shape != shape or values.dtype != np.float32:
        raise RecordError(
            f"{where}: {name} is {values.dtype} {list(values.shape)}, expected float32 "
            f"{list(shape)}; {REWRITE}"
        )
    if not np.isfinite(values).all():
        raise RecordError(
            f"{where}: {name} is not finite; write the records again from sound audio"
        )
    return values


def _log_mel(record: StoredClip, config: DataConfig, *, where: str) -> Float[np.ndarray, "F M"]:
    try:
        decoded = audio.load_audio(record.audio)
    except audio.AudioError as error:
        raise RecordError(f"{where}: field 'audio': {error}") from error
    if abs(decoded.seconds - record.seconds) > _SECONDS_TOLERANCE:
        raise RecordError(
            f"{where}: field 'seconds' is {record.seconds:g}, but the audio lasts "
            f"{decoded.seconds:g} s; {REWRITE}"
        )
    heard = audio.model_log_mel(decoded.samples, n_mels=config.n_mels, frames=config.frames)
    return heard.log_mel


def targets(
    record: StoredClip, label_index: Mapping[str, int], *, where: str
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
    pair: QAPair,
    *,
    spoken_text: str,
    config: DataConfig,
    segment: int,
    clip: int,
    asked: int,
    expected: int,
    where: str,
) -> Example:
    """The text columns of one pair, int32 [its tokens].

    Args:
        segment: number of the pair in its row, from 1.
        clip: number of its clip in the row, from 0.
        asked: tokens of its prompt.
        expected: tokens that the row was planned with.

    Raises:
        RecordError: as `check_tokens`.
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
    check_tokens(
        ids,
        pair,
        tokenizer=tokenizer,
        cutoff=config.cutoff,
        asked=asked,
        expected=expected,
        where=where,
    )
    if config.layout != RowLayout.REFERENCE:
        labels[0] = IGNORE
    return {
        "input_ids": ids,
        "labels": labels,
        "segment_ids": np.full(len(ids), segment, np.int32),
        "positions": config.audio_tokens + np.arange(len(ids), dtype=np.int32),
        "clip_ids": np.full(len(ids), clip, np.int32),
    }


def check_tokens(
    ids: np.ndarray,
    pair: QAPair,
    *,
    tokenizer: Tokenizer,
    cutoff: int,
    asked: int,
    expected: int,
    where: str,
) -> None:
    """Require of the tokens of a pair, int32 [N], what a step may be given.

    Args:
        cutoff: most tokens of a pair.
        asked: tokens of its prompt.
        expected: tokens that its row was planned with.

    Raises:
        RecordError: a token outside the vocabulary, another number of tokens, or an answer that is
            no token at all.
    """
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
    answer = ids[asked:]
    if len(ids) < cutoff and (answer == tokenizer.eos_id).all():  # cut ones are counted
        raise RecordError(
            f"{where}, pair {pair.pair_id!r}: field 'output' is {pair.output!r}, which is no token "
            "in this vocabulary; give text that says something"
        )


def blank_columns(length: int, *, pad_id: int) -> Example:
    """The text columns of `length` places that hold nothing: padding, seen by none, no target."""
    return {
        name: np.full(length, pad_id if value is None else value, np.int32)
        for name, value in COLUMNS.items()
    }


def padded(
    example: Example, *, length: int, pad_id: int, left: bool, names: Sequence[str]
) -> list[np.ndarray]:
    """The text columns `names` of a row, each padded to `length` on the left or right."""
    missing = length - len(example["input_ids"])
    widths = (missing, 0) if left else (0, missing)
    fill = {**COLUMNS, "input_ids": pad_id}
    return [np.pad(example[name], widths, constant_values=fill[name]) for name in names]
