"""The rules by which Whisper writes what is said: when a text is tried again, when there is none.

The one owner of the rule that training data are made by and models are asked by.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from ltu_jax.core.errors import UserError, brief, spell
from ltu_jax.core.values import number, whole

Task = Literal["transcribe", "translate"]


@dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """The thresholds of openai/whisper; `OPENAI` has its defaults but one, `QUIET` is ours.

    `temperatures` are tried in turn while a text repeats itself (`compression_ratio_limit`) or is
    unlikely (`logprob_limit`), unless the window is silent (`no_speech_limit` and unlikely).
    `language` None detects it with a multilingual model. `condition_on_previous_text` puts the
    text so far into the prompt of the next window. `task` "translate" writes English, whatever is
    spoken; it needs a multilingual model.
    """

    temperatures: tuple[float, ...]
    compression_ratio_limit: float
    logprob_limit: float
    no_speech_limit: float
    timestamps: bool
    language: str | None
    condition_on_previous_text: bool
    seed: int
    task: Task = "transcribe"

    def __post_init__(self) -> None:
        temperatures = self.temperatures
        if not isinstance(temperatures, tuple | list) or not temperatures:
            raise UserError(f"temperatures={brief(temperatures)}: give a tuple of numbers, 0 first")
        for temperature in temperatures:
            number(
                "temperatures", temperature, above=-1e-9, most=100, rule="each must be 0 or more"
            )
        for name in ("compression_ratio_limit", "logprob_limit", "no_speech_limit"):
            value = getattr(self, name)
            number(name, value, above=-1e9, most=1e9, rule="must be a finite number")
        whole("seed", self.seed, least=0, most=2**32 - 1)
        if self.task not in get_args(Task):
            raise UserError(f"task is {brief(self.task)}: give one of {', '.join(get_args(Task))}")


# The official rule. Whisper conditions on the previous text; here that is off, because one invented
# sentence then spreads over the rest of a long clip. Clips of up to 30 s are not affected.
OPENAI = TranscribeOptions(
    temperatures=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    compression_ratio_limit=2.4,
    logprob_limit=-1.0,
    no_speech_limit=0.6,
    timestamps=True,
    language=None,
    condition_on_previous_text=False,
    seed=0,
)

# The rule that the training data's spoken text is made by, and what the model is asked with. Over
# silence, barking or music Whisper invents words ("you", "Mmm!", "Applause"), which would tell the
# class to a model that reads and does not listen. Its own no-speech probability parts the two kinds
# cleanly (speech below 0.22, events above 0.3 but for a few), so here it decides alone, and no
# other temperature is tried.
QUIET = replace(OPENAI, temperatures=(0.0,), logprob_limit=0.0, no_speech_limit=0.25)

RULES = {"quiet": QUIET, "openai": OPENAI}  # by the names that configs and commands know them by


def rule(name: str | None) -> TranscribeOptions:
    """The options of a rule; None is that of the training data.

    Raises:
        UserError: an unknown name.
    """
    name = "quiet" if name is None else name
    if not isinstance(name, str) or name not in RULES:
        raise UserError(
            f"{spell('transcription')} {name!r} is unknown; known are {', '.join(RULES)}"
        )
    return RULES[name]
