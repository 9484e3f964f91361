"""Meshes from a config, and the mesh axis of each axis of each parameter.

Two tables: `PARAM_RULES` gives the meaning of each dimension of a parameter path ("width", "heads",
...), `MESH_AXES` the mesh axis of each meaning. The batch lies on ("data", "fsdp").
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltu_jax.core.axes import Array
from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.trees import label

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The number of devices on each mesh axis; one of them may be -1 for "all that are left"."""

    data: int
    fsdp: int
    tensor: int


def mesh_config(text: str) -> MeshConfig:
    """Read "fsdp=2,tensor=4"; an axis that is not named has one device.

    Raises:
        UserError: another form, an axis twice, or one that is not among `AXES`.
    """
    pairs = [part.strip().partition("=") for part in text.split(",")]
    sizes = {name: size for name, _, size in pairs if re.fullmatch(r"-1|[1-9]\d*", size)}
    if len(sizes) < len(pairs) or not set(sizes) <= set(AXES):
        raise UserError(
            f"{spell('mesh')} {text!r}: give numbers of devices by axis ({', '.join(AXES)}), such "
            "as tensor=4"
        )
    return MeshConfig(**{axis: int(sizes.get(axis, 1)) for axis in AXES})


# What a dimension means -> the mesh axis it is laid on. "layer" and None stay whole.
MESH_AXES: dict[str | None, str | None] = {
    "width": "fsdp",  # the residual stream of the language model
    "heads": "tensor",  # fused heads x head dimension
    "ffn": "tensor",
    "vocab": "tensor",
    "layer": None,
    None: None,
}

# Path pattern -> the meaning of each dimension. Audio modules are small: they stay whole.
_LLAMA_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"llama\.embed_tokens\.embedding", ("vocab", "width")),
    (r"llama\.layers\.self_attn\.[qkv]_proj\.kernel", ("layer", "width", "heads")),
    (r"llama\.layers\.self_attn\.[qkv]_proj\.bias", ("layer", "heads")),
    (r"llama\.layers\.self_attn\.o_proj\.kernel", ("layer", "heads", "width")),
    (r"llama\.layers\.mlp\.(gate|up)_proj\.kernel", ("layer", "width", "ffn")),
    (r"llama\.layers\.mlp\.down_proj\.kernel", ("layer", "ffn", "width")),
    (r"llama\.layers\.self_attn\.[qkv]_proj\.kernel_scale", ("layer", "heads")),
    (r"llama\.layers\.mlp\.(gate|up)_proj\.kernel_scale", ("layer", "ffn")),
    (r"llama\.layers\.(self_attn\.o|mlp\.down)_proj\.kernel_scale", ("layer", "width")),
    (r"llama\.layers\.(self_attn|mlp)\.\w+_proj\.lora_[ab]", ("layer", None, None)),
    (r"llama\.layers\.(input|post_attention)_layernorm\.scale", ("layer", None)),
    (r"llama\.norm\.scale", (None,)),
    (r"llama\.lm_head\.kernel", ("width", "vocab")),
)
_WHOLE_RULES: tuple[tuple[str, None], ...] = (
    (r"tltr\.(time|layer)_tr\.(attn|attn_ln|mlp|mlp_ln)\..+", None),
    (r"audio_proj\.(kernel|bias)", None),
    (r"label_head\.(norm\.)?\w+", None),
    (r"(whisper\.)?encoder\.(conv[12]|blocks|ln_post)\..+", None),
    (r"(whisper\.)?(en|de)coder\.positions", None),
    (r"(whisper\.)?decoder\.(blocks|ln)\..+", None),
    (r"(whisper\.)?decoder\.embedding", None),
)
PARAM_RULES: tuple[tuple[str, tuple[str | None, ...] | None], ...] = _LLAMA_RULES + _WHOLE_RULES


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lay the devices out as (data, fsdp, tensor).

    Raises:
        UserError: sizes that do not multiply to the number of devices; the message names the
            numbers and the nearest meshes that work.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [config.data, config.fsdp, config.tensor]
    wanted = _named(sizes)
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UserError(f"mesh {wanted}: sizes must be positive, and at most one may be -1")
    fixed = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    elif -1 in sizes or fixed != len(devices):
        needed = f"a multiple of {fixed}" if -1 in sizes else str(fixed)
        raise UserError(
            f"mesh {wanted} needs {needed} devices, {len(devices)} are present; the nearest meshes "
            f"that fit: {_nearest_meshes(sizes, len(devices))}"
        )
    return Mesh(np.asarray(devices).reshape(sizes), AXES)


def _named(sizes: Sequence[int]) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _nearest_meshes(wanted: Sequence[int], count: int) -> str:
    """Name the three factorisations of `count` that change the sizes by the smallest factors."""
    meshes = [
        (data, fsdp, count // data // fsdp)
        for data in _divisors(count)
        for fsdp in _divisors(count // data)
    ]

    def change(sizes: tuple[int, ...]) -> float:
        pairs = zip(sizes, wanted, strict=True)
        return sum(abs(math.log(size / goal)) for size, goal in pairs if goal != -1)

    meshes.sort(key=lambda sizes: (round(change(sizes), 6), *(-size for size in sizes)))
    return " or ".join(f"({_named(sizes)})" for sizes in meshes[:3])


def batch_ways(mesh: Mesh) -> int:
    """Return the number of parts into which the mesh cuts a batch: data x fsdp."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH]))


def check_rows(rows: int, *, mesh: Mesh, accumulation: int = 1) -> None:
    """Require that a global batch gives all devices equally many rows of each micro-batch.

    Raises:
        UserError: it does not; names the nearest batches that do.
    """
    ways = batch_ways(mesh)
    unit = ways * accumulation
    if rows % unit or not rows:
        cut = f" x optimizer.accumulation = {accumulation}" if accumulation > 1 else ""
        near = [str(size) for size in (rows // unit * unit, (rows // unit + 1) * unit) if size]
        raise UserError(
            f"batch of {rows} rows does not divide over data x fsdp = {ways} devices{cut}; the "
            f"nearest data.rows_per_batch that {'do' if len(near) > 1 else 'does'}: "
            f"{' and '.join(near)}"
        )


def param_specs(shapes: Mapping[str, Any], mesh: Mesh) -> dict[str, PartitionSpec]:
    """Return the partition spec of every parameter, by `PARAM_RULES` and `MESH_AXES`.

    Args:
        shapes: path -> anything with `.shape`.
        mesh: the mesh whose axis sizes the dimensions must divide by.

    Raises:
        ValueError: a parameter without a rule, a rule of the wrong rank, or a dimension that its
            mesh axis does not divide.
    """
    applicable = [rule for rule in PARAM_RULES if _matches_any(rule[0], shapes)]
    meanings = label(applicable, shapes)
    return {path: _spec(path, leaf.shape, meanings[path], mesh) for path, leaf in shapes.items()}


def param_shardings(mesh: Mesh, shapes: Mapping[str, Any]) -> dict[str, NamedSharding]:
    """Return `param_specs` as shardings on `mesh`."""
    return {path: NamedSharding(mesh, spec) for path, spec in param_specs(shapes, mesh).items()}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: the leading axis over data and fsdp, the rest whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def keep_rows_apart(x: Array, *, axis: int = 0) -> Array:
    """Lay the axis of rows over data and fsdp in a program whose trace has a mesh in context.

    Left alone the partitioner lays the residual stream along the width of the embedding table,
    and then sums activations of the whole batch over all devices in every layer instead of
    gathering a layer's weights once (147 GB instead of 27 GB a step for 7B on 16 devices).
    Outside a train step it does nothing.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not set(BATCH) <= set(mesh.axis_names):
        return x
    axes: list[Any] = [PartitionSpec.UNCONSTRAINED] * x.ndim
    axes[axis] = BATCH
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioLayout:
    """The layout of a batch in the parts with whole weights on each device (encoder, TLTR).

    With the batch over data and fsdp alone, all devices of a tensor axis would compute the same
    there. `spread` lays the leading axis of their input over every axis of the mesh (an axis that
    does not divide stays as it is); `gather` lays their output as the rest of the batch.
    """

    spread: Callable[[Array], Array]
    gather: Callable[[Array], Array]


def audio_layout(mesh: Mesh) -> AudioLayout:
    """Return the layout of the audio parts on `mesh`; it does nothing with a tensor axis of 1."""
    if mesh.shape["tensor"] == 1:
        return AudioLayout(spread=lambda x: x, gather=lambda x: x)
    everywhere = NamedSharding(mesh, PartitionSpec((*BATCH, "tensor")))
    batch = batch_sharding(mesh)

    def lay(x: Array, sharding: NamedSharding) -> Array:
        if x.shape[0] % mesh.size:
            return x
        return jax.lax.with_sharding_constraint(x, sharding)

    return AudioLayout(spread=lambda x: lay(x, everywhere), gather=lambda x: lay(x, batch))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def _matches_any(pattern: str, paths: Mapping[str, Any]) -> bool:
    return any(re.fullmatch(pattern, path) for path in paths)


def _spec(
    path: str, shape: tuple[int, ...], meaning: tuple[str | None, ...] | None, mesh: Mesh
) -> PartitionSpec:
    if meaning is None:
        return PartitionSpec()
    if len(meaning) != len(shape):
        raise ValueError(f"{path} has shape {shape}, its sharding rule has {len(meaning)} axes")
    axes = tuple(MESH_AXES[name] for name in meaning)
    for size, name, axis in zip(shape, meaning, axes, strict=True):
        if axis is not None and size % mesh.shape[axis]:
            ways = mesh.shape[axis]
            below = max(number for number in _divisors(size) if number < ways)
            above = [number for number in _divisors(size) if number > ways][:1]
            near = " and ".join(map(str, [below, *above]))
            raise UserError(
                f"{path}: its {name} dimension of {size} does not divide by the mesh axis "
                f"{axis}={ways}; the nearest sizes that do: {near}"
            )
    return PartitionSpec(*axes)
