"""Backends of the language model's attention in training; all compute what `layers.attend` does.

"blocks"       `block_attention.in_blocks`: no scores of pairs that cannot see each other
"xla"          `layers.attend`: scores of all keys in memory, for every platform
"dot_product"  `jax.nn.dot_product_attention`, its XLA form
"cudnn"        the same function, cuDNN's flash kernel: NVIDIA GPUs, bfloat16 or float16
"splash"       Pallas splash attention: TPUs; scores stay in a core's memory

Every backend takes the boolean mask of who sees whom, so that any layout of rows works with each:
audio that all pairs of a row see cannot be said with the segment ids of these kernels alone.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from ltu_jax.core.axes import Array, Bool, Float
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import BATCH
from ltu_jax.models.block_attention import in_blocks
from ltu_jax.models.layers import attend

# (q [B,T,N,H], k [B,K,S,H], v [B,K,S,H], *, visible [B,T,S], scale) -> [B,T,N*H]
Attend = Callable[..., Float[Array, "B T D"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backend:
    """A way to compute attention.

    Attributes:
        of: how many positions of a row are audio -> the function for such rows.
        text_first: rows are [text][audio] in memory instead of [audio][text].
    """

    of: Callable[[int], Attend]
    text_first: bool = False


BACKENDS = ("blocks", "xla", "dot_product", "cudnn", "splash")
_PLATFORMS = {"cudnn": ("gpu", "cuda"), "splash": ("tpu",)}
_BLOCKS = (512, 384, 256, 128)  # of splash, which works on multiples of 128


def backend(name: str, *, mesh: Mesh | None = None, longest_pair: int | None = None) -> Backend:
    """The attention called `name`.

    Args:
        name: one of `BACKENDS`.
        mesh: where the step runs; the partitioner cannot look into a Pallas kernel, so "splash"
            is told how rows and heads lie. None: on one device.
        longest_pair: most text tokens of a pair, for "blocks".

    Raises:
        UserError: an unknown name, or "blocks" without `longest_pair`.
    """
    if name not in BACKENDS:
        raise UserError(f"attention backend {name!r} is unknown; use one of {', '.join(BACKENDS)}")
    if name == "blocks":
        if longest_pair is None:
            raise UserError("attention backend 'blocks' has to know the longest pair; use 'xla'")
        return Backend(
            of=lambda audio: partial(in_blocks, audio=audio, longest=longest_pair), text_first=True
        )
    if name == "xla":
        return Backend(of=lambda audio: attend)
    if name == "splash":
        function: Attend = partial(_splash_on_mesh, mesh=mesh) if mesh is not None else _splash
    else:
        function = partial(_dot_product, implementation="cudnn" if name == "cudnn" else "xla")
    return Backend(of=lambda audio: function)


def require_platform(name: str, mesh: Mesh) -> None:
    """Require devices that the backend is made for.

    Raises:
        UserError: names the platform and the backends that work there.
    """
    platform = mesh.devices.flat[0].platform
    if platform not in _PLATFORMS.get(name, (platform,)):
        able = [other for other in BACKENDS if platform in _PLATFORMS.get(other, (platform,))]
        raise UserError(
            f"compute.attention is {name!r}, which needs {_PLATFORMS[name][0]} devices; these are "
            f"{platform}: use {', '.join(able)}"
        )


def _dot_product(
    q: Array, k: Array, v: Array, *, visible: Array, scale: float, implementation: str
) -> Array:
    length = q.shape[1]
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    if implementation == "cudnn":  # its backward pass wants even lengths where there is a mask
        q, k, v = (_pad(x, axis=1, multiple=2) for x in (q, k, v))
        visible = _pad(_pad(visible, axis=1, multiple=2), axis=2, multiple=2)
    mixed = jax.nn.dot_product_attention(
        q, k, v, mask=visible[:, None], scale=scale, implementation=implementation
    )
    return mixed[:, :length].reshape(*mixed[:, :length].shape[:2], -1)


def _splash_on_mesh(
    q: Array, k: Array, v: Array, *, visible: Array, scale: float, mesh: Mesh
) -> Array:
    rows = BATCH if q.shape[0] % _ways(mesh, BATCH) == 0 else None
    heads = "tensor" if k.shape[1] % mesh.shape["tensor"] == 0 else None

    def local(q: Array, k: Array, v: Array, visible: Array) -> Array:
        return _splash(q, k, v, visible=visible, scale=scale)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(
            PartitionSpec(rows, None, heads),
            PartitionSpec(rows, heads),
            PartitionSpec(rows, heads),
            PartitionSpec(rows),
        ),
        out_specs=PartitionSpec(rows, None, heads),
        check_vma=False,
    )(q, k, v, visible)


def _splash(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    *,
    visible: Bool[Array, "B T S"],
    scale: float,
) -> Float[Array, "B T D"]:
    batch, time, heads, size = q.shape
    keys = k.shape[2]
    if time != keys:
        raise UserError(f"splash attention is for training: {time} queries for {keys} keys")
    # A query that sees no key averages all of them (see `attend`); the kernel would count padded
    # keys too, and loses the logarithm of their number in its backward pass.
    seeing = visible.any(-1)[:, :, None, None]
    average = jnp.repeat(v.mean(2, dtype=jnp.float32), heads // v.shape[1], axis=1)[:, None]
    q = (q.astype(jnp.float32) * scale).astype(q.dtype).swapaxes(1, 2)
    block = min(_BLOCKS, key=lambda size: (-(-time // size) * size, -size))
    q, k, v = (_pad(x, axis=2, multiple=block) for x in (q, k, v))
    visible = _pad(_pad(visible, axis=1, multiple=block), axis=2, multiple=block)
    # Elsewhere than on a TPU the kernel is interpreted: slow, and good for tests.
    compiled, interpreted = (partial(_kernel, block=block, interpret=i) for i in (False, True))
    mixed = lax.platform_dependent(q, k, v, visible, tpu=compiled, default=interpreted)
    mixed = jnp.where(seeing, mixed[:, :, :time].swapaxes(1, 2), average.astype(v.dtype))
    return mixed.reshape(batch, time, heads * size)


def _kernel(q: Array, k: Array, v: Array, visible: Array, *, block: int, interpret: bool) -> Array:
    """Splash attention [B,N,T,H] with a mask of its own for each row, one for all heads."""
    # Its module is only there with Pallas for TPUs.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import (
        MaskInfo,
    )

    blocks = q.shape[2] // block
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        use_fused_bwd_kernel=True,
    )
    here = np.arange(blocks, dtype=np.int32)
    row, column = (grid[None] for grid in np.meshgrid(here, here, indexing="ij"))
    # Every block of the mask is looked at: rows are a few blocks long, and which of them are
    # empty differs from row to row, which the kernel's scalar memory cannot say under vmap.
    common = dict(
        mask_next=row * blocks + column,
        block_mask=np.ones_like(row),
        q_sequence=None,
        is_dynamic_mask=True,
    )

    def one(q: Array, k: Array, v: Array, visible: Array) -> Array:
        tiles = visible.reshape(blocks, block, blocks, block).swapaxes(1, 2)
        tiles = tiles.reshape(blocks * blocks, block, block)
        forward = MaskInfo(data_next=column, partial_mask_blocks=tiles, **common)
        backward = MaskInfo(data_next=row, partial_mask_blocks=tiles.swapaxes(1, 2), **common)
        run = splash.SplashAttentionKernel(
            forward,
            None,
            backward,
            block_sizes=sizes,
            is_mqa=False,
            save_residuals=False,
            mask_value=splash.DEFAULT_MASK_VALUE,
            attn_logits_soft_cap=None,
            residual_checkpoint_name=None,
            mask_function=None,
            interpret=interpret,
        )
        return run(q, k, v)

    return jax.vmap(one)(q, k, v, visible)


def _pad(x: Array, *, axis: int, multiple: int) -> Array:
    width = [(0, 0)] * x.ndim
    width[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, width)


def _ways(mesh: Mesh, axes: tuple[str, ...]) -> int:
    return int(np.prod([mesh.shape[axis] for axis in axes]))
