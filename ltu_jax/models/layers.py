"""Layers shared by Whisper, TLTR and LLaMA: products, norms, attention, and stacks under a scan.

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
from ltu_jax.core.errors import UserError
from ltu_jax.models import int8

_LONG = 1 << 18  # scores per head from which a CPU works head by head
LAYER_NORM_EPS = 1e-5  # PyTorch's default, which Whisper, TLTR and the projection all use

REMAT_POLICIES = (
    "lora",
    "lora_offload",
    "dots_saveable",
    "dots_with_no_batch_dims_saveable",
    "everything_saveable",
    "nothing_saveable",
)
# What the "lora" policy keeps of a layer besides its input: enough that the backward pass repeats
# no large product. The inputs of frozen products are not among it, nobody asks for their gradient.
SAVED = (
    "q",
    "k",
    "v",
    "logsum",
    "attended",
    "gate",
    "up",
    "low_rank",
)

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


def _kernel_backward(kept: tuple, g: Any) -> tuple:
    x, dtype = kept
    if isinstance(g, SymbolicZero):
        return None, None, None
    if x is None:
        return g, None, None
    leading = tuple(range(x.ndim - 1))
    dims = ((leading, leading), ((), ()))
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


def standardise(
    x: Float[Array, "... D"], *, eps: float, mean: Float[Array, "... 1"] | None = None
) -> Float[Array, "... D"]:
    """LayerNorm without scale and bias, in float32; `mean` is that of x where it is known."""
    x = x.astype(jnp.float32)
    centred = x - (x.mean(-1, keepdims=True) if mean is None else mean)
    return centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)


class LayerNorm(nnx.Module):
    """LayerNorm with scale and bias, computed and returned in float32."""

    def __init__(self, size: int, *, eps: float):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(size))
        self.bias = nnx.Param(jnp.zeros(size))

    def __call__(
        self, x: Float[Array, "... D"], *, mean: Float[Array, "... 1"] | None = None
    ) -> Float[Array, "... D"]:
        scale, bias = (part[...].astype(jnp.float32) for part in (self.scale, self.bias))
        return standardise(x, eps=self.eps, mean=mean) * scale + bias


class RMSNorm(nnx.Module):
    """Root-mean-square norm with scale, computed and returned in float32."""

    def __init__(self, size: int, *, eps: float):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(size))

    def __call__(
        self, x: Float[Array, "... E"], *, square: Float[Array, "... 1"] | None = None
    ) -> Float[Array, "... E"]:
        """`square` is `mean_square(x)` where that is known already."""
        x = x.astype(jnp.float32)
        square = mean_square(x) if square is None else square
        return _over_root(x, square, self.eps) * self.scale[...].astype(jnp.float32)


def mean_square(x: Float[Array, "... E"]) -> Float[Array, "... 1"]:
    """Mean of the squares over the last axis, float32."""
    return jnp.square(x.astype(jnp.float32)).mean(-1, keepdims=True)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _over_root(x: Array, square: Array, eps: float) -> Array:
    """x over the root of its mean square; the gradient is the whole one, `square` gets none."""
    return x * lax.rsqrt(square + eps)


def _over_root_forward(x: Array, square: Array, eps: float) -> tuple[Array, tuple]:
    return _over_root(x, square, eps), (x, square)


def _over_root_backward(eps: float, kept: tuple, g: Array) -> tuple[Array, None]:
    x, square = kept
    inverse = lax.rsqrt(square + eps)
    along = (g * x).mean(-1, keepdims=True) * inverse**3
    return g * inverse - x * along, None


_over_root.defvjp(_over_root_forward, _over_root_backward)


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
    # The query heads of one key head become rows of one product; every product is then a plain
    # batch of matrices, which saves the CPU a transposition of the [T, S] weights.
    q = q.reshape(batch, time, kv_heads, groups, size).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, kv_heads, groups * time, size)
    scores = jnp.einsum("BKTH,BKSH->BKTS", q, k, preferred_element_type=jnp.float32) * scale
    if visible is not None:
        lowest = jnp.finfo(jnp.float32).min
        scores = scores.reshape(batch, kv_heads, groups, time, keys)
        scores = jnp.where(visible[:, None, None], scores, lowest)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    weights = weights.reshape(batch, kv_heads, groups * time, keys)
    mixed = jnp.einsum("BKTS,BKSH->BKTH", weights, v)
    mixed = mixed.reshape(batch, kv_heads, groups, time, size).transpose(0, 3, 1, 2, 4)
    return mixed.reshape(batch, time, heads * size)


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


def rematerialised(fn: Callable, *, remat: str, looped: bool) -> Callable:
    """Wrap `fn` so that its backward pass keeps only what the policy says.

    Args:
        remat: "none" keeps everything, "full" recomputes everything, "lora" keeps what is named
            in `SAVED` (all but the input is recomputed from it without a large product),
            "lora_offload" keeps the same in host memory, else a name of `REMAT_POLICIES` (see
            `jax.checkpoint_policies`).
        looped: `fn` is the body of a scan. Elsewhere the compiler sees the same products forward
            and backward, and unless forbidden merges them: nothing would be recomputed.

    Raises:
        UserError: an unknown policy.
    """
    if remat == "none":
        return fn
    if remat == "full":
        return jax.checkpoint(fn, prevent_cse=not looped)
    if remat not in REMAT_POLICIES:
        choices = ("none", "full", *REMAT_POLICIES)
        raise UserError(f"remat policy {remat!r} is unknown; choose one of {', '.join(choices)}")
    policies = jax.checkpoint_policies
    if remat == "lora":
        policy = policies.save_only_these_names(*SAVED)
    elif remat == "lora_offload":
        policy = policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=list(SAVED),
            offload_src="device",
            offload_dst="pinned_host",
        )
    else:
        policy = getattr(policies, remat)
    return jax.checkpoint(fn, prevent_cse=not looped, policy=policy)


def stack(make: Callable[[nnx.Rngs], nnx.Module], *, layers: int, rngs: nnx.Rngs) -> nnx.Module:
    """`layers` equal modules as one whose parameters have a leading layer axis."""

    @nnx.split_rngs(splits=layers)
    @nnx.vmap
    def build(rngs: nnx.Rngs) -> nnx.Module:
        return make(rngs)

    return build(rngs)


def separate_layers(stacked: nnx.Module) -> tuple[nnx.State, ...]:
    """The parameters of each layer of a stack as arrays of their own."""
    _, params = nnx.split(stacked)
    depth = jax.tree.leaves(params)[0].shape[0]
    return tuple(jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(depth))


def each_layer(
    stacked: nnx.Module, layers: tuple[nnx.State, ...], fn: Callable, carry: Any
) -> tuple[Any, None]:
    """`scan_layers` without outputs, written out: `fn(layer, carry, index) -> (carry, None)`.

    A scan copies each layer's weights out of the stack before XLA's CPU products read them, which
    for one token a row is most of the work. Here `layers` (of `separate_layers`) are read in place.
    """
    graph, _ = nnx.split(stacked)
    for index, params in enumerate(layers):
        carry, _ = fn(nnx.merge(graph, params), carry, index)
    return carry, None


def scan_layers(
    stacked: nnx.Module, fn: Callable, carry: Any, inputs: Any = None, *, remat: str = "none"
) -> tuple[Any, Any]:
    """Thread `carry` through the layers: `fn(layer, carry, input) -> (carry, output)`.

    One compiled body for all layers, so compile time does not grow with depth.
    """
    graph, params = nnx.split(stacked)

    def body(carry: Any, layer_inputs: Any) -> tuple[Any, Any]:
        layer, one = layer_inputs
        return fn(nnx.merge(graph, layer), carry, one)

    return lax.scan(rematerialised(body, remat=remat, looped=True), carry, (params, inputs))
