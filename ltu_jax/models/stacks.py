"""Equal layers as one module under a scan, and what their backward pass keeps of each."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import lax

from ltu_jax.core.errors import UserError

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


def rematerialised(fn: Callable, *, remat: str, looped: bool) -> Callable:
    """Wrap `fn` so that its backward pass keeps only what the policy says.

    Args:
        remat: "none" keeps everything that is computed, "full" recomputes it, "lora" keeps what
            is named in `SAVED` (all but the input is recomputed from it without a large product),
            "lora_offload" keeps the same in host memory, else a name of `REMAT_POLICIES` (see
            `jax.checkpoint_policies`).
        looped: `fn` is the body of a scan. Elsewhere the compiler sees the same products forward
            and backward, and unless forbidden merges them: nothing would be recomputed.

    Raises:
        UserError: an unknown policy.
    """
    if remat == "none" and not looped:
        return fn
    if remat == "full":
        return jax.checkpoint(fn, prevent_cse=not looped)
    if remat not in ("none", *REMAT_POLICIES):
        choices = ("none", "full", *REMAT_POLICIES)
        raise UserError(f"remat policy {remat!r} is unknown; choose one of {', '.join(choices)}")
    policies = jax.checkpoint_policies
    if remat in ("none", "everything_saveable"):
        policy = _all_but_frozen
    elif remat == "lora":
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


def _all_but_frozen(primitive: Any, *_: Any, **__: Any) -> bool:
    """Keep what is computed, but not the weights behind a stop_gradient (`layers.product`).

    A scan would copy them layer by layer into a second stack, though the first is still there.
    """
    return primitive.name != "stop_gradient"


def check_remat(remat: str) -> None:
    """Raise `UserError` for an unknown policy: at once, not inside a trace."""
    rematerialised(lambda: None, remat=remat, looped=True)


def stack(make: Callable[[nnx.Rngs], nnx.Module], *, layers: int, rngs: nnx.Rngs) -> nnx.Module:
    """Return `layers` equal modules as one whose parameters have a leading layer axis."""

    @nnx.split_rngs(splits=layers)
    @nnx.vmap
    def build(rngs: nnx.Rngs) -> nnx.Module:
        return make(rngs)

    return build(rngs)


def separate_layers(stacked: nnx.Module) -> tuple[nnx.State, ...]:
    """Return the parameters of each layer of a stack as arrays of their own."""
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
