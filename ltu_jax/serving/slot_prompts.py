"""What stands in the slots: a new prompt whose beginning is there is read from its end on.

A free slot keeps what was read into it until another request needs it. Of another question about a
clip the audio and the tokens in front of the question are there, of a further turn the conversation
so far. Only prompts with audio are looked for, and only by whoever sends the same clips: those that
the clip cache gave out as the same.
"""

import itertools
import weakref
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ltu_jax.serving.running_row import RunningRow
from ltu_jax.serving.slot_sizes import Beginning, SlotSizes


@dataclass(frozen=True, kw_only=True)
class _Standing:
    """A prompt and its answer in a slot: the `number`th; `tokens` grow while they are made."""

    clips: tuple[weakref.ref, ...]
    ids: np.ndarray
    tokens: Sequence[int]
    number: int

    @property
    def known(self) -> bool:
        """Tell whether somebody can still ask about its clips."""
        return all(clip() is not None for clip in self.clips)

    def shared(self, row: RunningRow) -> int:
        """Return how many places a prompt has in common with it."""
        if len(self.clips) != len(row.features):
            return 0
        if any(clip() is not one for clip, one in zip(self.clips, row.features, strict=True)):
            return 0
        # The newest token is chosen, and not read yet.
        here = np.concatenate([self.ids, np.asarray(self.tokens[:-1], np.int32)])
        new = row.program.ids
        most = min(len(here), len(new))
        other = here[:most] != new[:most]
        return int(other.argmax()) if other.any() else most


@dataclass(frozen=True, kw_only=True)
class SlotPlace:
    """Where a prompt goes.

    Attributes:
        slot: it is read into this one.
        keep_at: a slot that what stands there is moved to before; None if it is not kept.
        beginning: what need not be read.
    """

    slot: int
    keep_at: int | None
    beginning: Beginning | None


class SlotPrompts:
    """The prompts in the slots; for the engine's thread."""

    def __init__(self, sizes: SlotSizes):
        self._sizes = sizes
        self._standing: dict[int, _Standing] = {}
        self._numbers = itertools.count(1)

    def place(self, row: RunningRow, *, free: Collection[int], tier: int) -> SlotPlace:
        """Return where a prompt goes: to one of the free slots among the first `tier`.

        It goes on where all that stands is its own beginning, else where what stands was read
        longest ago; that is kept in the place of older things.
        """
        inside = [slot for slot in free if slot < tier]
        beginning, continued = self._beginning(row)
        source = None if beginning is None else beginning.slot
        if continued and source in inside:
            return SlotPlace(slot=source, keep_at=None, beginning=beginning)
        slot = self.oldest(inside)
        others = [other for other in free if other not in (slot, source)]
        keep_at = self.oldest(others) if others else slot
        older = self._age(keep_at) < self._age(slot)
        return SlotPlace(slot=slot, keep_at=keep_at if older else None, beginning=beginning)

    def oldest(self, slots: Collection[int]) -> int:
        """Return the slot whose prompt can be spared first."""
        return min(slots, key=self._age)

    def places(self, slot: int) -> int:
        """Return how many places what stands in a slot has."""
        standing = self._standing[slot]
        return len(standing.ids) + len(standing.tokens)

    def entered(self, slot: int, row: RunningRow) -> None:
        """Note that a prompt is being read into a slot."""
        self._standing.pop(slot, None)
        if row.features:
            self._standing[slot] = _Standing(
                clips=tuple(weakref.ref(one) for one in row.features),
                ids=row.program.ids,
                tokens=row.tokens,
                number=next(self._numbers),
            )

    def moved(self, source: int, target: int) -> None:
        """Note that a slot was copied over another, and is free."""
        self._standing.pop(target, None)
        if source in self._standing:
            self._standing[target] = self._standing.pop(source)

    def _age(self, slot: int) -> int:
        standing = self._standing.get(slot)
        return standing.number if standing is not None and standing.known else 0

    def _beginning(self, row: RunningRow) -> tuple[Beginning | None, bool]:
        """Return what of a prompt need not be read, and whether it goes on behind all of another.

        There is none where to read the rest of it is no less than to read it all.
        """
        shared = {slot: standing.shared(row) for slot, standing in self._standing.items()}
        source = max(shared, key=lambda slot: shared[slot], default=None)
        if source is None or not row.features:
            return None, False
        length = len(row.program.ids)
        # What follows is told by the last token, which is read in any case.
        rest = self._sizes.rest(min(shared[source], length - 1), length=length)
        if not rest or rest[0].start < row.audio:
            return None, False
        continued = shared[source] >= len(self._standing[source].ids)
        return Beginning(slot=source, places=rest[0].start), continued
