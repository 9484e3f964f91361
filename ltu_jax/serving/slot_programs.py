"""The compiled programs of the slots: a few sizes, all known before the first request.

Every call names its program by sizes; a program is compiled when it is first named, which `warm`
does for all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core import memory
from ltu_jax.core.axes import Array
from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.kept_programs import compiled
from ltu_jax.core.trees import Params
from ltu_jax.generation.sampling import RowNumbers, SamplingConfig
from ltu_jax.models.functional import Functional
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.slot_decoding import apart, language_model
from ltu_jax.serving.slot_choice import MOST_ENDS, NO_TOKEN, Allowed, RowChoice, RowLogprobs
from ltu_jax.serving.slot_state import (
    Made,
    NewRow,
    SlotState,
    StepSize,
    advance,
    begin,
    empty_state,
    hear,
    move,
    read,
)

# Places of audio and text that a prompt is padded to; each is one program.
PROMPT_SIZES = (64, 96, 128, 160, 192, 256, 384, 512, 1024, 2048, 4096)
# Places of a row that a step reads; each is one program for each tier.
ROOMS = (256, 512, 2048, 4096)
_FREE = 64 << 20  # bytes of compiled code, and what else a process takes


@dataclass(frozen=True, kw_only=True)
class SlotSizes:
    """The sizes that programs are compiled for.

    Attributes:
        tiers: numbers of rows that a step computes, rising; the last is the number of slots.
        slot_tokens: places of audio, prompt and answer together.
        clips: clips of one request at most.
        steps: tokens of each row that one dispatch makes at most.
        drafts: tokens guessed for requests that ask for prompt lookup; 0 has no such programs.
        prompts: sizes that prompts are padded to; those beyond a slot count for nothing.
        rooms: places of a row that a step reads.
    """

    tiers: tuple[int, ...] = (1, 4, 16)
    slot_tokens: int = 2048
    clips: int = 4
    steps: int = 4
    drafts: int = 0
    prompts: tuple[int, ...] = PROMPT_SIZES
    rooms: tuple[int, ...] = ROOMS

    def __post_init__(self) -> None:
        for name in ("tiers", "prompts", "rooms"):
            sizes = getattr(self, name)
            if not sizes or min(sizes) < 1 or list(sizes) != sorted(set(sizes)):
                raise UserError(f"{spell(name, sizes)}: give rising numbers from 1 on")
        for name, least in (("slot_tokens", 2), ("clips", 0), ("steps", 1), ("drafts", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{spell(name, getattr(self, name))}: must be at least {least}")

    @property
    def slots(self) -> int:
        """Return the rows that can be answered at once."""
        return self.tiers[-1]

    def within(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return those of rising sizes that a slot needs, the last of them its own."""
        return (*(size for size in sizes if size < self.slot_tokens), self.slot_tokens)

    def padded(self, places: int) -> int:
        """Return what a prompt of so many places is padded to."""
        return next(size for size in self.within(self.prompts) if size >= places)

    def room(self, places: int) -> int:
        """Return how much of a row is read for so many places."""
        return next(size for size in self.within(self.rooms) if size >= places)

    def tier(self, rows: int) -> int:
        """Return how many rows are computed for so many."""
        return next(tier for tier in self.tiers if tier >= rows)


def kv_bytes(llama: LlamaConfig, sizes: SlotSizes, *, itemsize: int) -> int:
    """Return the bytes of the keys and values of all slots."""
    width = llama.num_hidden_layers * llama.num_key_value_heads * llama.head_dim
    return 2 * width * sizes.slots * sizes.slot_tokens * itemsize


def needed_bytes(llama: LlamaConfig, sizes: SlotSizes, *, itemsize: int, layers: int) -> int:
    """Return the bytes, about, that the slots and their programs take beside the weights.

    `layers` are the bytes of the layers' weights where they are there once more, taken apart.
    """
    longest, wide = sizes.slot_tokens, max(itemsize, 4)
    width = llama.num_hidden_layers * llama.num_key_value_heads * llama.head_dim
    prompt = 2 * width * longest * itemsize
    scores = 2 * 4 * llama.num_attention_heads * longest**2
    inner = longest * (2 * llama.intermediate_size + 6 * llama.hidden_size) * wide
    logits = 8 * 4 * sizes.slots * (1 + sizes.drafts) * llama.vocab_size
    rows = sizes.slots * (llama.vocab_size + 4 * longest)
    cache = kv_bytes(llama, sizes, itemsize=itemsize)
    return cache + prompt + scores + inner + logits + rows + layers + _FREE


def require_memory(llama: LlamaConfig, sizes: SlotSizes, *, itemsize: int, layers: int) -> None:
    """Require memory for all slots.

    Raises:
        UserError: there is less; the message says how many slots fit, or how long ones.
    """
    free = memory.at_hand()

    def needed(slots: int, tokens: int) -> int:
        fewer = SlotSizes(tiers=(slots,), slot_tokens=tokens, drafts=sizes.drafts)
        return needed_bytes(llama, fewer, itemsize=itemsize, layers=layers)

    if needed(sizes.slots, sizes.slot_tokens) <= free:
        return
    slots = next((n for n in range(sizes.slots, 0, -1) if needed(n, sizes.slot_tokens) <= free), 0)
    tokens = next(
        (n for n in range(sizes.slot_tokens, 127, -64) if needed(sizes.slots, n) <= free), 0
    )
    advice = [f"at most {slots} slots"] * bool(slots) + [f"slots of {tokens} tokens"] * bool(tokens)
    raise UserError(
        f"{sizes.slots} slots of {sizes.slot_tokens} tokens need about "
        f"{needed(sizes.slots, sizes.slot_tokens) / 1e9:,.1f} GB of memory beside the weights, and "
        f"{free / 1e9:,.1f} GB are free on this machine; "
        + (f"give {', or '.join(advice)}" if advice else "use a machine with more")
    )


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """A request as the programs read it; `ids` holds -1, -2, ... where audio tokens stand."""

    ids: np.ndarray
    limit: int
    ends: tuple[int, ...]
    sampling: SamplingConfig | None
    logprobs: bool
    lookup: bool


@dataclass(kw_only=True)
class SlotPrograms:
    """The rows of a model, and the programs that change them; for one thread at a time."""

    model: Functional
    params: Params
    sizes: SlotSizes
    state: SlotState = field(init=False)

    def __post_init__(self) -> None:
        config = self.model.config
        self.hears = isinstance(config, LTUASConfig)
        self.llama: LlamaConfig = config.llama if self.hears else config
        self.audio_tokens = config.audio_tokens if self.hears else 0
        dtype = jnp.dtype(self.params["llama.norm.scale"].dtype)
        cpu = jax.default_backend() == "cpu"
        layers = sum(leaf.nbytes for path, leaf in self.params.items() if "llama.layers." in path)
        require_memory(self.llama, self.sizes, itemsize=dtype.itemsize, layers=layers if cpu else 0)
        self._compiled: dict[tuple, Callable] = {}
        self._layers = None
        if cpu:
            self._layers = self._program(("apart",), (self.params,))(self.params)
        self.state = self._program(("empty",), ())()
        self.words = -(-self.llama.vocab_size // 32)
        places = max(self.sizes.clips * self.audio_tokens, 1)
        self._no_audio = jnp.zeros((places, self.llama.hidden_size), jnp.float32)
        self._free = jax.device_put(self._allowed({}, rows=self.sizes.slots))

    def _empty(self) -> SlotState:
        return empty_state(
            layers=self.llama.num_hidden_layers,
            rows=self.sizes.slots,
            kv_heads=self.llama.num_key_value_heads,
            slot_tokens=self.sizes.slot_tokens,
            head_dim=self.llama.head_dim,
            vocab=self.llama.vocab_size,
            dtype=self.params["llama.norm.scale"].dtype,
        )

    # --- calls ------------------------------------------------------------------------------------

    def enter(
        self,
        request: RowRequest,
        features: tuple[np.ndarray, ...],
        *,
        slot: int,
        allowed: np.ndarray | None,
    ) -> tuple[Array, RowLogprobs]:
        """Read a prompt into a row; return its first token and that token's log-probabilities."""
        audio = self._no_audio
        for number, one in enumerate(features):
            args = (self.params, one, audio, np.int32(number * self.audio_tokens))
            audio = self._program(("hear", one.shape[0]), args)(*args)
        whole = np.zeros((1, self.sizes.slot_tokens), np.int32)
        length = np.int32(len(request.ids))
        whole[0, :length] = request.ids
        args = self._reading(whole, audio, length=length, slot=slot)
        self.state, logits = self._program(("read", args[2].shape[1]), args)(*args)
        bound = {} if allowed is None else {0: allowed}
        new = NewRow(
            ids=whole,
            length=length,
            slot=np.int32(slot),
            choice=_row_choice(request),
            allowed=self._allowed(bound, rows=1),
        )
        args = (self.state, new, logits)
        self.state, token, logprobs = self._program(("begin",), args)(*args)
        return token, logprobs

    def advance(
        self,
        active: np.ndarray,
        allowed: dict[int, np.ndarray],
        *,
        rows: int,
        places: int,
        steps: int,
        lookup: bool,
    ) -> Made:
        """Make up to `steps` tokens in the active rows, all of the first `rows`.

        Args:
            active: bool [slots].
            allowed: what the grammar of a slot allows.
            rows: rows in front that hold all active ones.
            places: of their caches, after the last step.
            steps: at most `sizes.steps`; 1 with a grammar.
            lookup: check drafts.
        """
        sizes = self.sizes
        drafts = sizes.drafts if lookup else 0
        room = sizes.room(min(places + drafts, sizes.slot_tokens))
        args = self._stepping(active, allowed, steps=steps)
        self.state, made = self._program(("advance", sizes.tier(rows), room, drafts), args)(*args)
        return made

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        args = (self.state, np.int32(source), np.int32(target))
        self.state = self._program(("move",), args)(*args)

    def warm(self) -> None:
        """Compile every program, and run the smallest of each kind once; all slots must be free."""
        sizes = self.sizes
        nothing = np.zeros(sizes.slots, bool)
        for size in sizes.within(sizes.prompts):
            args = self._reading(np.zeros((1, size), np.int32), self._no_audio, length=size, slot=0)
            self._program(("read", size), args)
        args = self._stepping(nothing, {}, steps=1)
        for tier in sizes.tiers:
            for room in sizes.within(sizes.rooms):
                for drafts in {0, sizes.drafts}:
                    self._program(("advance", tier, room, drafts), args)
        request = RowRequest(
            ids=np.zeros(1, np.int32), limit=1, ends=(), sampling=None, logprobs=False, lookup=False
        )
        heard: tuple[np.ndarray, ...] = ()
        if self.hears and sizes.clips and self.model.config.audio_layers:
            config = self.model.config
            shape = (config.audio_layers, config.audio_tokens, config.tltr.d_model)
            heard = (np.zeros(shape, np.float32),)
        self.enter(request, heard, slot=0, allowed=None)
        self.advance(nothing, {}, rows=1, places=1, steps=1, lookup=False)
        self.move(0, 0)
        jax.block_until_ready(self.state)

    # --- programs ---------------------------------------------------------------------------------

    def _reading(self, ids: np.ndarray, audio: Array, *, length: int, slot: int) -> tuple[Any, ...]:
        """The arguments of `read` for a prompt of so many of these places."""
        ids = ids[:, : self.sizes.padded(int(length))]
        return self.params, self.state, ids, audio, np.int32(length), np.int32(slot)

    def _stepping(
        self, active: np.ndarray, allowed: dict[int, np.ndarray], *, steps: int
    ) -> tuple[Any, ...]:
        """The arguments of `advance`."""
        given = self._allowed(allowed, rows=self.sizes.slots) if allowed else self._free
        return self.params, self._layers, self.state, active, given, np.int32(steps)

    def _program(self, key: tuple, args: tuple) -> Callable:
        """Return the program of a name and sizes, compiled for these arguments if it is new."""
        found = self._compiled.get(key)
        if found is None:
            name = f"{key} of {self.sizes}, {self.model!r}"
            found = self._compiled[key] = compiled(self._jitted(key), args, name=name)
        return found

    def _jitted(self, key: tuple) -> Any:
        match key:
            case ("apart",):
                return jax.jit(partial(_apart, model=self.model))
            case ("empty",):
                return jax.jit(self._empty)
            case ("hear", _):
                return jax.jit(partial(hear, model=self.model))
            case ("read", _):
                return jax.jit(partial(read, model=self.model), donate_argnums=1)
            case ("begin",):
                return jax.jit(partial(begin), donate_argnums=0)
            case ("move",):
                return jax.jit(partial(move), donate_argnums=0)
            case ("advance", tier, room, drafts):
                size = StepSize(rows=tier, room=room, steps=self.sizes.steps, drafts=drafts)
                step = partial(advance, model=self.model, size=size)
                return jax.jit(step, donate_argnums=2)
        raise KeyError(key)

    def _allowed(self, bound: dict[int, np.ndarray], *, rows: int) -> Allowed:
        words = np.full((rows, self.words), 0xFFFFFFFF, np.uint32)
        for row, one in bound.items():
            words[row] = one
        return Allowed(words=words, bound=np.isin(np.arange(rows), list(bound)))


def _apart(params: Params, *, model: Functional) -> Any:
    return apart(language_model(model.bind(params)))


def _row_choice(request: RowRequest) -> RowChoice:
    """One row's choice, as numpy arrays of one row."""
    ends = np.full((1, MOST_ENDS), NO_TOKEN, np.int32)
    ends[0, : len(request.ends)] = request.ends
    return RowChoice(
        limit=np.asarray([request.limit], np.int32),
        ends=ends,
        greedy=np.asarray([request.sampling is None]),
        wants_logprobs=np.asarray([request.logprobs]),
        lookup=np.asarray([request.lookup]),
        numbers=RowNumbers.of([request.sampling or SamplingConfig()]),
    )


def audio_ids(count: int) -> np.ndarray:
    """Return the ids that stand for so many audio tokens."""
    return -1 - np.arange(count, dtype=np.int32)
