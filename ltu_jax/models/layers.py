"""Layers shared by Whisper, TLTR and LLaMA: products, attention and Whisper's block.

Numerics of every layer here: parameters keep their own dtype, products run in the compute dtype,
norms and softmax in float32, and the residual stream is float32 (as the official code under
autocast).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero

from ltu_jax.core.axes import Array, Bool, Float
from ltu_jax.models import int8
from ltu_jax.models.norms import LAYER_NORM_EPS, LayerNorm
from ltu_jax.models.precision import products_of

_LONG = 1 << 18  # scores per head from which a CPU works head by head

Init = Callable[[Array, tuple[int, ...]], Array]


def fan_in_uniform(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """PyTorch's default for kernels [..., in, out]: uniform within 1/sqrt(fan in)."""
    fan_in = 1
    for size in shape[:-1]:
        fan_in *= size
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def normal_002(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """LLaMA's initialisation: normal with standard deviation 0.02."""
    return 0.02 * jax.random.normal(key, shape)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Dtype:
    """A dtype among the residuals of a custom gradient."""

    name: Any


def product(x: Float[Array, "... D"], kernel: Float[Array, "D I"]) -> Float[Array, "... I"]:
    """x W in the dtype of x, whose gradient with respect to W leaves its product in float32.

    Autodiff alone would round that gradient to bfloat16 before the devices add their parts of it:
    the cast to the master's float32 would come after the sum.
    """
    # The product itself is an ordinary one, which rematerialisation policies can see.
    return _with_kernel_gradient(x @ lax.stop_gradient(kernel).astype(x.dtype), x, kernel)


@jax.custom_vjp
def _with_kernel_gradient(y: Array, x: Array, kernel: Array) -> Array:
    del x, kernel
    return y


def _kernel_forward(y: Any, x: Any, kernel: Any) -> tuple[Array, tuple]:
    # A frozen kernel asks for no gradient and must not keep x.
    return y.value, (x.value if kernel.perturbed else None, _Dtype(kernel.value.dtype))


def _kernel_backward(residuals: tuple, g: Any) -> tuple:
    x, dtype = residuals
    if isinstance(g, SymbolicZero):
        return None, None, None
    if x is None:
        return g, None, None
    leading = tuple(range(x.ndim - 1))
    dims = ((leading, leading), ((), ()))
    with products_of(x.dtype):
        dk = lax.dot_general(x, g, dims, preferred_element_type=jnp.float32)
    return g, None, dk.astype(dtype.name)


_with_kernel_gradient.defvjp(_kernel_forward, _kernel_backward, symbolic_zeros=True)


@jax.custom_vjp
def shifted(y: Float[Array, "... I"], bias: Float[Array, " I"]) -> Float[Array, "... I"]:
    """y + b in the dtype of y; the gradient of b is summed in float32, as in `product`."""
    return y + bias.astype(y.dtype)


def _shifted_forward(y: Array, bias: Array) -> tuple[Array, Any]:
    return shifted(y, bias), _Dtype(bias.dtype)


def _shifted_backward(dtype: Any, g: Array) -> tuple[Array, Array]:
    total = jnp.sum(g, axis=tuple(range(g.ndim - 1)), dtype=jnp.float32)
    return g, total.astype(dtype.name)


shifted.defvjp(_shifted_forward, _shifted_backward)


class Linear(nnx.Module):
    """y = x W + b with W stored [in, out], in int8 with a scale per output where `quantised`."""

    def __init__(
        self,
        size_in: int,
        size_out: int,
        *,
        bias: bool,
        init: Init,
        dtype: Any,
        rngs: nnx.Rngs,
        quantised: bool = False,
    ):
        self.dtype = jnp.dtype(dtype)
        kernel = init(rngs.params(), (size_in, size_out))
        if quantised:
            kernel, scale = int8.quantise(kernel)
            self.kernel_scale = nnx.Param(scale)
        else:
            self.kernel_scale = None
        self.kernel = nnx.Param(kernel)
        # PyTorch draws the bias within the kernel's bound; LLaMA-style layers start it at zero.
        bound = size_in**-0.5 if init is fan_in_uniform else 0.0
        if bias:
            draw = jax.random.uniform(rngs.params(), (size_out,), minval=-bound, maxval=bound)
            self.bias = nnx.Param(draw)
        else:
            self.bias = None

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... I"]:
        x = x.astype(self.dtype)
        if self.kernel_scale is None:
            y = product(x, self.kernel[...])
        else:
            y = int8.product(x, self.kernel[...], self.kernel_scale[...])
        return y if self.bias is None else shifted(y, self.bias[...])


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    *,
    visible: Bool[Array, "B T S"] | None,
    scale: float,
) -> Float[Array, "B T D"]:
    """Softmax attention; each of the K key/value heads serves N/K neighbouring query heads.

    Scores and softmax are float32. A hidden key gets the lowest finite score, not -inf, so a query
    that sees no key averages all of them instead of becoming NaN (official mask arithmetic).
    """
    batch, time, heads, size = q.shape
    kv_heads, keys = k.shape[1:3]
    groups = heads // kv_heads
    weights = _softmax(q, k, visible=visible, scale=scale).astype(v.dtype)
    weights = weights.reshape(batch, kv_heads, groups * time, keys)
    mixed = jnp.einsum("BKTS,BKSH->BKTH", weights, v)
    mixed = mixed.reshape(batch, kv_heads, groups, time, size).transpose(0, 3, 1, 2, 4)
    return mixed.reshape(batch, time, heads * size)


def attention_weights(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    *,
    visible: Bool[Array, "B T S"] | None,
    scale: float,
) -> Float[Array, "B N T S"]:
    """Return the float32 weights by which `attend` mixes the values."""
    weights = _softmax(q, k, visible=visible, scale=scale)
    return weights.reshape(q.shape[0], q.shape[2], q.shape[1], k.shape[2])


def _softmax(q: Array, k: Array, *, visible: Array | None, scale: float) -> Float[Array, "..."]:
    """Softmax of the scores, [B, K, N / K * T, S]; with `visible` [B, K, N / K, T, S]."""
    batch, time, heads, size = q.shape
    kv_heads, keys = k.shape[1:3]
    groups = heads // kv_heads
    # The query heads of one key head become rows of one product; every product is then a plain
    # batch of matrices, which saves the CPU a transposition of the [T, S] weights.
    q = q.reshape(batch, time, kv_heads, groups, size).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, kv_heads, groups * time, size)
    scores = jnp.einsum("BKTH,BKSH->BKTS", q, k, preferred_element_type=jnp.float32) * scale
    if visible is not None:
        lowest = jnp.finfo(jnp.float32).min
        scores = scores.reshape(batch, kv_heads, groups, time, keys)
        scores = jnp.where(visible[:, None, None], scores, lowest)
    return jax.nn.softmax(scores, axis=-1)


def attend_to_all(
    q: Float[Array, "B T N H"], k: Float[Array, "B N S H"], v: Float[Array, "B N S H"]
) -> Float[Array, "B T D"]:
    """Unmasked `attend`; on a CPU and for long sequences one head of one row at a time.

    The scores of one head stay in the cache of a CPU core, which makes the 1,500-step Whisper
    encoder three times faster there; on accelerators all heads are one product.
    """
    whole = partial(attend, visible=None, scale=1.0)
    if q.shape[1] * k.shape[2] < _LONG:
        return whole(q, k, v)
    return lax.platform_dependent(q, k, v, cpu=_by_head, default=whole)


def _by_head(
    q: Float[Array, "B T N H"], k: Float[Array, "B N S H"], v: Float[Array, "B N S H"]
) -> Float[Array, "B T D"]:
    batch, time, heads, size = q.shape

    def one(inputs: tuple[Array, Array, Array]) -> Array:
        q, k, v = inputs
        scores = jnp.einsum("TH,SH->TS", q, k, preferred_element_type=jnp.float32)
        weights = jnp.exp(scores - scores.max(-1, keepdims=True))
        total = weights.sum(-1, keepdims=True)
        return jnp.einsum("TS,SH->TH", weights.astype(v.dtype), v) / total.astype(v.dtype)

    flat = (q.swapaxes(1, 2), k, v)
    mixed = lax.map(one, tuple(x.reshape(batch * heads, -1, size) for x in flat))
    return mixed.reshape(batch, heads, time, size).swapaxes(1, 2).reshape(batch, time, -1)


class WhisperAttention(nnx.Module):
    """Multi-head attention of Whisper: no key bias, q and k each scaled by (D / heads)^-0.25."""

    def __init__(self, size: int, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        self.heads = heads
        common = dict(init=fan_in_uniform, dtype=dtype, rngs=rngs)
        self.query = Linear(size, size, bias=True, **common)
        self.key = Linear(size, size, bias=False, **common)
        self.value = Linear(size, size, bias=True, **common)
        self.out = Linear(size, size, bias=True, **common)

    def queries(self, x: Float[Array, "B T D"]) -> Float[Array, "B T N H"]:
        return self._split(self.query(x)) * self._root_scale(x)

    def keys_values(
        self, x: Float[Array, "B S D"]
    ) -> tuple[Float[Array, "B N S H"], Float[Array, "B N S H"]]:
        k = self._split(self.key(x)) * self._root_scale(x)
        return k.swapaxes(1, 2), self._split(self.value(x)).swapaxes(1, 2)

    def mix(
        self,
        q: Float[Array, "B T N H"],
        k: Float[Array, "B N S H"],
        v: Float[Array, "B N S H"],
        *,
        visible: Bool[Array, "B T S"] | None = None,
    ) -> Float[Array, "B T D"]:
        return self.out(attend(q, k, v, visible=visible, scale=1.0))

    def weights(self, x: Float[Array, "B T D"]) -> Float[Array, "B N T T"]:
        """The float32 weights by which a call on the same x mixes its values."""
        return attention_weights(self.queries(x), self.keys_values(x)[0], visible=None, scale=1.0)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        q, (k, v) = self.queries(x), self.keys_values(x)
        q, k, v = (checkpoint_name(y, n) for y, n in ((q, "q"), (k, "k"), (v, "v")))
        return checkpoint_name(self.out(attend_to_all(q, k, v)), "attended")

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)

    def _root_scale(self, x: Array) -> float:
        return (x.shape[-1] // self.heads) ** -0.25


def gelu(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """The exact GELU.

    In less than float32 by erf, as PyTorch computes it: `jax.nn.gelu` asks for erfc, which a TPU
    computes at the price of both its branches.
    """
    if x.dtype == jnp.float32:
        return jax.nn.gelu(x, approximate=False)
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1.0 + lax.erf(wide * 0.5**0.5))).astype(x.dtype)


class WhisperMLP(nnx.Module):
    """D -> 4D -> D with the exact (erf) GELU."""

    def __init__(self, size: int, *, dtype: Any, rngs: nnx.Rngs):
        common = dict(bias=True, init=fan_in_uniform, dtype=dtype, rngs=rngs)
        self.up = Linear(size, 4 * size, **common)
        self.down = Linear(4 * size, size, **common)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.down(gelu(checkpoint_name(self.up(x), "up")))


class WhisperBlock(nnx.Module):
    """Pre-norm residual block of Whisper's encoder and of TLTR."""

    def __init__(self, size: int, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        self.attn_ln = LayerNorm(size, eps=LAYER_NORM_EPS)
        self.attn = WhisperAttention(size, heads, dtype=dtype, rngs=rngs)
        self.mlp_ln = LayerNorm(size, eps=LAYER_NORM_EPS)
        self.mlp = WhisperMLP(size, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], *, mean: Float[Array, "B T 1"] | None = None
    ) -> Float[Array, "B T D"]:
        """`mean` is that of x over its last axis where it is known."""
        x = x + self.attn(self.attn_ln(x, mean=mean))
        return x + self.mlp(self.mlp_ln(x))
