"""Cross-entropy without the logits of all targets in memory, at no more products than with them.

A chunk is some target positions of every row: the batch axis keeps its place on the mesh, and the
vocabulary axis too. The gradient of a chunk's states is taken while its logits are there, in the
forward pass, and only multiplied in the backward pass; nothing is computed twice.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.core.trees import Params, merge

Sums = tuple[Float[Array, ""], Float[Array, ""]]


def chunked_sums(
    states: Float[Array, "B P E"],
    targets: Int[Array, "B P"],
    *,
    unembed: Callable[[Params, Array], Float[Array, "B P V"]],
    trainable: Params,
    frozen: Params,
    sums: Callable[[Array, Array], Sums],
    ignored: int,
    chunk: int,
) -> Sums:
    """Return `sums(unembed(params, states), targets)`, `chunk` positions of every row at a time.

    Args:
        states: final-norm states of the target positions.
        targets: ids; `ignored` in unused places.
        unembed: vocabulary head.
        trainable: parameters of the head that are trained, often none; they get a gradient.
        frozen: all other parameters that `unembed` asks for; they get none.
        sums: (loss, hits) summed over positions of logits and targets; loss is differentiated.
        ignored: a target that adds nothing to `sums`.
        chunk: positions of a row whose logits exist at a time.
    """
    batch, places = targets.shape
    spare = -places % chunk
    states = jnp.pad(states, ((0, 0), (0, spare), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, spare)), constant_values=ignored)

    def parts(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(batch, -1, chunk, *x.shape[2:]), 1, 0)

    @jax.custom_vjp
    def total(states: Array, head: Params, rest: Params, targets: Array) -> Sums:
        def add(total: Sums, part: tuple[Array, Array]) -> tuple[Sums, None]:
            found = sums(unembed(merge(head, rest), part[0]), part[1])
            return jax.tree.map(jnp.add, total, found), None

        return jax.lax.scan(add, (jnp.float32(0), jnp.float32(0)), (parts(states), parts(targets)))[
            0
        ]

    def forward(states: Array, head: Params, rest: Params, targets: Array):
        def add(carry, part):
            (loss, hits), slopes = carry
            state, target = part
            found, pull, more = jax.vjp(
                lambda state, head: sums(unembed(merge(head, rest), state), target),
                state,
                head,
                has_aux=True,
            )
            slope, of_head = pull(jnp.ones_like(found))
            carry = (loss + found, hits + more), jax.tree.map(jnp.add, slopes, of_head)
            return carry, slope

        start = (jnp.float32(0), jnp.float32(0)), jax.tree.map(jnp.zeros_like, head)
        (found, of_head), slopes = jax.lax.scan(add, start, (parts(states), parts(targets)))
        return found, (jnp.moveaxis(slopes, 0, 1).reshape(states.shape), of_head)

    def backward(slopes, cotangents: Sums):
        of_states, of_head = jax.tree.map(lambda slope: slope * cotangents[0], slopes)
        return of_states, of_head, None, None

    total.defvjp(forward, backward)
    return total(states, trainable, frozen, targets)
