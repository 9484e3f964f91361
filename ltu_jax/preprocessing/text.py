"""The prompt template, labels and cut-off of LTU-AS, and the cleaning of transcripts.

Behaviour follows the official fine-tuning script (alpaca_short template, transformers 4.28 slow
LlamaTokenizer, DataCollatorForSeq2Seq with 25 audio positions in front), checked against
`tests/golden/text_cases`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.tokenizer import Tokenizer
from ltu_jax.preprocessing.tokenizer import load_tokenizer as load_tokenizer

IGNORE = -100  # label of a position that carries no loss

_RESPONSE = "### Response:"


class TrainOn(StrEnum):
    """Which tokens carry the loss: the whole sequence (the official setting) or the answer only."""

    ALL = "all"
    ANSWER = "answer"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise UserError(f"train_on is {value!r}; it is one of {[str(known) for known in cls]}")


# --- prompt, labels, batches ----------------------------------------------------------------------


def prompt(instruction: str, spoken_text: str | None) -> str:
    """Return the alpaca_short prompt; "" or None leaves the Input block out, blanks do not."""
    head = f"### Instruction:\n{instruction}\n\n"
    if spoken_text:
        head += f"### Input:\n{spoken_text}\n\n"
    return f"{head}{_RESPONSE}\n"


def prompt_ids(tokenizer: Tokenizer, *, instruction: str, spoken_text: str | None) -> list[int]:
    """Return BOS and the ids of the prompt: what generation starts from."""
    return [tokenizer.bos_id, *tokenizer.encode(prompt(instruction, spoken_text))]


def response(text: str) -> str:
    """Return the stripped text between the first "### Response:" and the next (get_response)."""
    parts = text.split(_RESPONSE)
    if len(parts) < 2:
        raise UserError(f"no {_RESPONSE!r} in {text[:80]!r}")
    return parts[1].strip()


@dataclass(frozen=True, kw_only=True)
class TokenizedPair:
    """A tokenised question and answer: ids from BOS to EOS (when not cut), labels as long."""

    input_ids: list[int]
    labels: list[int]


def tokenize_pair(
    tokenizer: Tokenizer,
    *,
    instruction: str,
    spoken_text: str | None,
    output: str,
    cutoff: int,
    train_on: TrainOn | str = TrainOn.ALL,
) -> TokenizedPair:
    """Tokenise prompt + answer as the official fine-tuning script does.

    The ids are cut on the right to `cutoff` including BOS; EOS follows only when the result is
    shorter than `cutoff` and does not end in EOS already, so a cut example never learns to stop.
    Labels are not shifted: a copy of the ids, where `train_on="answer"` (the official
    train_on_inputs=False) puts -100 on as many tokens as the prompt alone has. The official code
    with add_eos_token=True leaves one prompt token unmasked when the prompt itself was cut; that is
    a bug and not copied. Raises UserError on a cutoff below 2.
    """
    train_on = TrainOn(train_on)
    if cutoff < 2:
        raise UserError(f"cutoff is {cutoff}; it must leave room for BOS and one token")
    text = prompt(instruction, spoken_text) + output
    ids = [tokenizer.bos_id, *tokenizer.encode(text)][:cutoff]
    if len(ids) < cutoff and ids[-1] != tokenizer.eos_id:
        ids.append(tokenizer.eos_id)
    labels = list(ids)
    if train_on is TrainOn.ANSWER:
        asked = len(prompt_ids(tokenizer, instruction=instruction, spoken_text=spoken_text))
        asked = min(asked, len(ids))
        labels[:asked] = [IGNORE] * asked
    return TokenizedPair(input_ids=ids, labels=labels)


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
    if not pairs:
        raise UserError("collate got no pairs")
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


# --- names and cleaning ---------------------------------------------------------------------------

_THANKS = re.compile(
    r"(?:(?:[Tt]hanks|[Tt]hank you) for watching|THANKS FOR WATCHING|THANK YOU FOR WATCHING)[.!]?"
)


def remove_thanks(transcript: str) -> str:
    """Remove "thanks for watching" and its like, which Whisper invents on clips without speech."""
    return _THANKS.sub("", transcript)


def feature_name(audio_id: str) -> str:
    """Return the official name of a clip's feature file: three folders and the stem, by "_"."""
    *folders, file = audio_id.split("/")
    return "_".join(folders[-3:]) + "_" + ".".join(file.split(".")[:-1]) + ".npz"
