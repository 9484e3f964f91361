"""Choosing the next token: logit processors in the official order, per row, under `jit`.

The order is that of the released system (facts 21): repetition penalty over every prompt and
generated id -> temperature -> top-k (ties of the k-th kept) -> top-p -> softmax -> draw. Settings
are traced arrays with one entry per row, so requests with different settings share one compiled
program, and every row draws from its own key: a batch never changes what a row answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.core.errors import UserError, on_command_line, spell
from ltu_jax.core.values import number, whole

Pick = Literal["draw", "argmax"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """The draw of one answer; greedy decoding is `None` in place of a config.

    `temperature` > 0 (1 = unchanged), `top_p` in (0, 1] (1 = off), `top_k` >= 0 (0 = off; more
    than the vocabulary means all of it), `repetition_penalty` > 0 (1 = off). `pick="argmax"`
    applies the processors and takes the best token instead of drawing. By default every processor
    is off: a plain draw. Raises `UserError` for a value out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    pick: Pick = "draw"

    def __post_init__(self) -> None:
        # The limits keep float32 scores finite: a score over 1e-30 is infinite, and so are others.
        number("temperature", self.temperature, above=9e-7, most=1e6,
               rule="must be above 0 (1e-6 to 1e6); for greedy decoding "
               + ("leave it out" if on_command_line() else "pass sampling=None"))  # fmt: skip
        number("top_p", self.top_p, above=0, most=1, rule="must be in (0, 1]; 1 turns it off")
        whole("top_k", self.top_k, least=0,
              rule="must be an integer of at least 0; 0 turns it off")  # fmt: skip
        number("repetition_penalty", self.repetition_penalty, above=9e-7, most=1e6,
               rule="must be above 0 (1e-6 to 1e6); 1 turns it off")  # fmt: skip
        whole("seed", self.seed, least=0, most=2**32 - 1,
              rule="must be an integer in [0, 2**32)")  # fmt: skip
        if self.pick not in get_args(Pick):
            raise UserError(f"{spell('pick', self.pick)}: must be one of {get_args(Pick)}")

    @classmethod
    def official(cls, *, seed: int) -> Self:
        """Return the settings of the published evaluation (facts 21)."""
        return cls(temperature=0.1, top_p=0.95, top_k=500, repetition_penalty=1.1, seed=seed)


class RowSettings(NamedTuple):
    """Sampling settings of a batch, one entry per row, ready to be traced."""

    temperature: Float[Array, "B"]
    top_p_tail: Float[Array, "B"]  # 1 - top_p rounded once, as torch compares it; 0 = off
    top_k: Int[Array, "B"]
    repetition_penalty: Float[Array, "B"]
    argmax: Bool[Array, "B"]
    key: Array  # [B] typed PRNG keys


class RowNumbers(NamedTuple):
    """`RowSettings` as they lie in memory and change by rows: a seed in place of its key."""

    temperature: Float[Array, "B"]
    top_p_tail: Float[Array, "B"]
    top_k: Int[Array, "B"]
    repetition_penalty: Float[Array, "B"]
    argmax: Bool[Array, "B"]
    seed: Int[Array, "B"]

    @classmethod
    def of(cls, configs: Sequence[SamplingConfig]) -> Self:
        """Return numpy arrays of one config a row."""
        return cls(
            temperature=np.asarray([c.temperature for c in configs], np.float32),
            top_p_tail=np.asarray([1.0 - c.top_p for c in configs], np.float32),
            top_k=np.asarray([min(c.top_k, np.iinfo(np.int32).max) for c in configs], np.int32),
            repetition_penalty=np.asarray([c.repetition_penalty for c in configs], np.float32),
            argmax=np.asarray([c.pick == "argmax" for c in configs]),
            seed=np.asarray([c.seed for c in configs], np.uint32),
        )

    def settings(self) -> RowSettings:
        """Return the settings, each row with the key of its seed."""
        *numbers, seed = (jnp.asarray(leaf) for leaf in self)
        return RowSettings(*numbers, key=jax.vmap(jax.random.key)(seed))


def row_settings(sampling: SamplingConfig | Sequence[SamplingConfig], *, rows: int) -> RowSettings:
    """One `RowSettings` for `rows` rows from one config for all or one config per row.

    With one config every row gets the same key: what a row draws does not depend on its place in
    the batch. Raises `UserError` when the number of configs is not the number of rows.
    """
    configs = [sampling] * rows if isinstance(sampling, SamplingConfig) else list(sampling)
    if len(configs) != rows:
        raise UserError(f"{len(configs)} sampling configs for {rows} rows; give one or {rows}")
    return RowNumbers.of(configs).settings()


def seen_tokens(
    input_ids: Int[Array, "B T"], *, attention_mask: Array, vocab: int
) -> Bool[Array, "B V"]:
    """Return which ids occur in each row at places where the mask is set (pads do not count)."""
    rows = jnp.arange(input_ids.shape[0])[:, None]
    seen = jnp.zeros((input_ids.shape[0], vocab), bool)
    return seen.at[rows, input_ids].max(attention_mask.astype(bool))


def process(
    logits: Float[Array, "B V"], *, seen: Bool[Array, "B V"], settings: RowSettings
) -> Float[Array, "B V"]:
    """Return processed float32 scores; removed tokens are -inf (facts 21, golden `sampling`)."""
    scores = _penalise(logits.astype(jnp.float32), seen, settings.repetition_penalty[:, None])
    scores = scores / settings.temperature[:, None]
    # The sort takes longer than a step of a small model: only where a row filters.
    return jax.lax.cond(
        jnp.any((settings.top_k > 0) | (settings.top_p_tail > 0)),
        lambda: _top_k_top_p(scores, settings.top_k, settings.top_p_tail),
        lambda: scores,
    )


def choose(scores: Float[Array, "B V"], *, settings: RowSettings, step: Array) -> Int[Array, "B"]:
    """Draw the next token of each row with its key folded with `step`, or take the best.

    `step` is one number for all rows, or one a row.
    """
    keys = jax.vmap(jax.random.fold_in)(settings.key, jnp.broadcast_to(step, settings.key.shape))
    drawn = jax.vmap(jax.random.categorical)(keys, scores)
    return jnp.where(settings.argmax, jnp.argmax(scores, axis=-1), drawn).astype(jnp.int32)


def _penalise(scores: Array, seen: Array, penalty: Array) -> Array:
    """Ids seen before lose score, once, however often they occurred."""
    return jnp.where(seen, jnp.where(scores < 0, scores * penalty, scores / penalty), scores)


def _top_k_top_p(scores: Array, top_k: Array, tail: Array) -> Array:
    """Both filters from one ascending sort.

    Both remove a prefix of the ascending order, so what is kept is described by the first kept
    (value, index) pair, and no scatter back into vocabulary order is needed.
    """
    vocab = scores.shape[-1]
    index = jnp.broadcast_to(jnp.arange(vocab, dtype=jnp.int32), scores.shape)
    ordered, order = jax.lax.sort((scores, index), num_keys=1, is_stable=True)

    k = jnp.where(top_k == 0, vocab, jnp.minimum(top_k, vocab))
    kth = jnp.take_along_axis(ordered, vocab - k[:, None], axis=-1)
    ordered = jnp.where(ordered < kth, -jnp.inf, ordered)

    cumulative = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1)
    removed = jnp.where(tail > 0, jnp.sum(cumulative <= tail[:, None], axis=-1), 0)
    removed = jnp.minimum(removed, vocab - 1)[:, None]  # at least one token stays
    first_value = jnp.take_along_axis(ordered, removed, axis=-1)
    first_index = jnp.take_along_axis(order, removed, axis=-1)

    # With top-p off the first kept value may be -inf; `>=` on the pair then keeps everything.
    among_k = (scores > first_value) | ((scores == first_value) & (index >= first_index))
    return jnp.where((scores >= kth) & among_k, scores, -jnp.inf)
