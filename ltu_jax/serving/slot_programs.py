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

from ltu_jax.core.axes import Array
from ltu_jax.core.kept_programs import compiled
from ltu_jax.core.trees import Params
from ltu_jax.generation.sampling import RowNumbers, SamplingConfig
from ltu_jax.models.functional import Functional
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.slot_decoding import apart, language_model
from ltu_jax.serving.slot_choice import MOST_ENDS, NO_TOKEN, Allowed, RowChoice, RowLogprobs
from ltu_jax.serving.slot_sizes import Beginning, RestPart, SlotSizes, require_memory
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
    read_on,
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
        self.on_cpu = jax.default_backend() == "cpu"
        layers = sum(leaf.nbytes for path, leaf in self.params.items() if "llama.layers." in path)
        require_memory(
            self.llama, self.sizes, itemsize=dtype.itemsize, layers=layers if self.on_cpu else 0
        )
        self._compiled: dict[tuple, Callable] = {}
        self._layers = None
        if self.on_cpu:
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
        beginning: Beginning | None = None,
    ) -> tuple[Array, RowLogprobs]:
        """Read a prompt into a row; return its first token and that token's log-probabilities.

        What its beginning has is not read: that is all of its audio at least, and not all of it.
        """
        whole = np.zeros((1, self.sizes.slot_tokens), np.int32)
        length = np.int32(len(request.ids))
        whole[0, :length] = request.ids
        if beginning is None:
            logits = self._read(whole, features, length=length, slot=slot)
        else:
            logits = self._read_on(whole, beginning, length=length, slot=slot)
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

    def _read(
        self, ids: np.ndarray, features: tuple[np.ndarray, ...], *, length: int, slot: int
    ) -> Array:
        audio = self._no_audio
        for number, one in enumerate(features):
            args = (self.params, one, audio, np.int32(number * self.audio_tokens))
            audio = self._program(("hear", one.shape[0]), args)(*args)
        args = self._reading(ids, audio, length=length, slot=slot)
        self.state, logits = self._program(("read", args[2].shape[1]), args)(*args)
        return logits

    def _read_on(self, ids: np.ndarray, beginning: Beginning, *, length: int, slot: int) -> Array:
        source = beginning.slot
        for part in self.sizes.rest(beginning.places, length=length):
            args = self._reading_on(ids, part, source=source, length=length, slot=slot)
            self.state, logits = self._program(("read on", part.size, part.room), args)(*args)
            source = slot
        return logits

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

    def move(self, source: int, target: int, *, places: int) -> None:
        """Copy a row of so many places over another."""
        args = (self.state, np.int32(source), np.int32(target))
        self.state = self._program(("move", self.sizes.room(places)), args)(*args)

    def warm(self) -> None:
        """Compile every program, and run the smallest of each kind once; all slots must be free."""
        sizes = self.sizes
        nothing = np.zeros(sizes.slots, bool)
        for size in sizes.within(sizes.prompts):
            args = self._reading(np.zeros((1, size), np.int32), self._no_audio, length=size, slot=0)
            self._program(("read", size), args)
        args = self._stepping(nothing, {}, steps=1)
        for room in sizes.within(sizes.rooms):
            for tier in sizes.tiers:
                for drafts in {0, sizes.drafts}:
                    self._program(("advance", tier, room, drafts), args)
            for size in sizes.rests_in(room) if self.hears else ():
                part = RestPart(start=0, size=size, room=room)
                ids = np.zeros((1, size), np.int32)
                rest = self._reading_on(ids, part, source=0, length=size, slot=0)
                self._program(("read on", size, room), rest)
            self._program(("move", room), (self.state, np.int32(0), np.int32(0)))
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
        self.move(0, 0, places=1)
        jax.block_until_ready(self.state)

    # --- programs ---------------------------------------------------------------------------------

    def _reading(self, ids: np.ndarray, audio: Array, *, length: int, slot: int) -> tuple[Any, ...]:
        """The arguments of `read` for a prompt of so many of these places."""
        ids = ids[:, : self.sizes.padded(int(length))]
        return self.params, self.state, ids, audio, np.int32(length), np.int32(slot)

    def _reading_on(
        self, ids: np.ndarray, part: RestPart, *, source: int, length: int, slot: int
    ) -> tuple[Any, ...]:
        """The arguments of `read_on` for a part of a prompt."""
        rest = ids[:, part.start : part.start + part.size]
        numbers = (np.int32(one) for one in (source, part.start, length, slot))
        # Apart they take long to compile, so they are where most prompts are.
        layers = self._layers if part.room == self.sizes.room(1) else None
        return self.params, layers, self.state, rest, *numbers

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
            case ("read on", _, room):
                return jax.jit(partial(read_on, model=self.model, room=room), donate_argnums=2)
            case ("move", room):
                return jax.jit(partial(move, room=room), donate_argnums=0)
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
