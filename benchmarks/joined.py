"""Results of several processes as one: speeds, losses and ids beside those of PyTorch.

Nothing here computes, so whoever only joins results needs neither PyTorch nor a device.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltu_jax.core import errors

# name -> (model, layout of its batches)
STEPS = {
    "PyTorch, random": ("torch", "random"),
    "PyTorch, sorted": ("torch", "sorted"),
    "PyTorch oneDNN, random": ("onednn", "random"),
    "PyTorch oneDNN, sorted": ("onednn", "sorted"),
    "ltu_jax single, random": ("jax", "random"),
    "ltu_jax single, sorted": ("jax", "sorted"),
    "ltu_jax grouped": ("jax", "grouped"),
    "ltu_jax int8, grouped": ("jax int8", "grouped"),
    "ltu_jax cudnn, grouped": ("jax cudnn", "grouped"),
}
STEPS_OF_PYTORCH = tuple(name for name in STEPS if name.startswith("PyTorch"))
INT8_TOLERANCE = 3e-2  # of the loss with an int8 base
SAMPLES, TOKENS = "samples_per_second", "tokens_per_second"

PYTORCH = ("transformers", "transformers oneDNN")
OURS, INT8 = "ltu_jax", "ltu_jax int8"
PLAIN = (*PYTORCH, OURS)
CONTENDERS = (*PLAIN, INT8)


def require_equal_losses(found: Mapping[str, Mapping[str, float]], *, tolerance: float) -> None:
    """Require that all models have the loss of the first one on each layout.

    Args:
        found: layout -> model -> loss.
        tolerance: relative, and absolute below 1; `INT8_TOLERANCE` for an int8 base.

    Raises:
        UserError: a difference above it, or a loss that is no number; timing other maths would
            say nothing.
    """
    for layout, by_model in found.items():
        (first, wanted), *others = by_model.items()
        for name, loss in others:
            allowed = max(tolerance, INT8_TOLERANCE) if "int8" in name else tolerance
            if not abs(loss - wanted) <= allowed * max(1.0, abs(wanted)):
                raise errors.UserError(
                    f"losses differ on the {layout} batch: {first} {wanted:.6f}, {name} "
                    f"{loss:.6f}, tolerance {allowed}; times of other maths say nothing"
                )


def steps_beside_pytorch(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Set each row beside the fastest PyTorch, and the fastest that takes rows as drawn.

    The official code draws its batches at random; sorting them is PyTorch at its best.
    """
    random = [name for name in STEPS_OF_PYTORCH if name.endswith("random")]
    found = [dict(row) for row in rows]
    for key, names in (
        ("x fastest PyTorch", STEPS_OF_PYTORCH),
        ("x fastest PyTorch, random", random),
    ):
        rates = [row[SAMPLES] for row in rows if row["contender"] in names]
        for row in found:
            row[key] = row[SAMPLES] / max(rates) if rates else None
    return found


def join_steps(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one result from those of several processes, each of which ran some of the rows.

    Raises:
        UserError: their losses differ.
    """
    ordered = sorted(
        (row for part in parts for row in part["rows"]),
        key=lambda row: list(STEPS).index(row["contender"]),
    )
    losses: dict[str, dict[str, float]] = {}
    by_pytorch = sorted(
        parts, key=lambda part: part["rows"][0]["contender"] not in STEPS_OF_PYTORCH
    )
    for part in by_pytorch:
        for layout, by_kind in part["losses"].items():
            losses[layout] = losses.get(layout, {}) | by_kind
    require_equal_losses(losses, tolerance=parts[0]["tolerance"])
    return dict(parts[0]) | {
        "losses": losses,
        "rows": steps_beside_pytorch(ordered),
        "timings": {name: one for part in parts for name, one in part["timings"].items()},
    }


def require_equal_ids(ids: Mapping[str, Any]) -> None:
    """Require that all contenders but int8 have written the same ids.

    Raises:
        UserError: they have not; times of other work say nothing.
    """
    if (found := agreement(ids)) is not None and found < 1.0:
        raise errors.UserError(
            f"only {found:.0%} of the ids agree; times of other work say nothing"
        )


def agreement(ids: Mapping[str, Any], *, of: Sequence[str] = ()) -> float | None:
    """Return the least share of ids that two contenders have in common; None: there are no two.

    Args:
        ids: contender -> ids.
        of: which of them; by default all but int8.
    """
    (first, *others) = [np.asarray(ids[name]) for name in ids if name in (of or PLAIN)] or [None]
    return min((float((first == other).mean()) for other in others), default=None)


def decoding_beside_pytorch(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Set each row beside the fastest PyTorch of its batch size."""
    found = []
    for row in rows:
        rates = [
            other[TOKENS]
            for other in rows
            if other["contender"] in PYTORCH and other["batch"] == row["batch"]
        ]
        found.append(dict(row) | {"x fastest PyTorch": row[TOKENS] / max(rates) if rates else None})
    return found


def join_decoding(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one result from those of several processes, each of which ran some contenders.

    Raises:
        UserError: in float32 they wrote other ids.
    """
    rows = sorted(
        (row for part in parts for row in part["rows"]),
        key=lambda row: (row["batch"], list(CONTENDERS).index(row["contender"])),
    )
    ids: dict[str, dict[str, Any]] = {}
    for part in parts:
        for batch, by_name in part["ids"].items():
            ids[batch] = ids.get(batch, {}) | by_name
    if parts[0]["dtype"] == "float32":
        for by_name in ids.values():
            require_equal_ids(by_name)
    return dict(parts[0]) | {
        "rows": decoding_beside_pytorch(rows),
        "timings": {name: one for part in parts for name, one in part["timings"].items()},
        "ids": ids,
    }


def without_ids(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result with the shares of equal ids in place of the ids."""
    ids = result["ids"]
    shares = {
        "equal_ids": {batch: agreement(by_name) for batch, by_name in ids.items()},
        "equal_ids_int8": {
            batch: agreement(by_name, of=(OURS, INT8)) for batch, by_name in ids.items()
        },
    }
    return {key: value for key, value in result.items() if key != "ids"} | shares
