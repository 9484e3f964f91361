"""The prompt template, labels and cut-off of LTU-AS, and the cleaning of transcripts.

Behaviour follows the official fine-tuning script (alpaca_short template, transformers 4.28 slow
LlamaTokenizer), checked against `tests/golden/text_cases`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

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


# --- prompt and labels ----------------------------------------------------------------------


def prompt(instruction: str, spoken_text: str | None) -> str:
    """Return the alpaca_short prompt; "" or None leaves the Input block out, blanks do not."""
    head = f"### Instruction:\n{instruction}\n\n"
    if spoken_text:
        head += f"### Input:\n{spoken_text}\n\n"
    return f"{head}{_RESPONSE}\n"


def prompt_ids(tokenizer: Tokenizer, *, instruction: str, spoken_text: str | None) -> list[int]:
    """Return BOS and the ids of the prompt: what generation starts from."""
    return [tokenizer.bos_id, *tokenizer.encode(prompt(instruction, spoken_text))]


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
        prompt_tokens = len(prompt_ids(tokenizer, instruction=instruction, spoken_text=spoken_text))
        prompt_tokens = min(prompt_tokens, len(ids))
        labels[:prompt_tokens] = [IGNORE] * prompt_tokens
    return TokenizedPair(input_ids=ids, labels=labels)


# --- cleaning ---------------------------------------------------------------------------

_THANKS = re.compile(
    r"(?:(?:[Tt]hanks|[Tt]hank you) for watching|THANKS FOR WATCHING|THANK YOU FOR WATCHING)[.!]?"
)


def remove_thanks(transcript: str) -> str:
    """Remove "thanks for watching" and its like, which Whisper invents on clips without speech."""
    return _THANKS.sub("", transcript)
