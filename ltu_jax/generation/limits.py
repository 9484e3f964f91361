"""The room for a prompt and its answer: positions of the base model, and memory at hand.

Both are asked before anything is computed. What does not fit is one error that names the argument
and the largest value that fits; without it a long question ends in a killed process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ltu_jax.core import memory
from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.values import text, whole
from ltu_jax.generation.arguments import question as a_question
from ltu_jax.generation.buckets import ANSWER_BUCKETS, BATCH_BUCKETS, PROMPT_BUCKETS, bucket, slots
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.request import Request, batches
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.whisper import WhisperConfig
from ltu_jax.preprocessing.text import Tokenizer, prompt_ids

# Of a base that does not say: no LLaMA that this project reads was made for more.
MOST_POSITIONS = 131_072
USUAL = 400  # new tokens, of the published evaluation
_FREE = 64 << 20  # compiled code, and what else a process takes


@dataclass(frozen=True, kw_only=True)
class AnswerSize:
    """The size of one batch: rows computed together, tokens of the longest prompt, new tokens.

    `copies` is how many caches are there at once: one in a compiled loop, two where every step
    gives a new one.
    """

    rows: int
    prompt: int
    audio: int
    new: int
    copies: int = 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of a model's answers.

    Attributes:
        llama: the language model's sizes.
        positions: those it was made for; None if unknown.
        itemsize: bytes of a number of keys, values and activations.
        apart: bytes that long answers take once more, the layers' weights taken apart (`generate`).
        apart_from: new tokens from which they do.
    """

    llama: LlamaConfig
    positions: int | None
    itemsize: int
    apart: int
    apart_from: int

    def needed(self, size: AnswerSize) -> int:
        """Return the bytes of device memory, about, beside the weights."""
        llama, rows = self.llama, size.rows
        prompt = size.audio + bucket(size.prompt, PROMPT_BUCKETS)
        places_for_answer = bucket(size.new, ANSWER_BUCKETS)
        width = llama.num_hidden_layers * llama.num_key_value_heads * llama.head_dim
        room = slots(size.prompt, audio=size.audio, answer=size.new)
        places = size.copies * room + prompt  # the prompt's come in one piece first
        cache = 2 * rows * width * places * self.itemsize
        scores = 2 * 4 * rows * llama.num_attention_heads * prompt**2
        inner = 2 * llama.intermediate_size + 6 * llama.hidden_size
        activations = rows * prompt * inner * max(self.itemsize, 4)
        logits = 8 * 4 * rows * llama.vocab_size
        apart = self.apart if places_for_answer >= self.apart_from else 0
        return cache + scores + activations + logits + apart + _FREE

    def usual(self, *, prompt: int, audio: int) -> int:
        """Return the default number of new tokens: `USUAL`, or what the positions leave."""
        return max(min(USUAL, (self.positions or MOST_POSITIONS) - audio - prompt), 1)

    def check(self, size: AnswerSize, *, longest: Callable[[], str]) -> None:
        """Require room for a batch.

        Args:
            asked: its size.
            longest: what makes its longest prompt, as its caller calls it.

        Raises:
            UserError: names the argument that is too large and the largest value that fits.
        """
        bound = self.positions or MOST_POSITIONS
        whose = "the base model was made for" if self.positions else "are the most this reads"
        left = bound - size.audio - size.prompt
        if left < 1:
            raise UserError(
                f"{longest()}: the prompt has {size.prompt:,} tokens behind {size.audio} of "
                f"audio, and {bound:,} positions {whose}; at most {bound - size.audio - 1:,} "
                "tokens fit: ask shorter"
            )
        if size.new > left:
            raise UserError(
                f"{spell('max_new_tokens', size.new)}: {size.prompt:,} tokens of prompt, "
                f"{size.audio} of audio and the answer must fit into the {bound:,} positions that "
                f"{whose}; give at most {left:,}"
            )
        free = memory.at_hand()
        if self.needed(size) > free:
            raise UserError(self._too_much(size, free, longest))

    def _too_much(self, size: AnswerSize, free: int, longest: Callable[[], str]) -> str:
        """Name the argument to lower, and to what."""

        def most(name: str, value: int) -> int:
            """The largest value of a size that fits, 0 if none does."""
            low, high = 0, value
            while low < high:
                middle = (low + high + 1) // 2
                changed = AnswerSize(**{**vars(size), name: middle})
                low, high = (middle, high) if self.needed(changed) <= free else (low, middle - 1)
            return low

        need = (
            f"{_gigabytes(self.needed(size))} of memory, and {_gigabytes(free)} are free on this "
            "machine"
        )
        new, rows, prompt = (most(n, getattr(size, n)) for n in ("new", "rows", "prompt"))
        if new:
            more = f", or {spell('batch_size')} at most {rows}" if rows and size.rows > 1 else ""
            return (
                f"{spell('max_new_tokens', size.new)} needs about {need}; give at most {new:,}"
                f"{more}"
            )
        if rows:
            return f"{spell('batch_size', size.rows)} needs about {need}; give at most {rows}"
        if prompt:
            return (
                f"{longest()}: a prompt of {size.prompt:,} tokens needs about {need}; at most "
                f"{prompt:,} tokens fit: ask shorter"
            )
        return f"an answer needs about {need}; free some, or use a machine with more"

    def check_logits(self, *, rows: int, length: int, audio: int) -> None:
        """Require room for the logits of every text position.

        Raises:
            UserError: too many positions, or more memory than there is.
        """
        bound = self.positions or MOST_POSITIONS
        if audio + length > bound:
            raise UserError(
                f"input_ids have {length:,} positions behind {audio} of audio, and {bound:,} are "
                f"the most of this model; give at most {bound - audio:,}"
            )

        def needed(count: int) -> int:
            size = AnswerSize(rows=count, prompt=length, audio=audio, new=1)
            return self.needed(size) + 4 * count * length * self.llama.vocab_size

        free = memory.at_hand()
        if needed(rows) > free:
            fit = next((n for n in range(rows - 1, 0, -1) if needed(n) <= free), 0)
            advice = f"give at most {fit} rows" if fit else "give shorter rows"
            raise UserError(
                f"input_ids [{rows}, {length}] need about {_gigabytes(needed(rows))} of memory, "
                f"and {_gigabytes(free)} are free on this machine; {advice}"
            )


def check_encoder(config: WhisperConfig, *, rows: int) -> None:
    """Require room for Whisper over `rows` windows at once.

    Raises:
        UserError: names the batch size and the largest that fits.
    """
    row, free = _encoder_row(config), memory.at_hand() - _FREE
    if rows * row > free:
        raise UserError(
            f"{spell('batch_size', rows)} needs about {_gigabytes(rows * row)} of memory, and "
            f"{_gigabytes(free)} are free on this machine; give at most {max(free // row, 1)}"
        )


def encoder_rows(config: WhisperConfig) -> int:
    """Return over how many windows at once there is room for Whisper; at least 1."""
    return max((memory.at_hand() - _FREE) // _encoder_row(config), 1)


def _encoder_row(config: WhisperConfig) -> int:
    time, state = config.n_audio_ctx, config.n_audio_state
    row = 4 * (2 * config.n_audio_head * time**2 + 16 * time * state)
    return row + 4 * 25 * state * config.n_audio_layer + 4 * 2 * time * config.n_mels


def of_model(
    llama: LlamaConfig,
    params: Mapping[str, Any],
    *,
    positions: int | None,
    apart_from: int,
    cpu: bool,
) -> Limits:
    """Return the limits of a loaded model; on a CPU long answers take its layers' weights twice."""
    layers = sum(leaf.nbytes for path, leaf in params.items() if path.startswith("llama.layers."))
    dtype = params["llama.norm.scale"].dtype  # of the kernels it may be int8
    return Limits(
        llama=llama,
        positions=positions,
        itemsize=np.dtype(dtype).itemsize,
        apart=layers if cpu else 0,
        apart_from=apart_from,
    )


def _gigabytes(count: float) -> str:
    return f"{max(count, 0) / 1e9:,.1f} GB"


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Makes prompts of questions for a model of these limits, with `audio` tokens before them."""

    tokenizer: Tokenizer
    limits: Limits
    audio: int

    def one(
        self, question: Any, spoken_text: Any, *, with_audio: bool, max_new_tokens: Any
    ) -> tuple[list[int], int]:
        """Return the ids of a prompt to stream, and how many may follow; None is `Limits.usual`.

        Raises:
            UserError: an argument that cannot be used, or no room for the prompt and its answer.
        """
        a_question("question", question)
        new = None if max_new_tokens is None else whole("max_new_tokens", max_new_tokens)
        ids = self._ids(question, text("spoken_text", spoken_text))
        audio = self.audio if with_audio else 0
        if new is None:
            new = self.limits.usual(prompt=len(ids), audio=audio)
        self.limits.check(
            AnswerSize(rows=1, prompt=len(ids), audio=audio, new=new, copies=2),
            longest=partial(_longer, question=question, spoken_text=spoken_text),
        )
        return ids, new

    def groups(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int,
        max_new_tokens: Any,
        data_parallel: DataParallel,
    ) -> list[tuple[list[int], list[list[int]], list[int]]]:
        """Return (indices of requests, their ids, how many may follow) of every batch.

        All have room before the first is made.

        Raises:
            UserError: no room, by the request or the argument that asks for too much.
        """
        given = None if max_new_tokens is None else whole("max_new_tokens", max_new_tokens)
        prompts = [self._ids(request.question, request.spoken_text) for request in requests]
        made = []
        for group in batches(requests, prompts, batch_size):
            last = group[-1]  # a group is in the order of its prompts' lengths
            audio = 0 if requests[last].audio_features is None else self.audio
            new = [given or self.limits.usual(prompt=len(prompts[i]), audio=audio) for i in group]
            size = AnswerSize(
                rows=data_parallel.on_one(len(group), BATCH_BUCKETS),
                prompt=len(prompts[last]),
                audio=audio,
                new=given or new[-1],
            )
            request = requests[last]
            longest = partial(
                _longer,
                question=request.question,
                spoken_text=request.spoken_text,
                of=f"requests[{last}].",
            )
            self.limits.check(size, longest=longest)
            made.append((group, [prompts[i] for i in group], new))
        return made

    def _ids(self, question: str, spoken_text: str) -> list[int]:
        return prompt_ids(self.tokenizer, instruction=question, spoken_text=spoken_text)


def _longer(*, question: str, spoken_text: str, of: str = "") -> str:
    """Name the longer of the two texts of a prompt, by its name and beginning."""
    asked = len(question) >= len(spoken_text)
    name, longer = ("question", question) if asked else ("spoken_text", spoken_text)
    return f"{spell(of + name) if not of else of + name} ({longer[:40]!r}...)"
