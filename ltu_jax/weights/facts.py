"""What a language model's files say beside its numbers: positions, end tokens, their own settings.

No parameter depends on these facts, so they are no part of a model's config; they travel from the
source into the weights directory (`FACTS`), to answering, which computes no longer text than
the model was made for, and to exports, which give back what the source said.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.weights.files.config_json import read_settings, whole
from ltu_jax.weights.tensors import WeightsError

# Facts of the language model beside its numbers; a directory of before them has none, and `Weights`
# then says that they are unknown. They are no part of `sha256`.
#   max_position_embeddings   positions that the model was made for; longer texts are not computed
#   end_tokens                ids that end a text, the first of them the tokenizer's EOS
#   source_config             config.json of the source, as it was
#   source_generation_config  generation_config.json of the source, as it was
FACTS = ("max_position_embeddings", "end_tokens", "source_config", "source_generation_config")
GENERATION_FILE = "generation_config.json"
# What transformers takes where a config.json of theirs does not say it.
DEFAULT_POSITIONS = {"llama": 2048, "mistral": 4096 * 32, "qwen2": 32768}


def of_hf(
    settings: Mapping[str, Any],
    *,
    folder: Path | None,
    rows: int,
    subject: str,
    max_positions: int | None = None,
) -> dict[str, Any]:
    """Return the facts of a Hugging Face config and of the generation_config.json beside it.

    Args:
        settings: the content of config.json.
        folder: where generation_config.json may lie; None has no such file.
        rows: of the embedding.
        subject: how errors call the source.
        max_positions: use the model up to here only; None takes all that it has.

    Raises:
        WeightsError: an end token without a row, more positions than there are, no number.
    """
    file = None if folder is None else folder / GENERATION_FILE
    generation = read_settings(file) if file is not None and file.is_file() else None
    said = settings if generation is None or generation.get("eos_token_id") is None else generation
    facts: dict[str, Any] = {"source_config": dict(settings)} if "model_type" in settings else {}
    if generation is not None:
        facts["source_generation_config"] = generation
    if (
        count := limited(positions(settings, subject=subject), max_positions, subject=subject)
    ) is not None:
        facts["max_position_embeddings"] = count
    ends = said.get("eos_token_id")
    if ends is not None:
        facts["end_tokens"] = end_tokens(
            ends if isinstance(ends, list) else [ends],
            rows=rows,
            subject=f"{subject}: eos_token_id",
        )
    return facts


def positions(settings: Mapping[str, Any], *, subject: str) -> int | None:
    """Return the positions that a config gives its model; None if it is not transformers'."""
    default = DEFAULT_POSITIONS.get(str(settings.get("model_type")))
    if settings.get("max_position_embeddings") is None and default is None:
        return None
    return whole(settings, "max_position_embeddings", subject=subject, default=default)


def window(settings: Mapping[str, Any], *, layers: int, subject: str) -> int | None:
    """Return how many positions a token sees back; None where it sees all of the text.

    Raises:
        WeightsError: layers of a kind that is not known, or settings that contradict each other.
    """
    kind = settings.get("model_type")
    # Mistral's and Qwen2's default in transformers; Qwen2 uses it only when it is told to
    width = settings.get("sliding_window", 4096 if kind in ("mistral", "qwen2") else None)
    if not settings.get("use_sliding_window", kind != "qwen2"):
        width = None
    told = settings.get("layer_types")
    if told is not None:
        known = ("full_attention", "sliding_attention")
        if not isinstance(told, list) or not all(name in known for name in told):
            raise WeightsError(
                f"{subject}: layer_types {str(told)[:80]} are not implemented; {known[0]} is"
            )
        if width is None and known[1] in told:
            raise WeightsError(
                f"{subject}: layer_types has {known[1]}, but sliding_window is "
                f"{settings.get('sliding_window')!r} and use_sliding_window "
                f"{settings.get('use_sliding_window')!r}; correct one of them"
            )
        if kind == "qwen2" and known[1] not in told:
            width = None
    elif kind == "qwen2" and settings.get("max_window_layers", 28) >= layers:
        width = None  # it begins above the last layer
    return width


def check_window(
    width: Any, count: int | None, *, subject: str, key: str = "sliding_window"
) -> None:
    """Refuse a sliding window that a text of `count` positions can exceed.

    Raises:
        WeightsError: it can, or the window is no number.
    """
    if width is None:
        return
    width = whole({key: width}, key, subject=subject)
    if count is None or width < count:
        raise WeightsError(
            f"{subject}: {key} is {width}, and the model has "
            f"{'unknown' if count is None else count} positions: beyond the window its attention "
            "is not computed here. Import it with "
            f"--max-positions {width}, up to which the window changes nothing"
        )


def limited(count: int | None, limit: int | None, *, subject: str) -> int | None:
    """Return the positions that a user leaves of those that the model has.

    Raises:
        WeightsError: the limit is no count, or above what the model has.
    """
    if limit is None:
        return count
    if limit < 1 or (count is not None and limit > count):
        raise WeightsError(
            f"--max-positions {limit}: {subject} has {'unknown' if count is None else count} "
            "positions; give a number from 1 to that"
        )
    return limit


def end_tokens(ids: list[Any], *, rows: int, subject: str) -> list[int]:
    """Return the ids that end a text, each of them a row of the embedding.

    Raises:
        WeightsError: one of them is not.
    """
    for index in ids:
        if type(index) is not int or not 0 <= index < rows:
            raise WeightsError(
                f"{subject} is {index!r}; the embedding has the rows 0 to {rows - 1}"
            )
    return list(dict.fromkeys(ids))
