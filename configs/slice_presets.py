"""The presets of machines: what a full-size stage changes for the slice or GPU that it runs on.

    --config=configs/stage3.py:v5e-16             the poster's recipe on a v5e-16
    --config=configs/stage3.py:released-v5e-16    the official step there

`TABLE` has them all. A preset changes where a stage runs, not its recipe: run folders, rates and
epochs are those of the recipe, and about 256 pairs are a step on each. benchmarks/plan.py plans
stage 3 of each; docs/results.md shows what the compiler says.
"""

import dataclasses
import math

from ml_collections import ConfigDict

from configs import common
from ltu_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Grouped rows: `data.rows_per_batch`, `data.row_tokens` and `data.clips_per_row`."""

    rows_per_batch: int
    row_tokens: int
    clips_per_row: int


# Of a stage -> its rows. Classification has fewer pairs a clip, so more clips share a row. With the
# audio of their clips rows are six or seven blocks of 112 positions.
LONG = {
    "stage1": Rows(rows_per_batch=32, row_tokens=634, clips_per_row=6),
    "stage2": Rows(rows_per_batch=32, row_tokens=634, clips_per_row=6),
    "stage3": Rows(rows_per_batch=32, row_tokens=622, clips_per_row=2),
}
# As many pairs a step where chips are more than rows: three blocks of 128 positions.
SHORT = {
    "stage1": Rows(rows_per_batch=64, row_tokens=309, clips_per_row=3),
    "stage2": Rows(rows_per_batch=64, row_tokens=309, clips_per_row=3),
    "stage3": Rows(rows_per_batch=64, row_tokens=334, clips_per_row=2),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlicePreset:
    """A machine, and the settings that suit it.

    Attributes:
        machine: the slice as `plan --slice` names it, or the GPU of `plan --gpu`.
        mesh: devices on the axes data, fsdp and tensor; together all chips of the machine.
        rows: grouped rows of the language stages.
        base_dtype: `compute.base_dtype`.
        encoder_dtype: `compute.encoder_dtype`.
        positions: text and audio positions whose activations a chip has room for beside the
            weights, at 3.9 MB each; a released batch of more is cut into micro-batches.
    """

    machine: str
    mesh: tuple[int, int, int]
    rows: dict[str, Rows]
    base_dtype: str
    encoder_dtype: str
    positions: int


def _preset(
    machine: str, *, chips: int, base: str, positions: int, rows: dict[str, Rows] = LONG
) -> SlicePreset:
    """Return the preset of a machine each of whose chips holds the whole base."""
    return SlicePreset(
        machine=machine,
        mesh=(chips, 1, 1),
        rows=rows,
        base_dtype=base,
        encoder_dtype="bfloat16",
        positions=positions,
    )


TABLE = {
    # 7B in bfloat16 is 13.5 of a v5e's 16.9 GB: there the base is int8.
    "v5e-16": _preset("v5e-16", chips=16, base="int8", positions=1_600),
    "v5e-64": _preset("v5e-64", chips=64, base="int8", positions=1_600, rows=SHORT),
    "v4-32": _preset("v4-32", chips=16, base="int8", positions=5_600),
    "v4-32_bfloat16": _preset("v4-32", chips=16, base="bfloat16", positions=4_000),
    "v5p-16": _preset("v5p-16", chips=8, base="bfloat16", positions=20_000),
    "v6e-16": _preset("v6e-16", chips=16, base="bfloat16", positions=4_000),
    "h200": _preset("h200", chips=1, base="bfloat16", positions=28_000),
}
# The mini recipe and that of real recordings are for a laptop, whatever they run on.
_ON_SLICES = tuple(recipe for recipe in common.PRESETS if recipe not in common.LAPTOP)
# What may follow the colon of --config -> recipe and name in `TABLE`, either perhaps empty.
CHOICES = {recipe: (recipe, "") for recipe in common.PRESETS} | {
    "-".join(filter(None, (recipe, name))): (recipe, name)
    for recipe in _ON_SLICES
    for name in TABLE
}


def split(preset: str) -> tuple[str, str]:
    """Split what follows the colon of --config into recipe and machine.

    Raises:
        UserError: there is no such preset; the message names all.
    """
    if preset not in CHOICES:
        known = ", ".join(map(repr, CHOICES))
        raise UserError(f"unknown config preset {preset!r}; known: {known} (as in stage3.py:mini)")
    return CHOICES[preset]


def fit(config: ConfigDict, *, machine: str) -> ConfigDict:
    """Change a full-size stage for a machine of `TABLE`, or not at all where it is empty.

    Raises:
        UserError: the released batch, which is fixed, does not divide over the machine.
    """
    if not machine:
        return config
    preset = TABLE[machine]
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = preset.mesh
    config.compute.encoder_dtype = preset.encoder_dtype
    ways = preset.mesh[0] * preset.mesh[1]
    if config.stage == "tagging":
        config.data.rows_per_batch = ways * math.ceil(config.data.rows_per_batch / ways)
        return config
    config.compute.base_dtype = preset.base_dtype
    if config.data.layout == "grouped":
        for key, value in dataclasses.asdict(preset.rows[config.stage]).items():
            config.data[key] = value
        return config
    rows = config.data.rows_per_batch
    if rows % ways:
        raise UserError(
            f"released-{machine}: the {rows} rows of the released {config.stage} do not divide "
            f"over {ways} chips; use a smaller slice, or the poster's recipe, :{machine}"
        )
    held = preset.positions // (config.data.cutoff + config.model.audio_tokens)
    # The fewest micro-batches that the chips share evenly and hold.
    each = next(size for size in range(min(held, rows // ways), 0, -1) if rows // ways % size == 0)
    config.optimizer.accumulation = rows // ways // each
    return config
