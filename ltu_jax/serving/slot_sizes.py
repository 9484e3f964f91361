"""The sizes of the slots: what their programs are compiled for, and the memory that they take."""

from dataclasses import dataclass

from ltu_jax.core import memory
from ltu_jax.core.errors import UserError, spell
from ltu_jax.models.llama import LlamaConfig

# Places of audio and text that a prompt is padded to; each is one program.
PROMPT_SIZES = (64, 96, 128, 160, 192, 256, 384, 512, 1024, 2048, 4096)
# Tokens that are read at once of a prompt whose beginning stands in a slot; each is one program for
# the smallest room, the last one for each of the others too.
REST_SIZES = (16, 24, 32, 48, 64)
_PART = 64  # tokens that take as long as it does to read all weights once more
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
        rests: sizes that the rest of a prompt is padded to; one that is longer is read in parts.
        rooms: places of a row that a step reads.
    """

    tiers: tuple[int, ...] = (1, 4, 8, 16)
    slot_tokens: int = 2048
    clips: int = 4
    steps: int = 4
    drafts: int = 0
    prompts: tuple[int, ...] = PROMPT_SIZES
    rests: tuple[int, ...] = REST_SIZES
    rooms: tuple[int, ...] = ROOMS

    def __post_init__(self) -> None:
        for name in ("tiers", "prompts", "rests", "rooms"):
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

    def rests_in(self, room: int) -> tuple[int, ...]:
        """Return the sizes of parts that are read in such a room: beyond the smallest, one."""
        sizes = tuple(size for size in self.rests if size <= room)
        return sizes if room == self.room(1) else sizes[-1:]

    def rest(self, start: int, *, length: int) -> tuple["RestPart", ...]:
        """Return the parts in which a prompt is read from `start` on; none if all is as soon read.

        No part reaches beyond its room: it begins earlier then, with what is known.
        """
        room, parts = self.room(length), []
        sizes = self.rests_in(room)
        while start < length and sizes:
            size = next((size for size in sizes if size >= length - start), sizes[-1])
            start = min(start, room - size)
            parts.append(RestPart(start=start, size=size, room=room))
            start += size
        cost = sum(one.size for one in parts) + _PART * (len(parts) - 1)
        return tuple(parts) if cost < self.padded(length) else ()

    def room(self, places: int) -> int:
        """Return how much of a row is read for so many places."""
        return next(size for size in self.within(self.rooms) if size >= places)

    def tier(self, rows: int) -> int:
        """Return how many rows are computed for so many."""
        return next(tier for tier in self.tiers if tier >= rows)


@dataclass(frozen=True, kw_only=True)
class RestPart:
    """So many places of a prompt, read at once; `room` places of its row are looked at."""

    start: int
    size: int
    room: int


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The first places of a slot, which are those of another prompt too."""

    slot: int
    places: int


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
