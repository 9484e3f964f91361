"""AdamW and learning-rate schedules with the numbers of the official training (facts 13).

The chain is clip -> Adam -> decoupled weight decay -> rate of the parameter's group -> schedule.
It is given trainable parameters only, so the clip norm and the moments cover nothing else.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import optax

from ltu_jax.core.axes import Array
from ltu_jax.core.errors import UserError
from ltu_jax.core.trees import label

SCHEDULES = ("linear", "cosine", "constant")
# "micro": the mean of the micro-batches' means over their targets, as the official trainer has it.
# "token": the sum over all targets of the step by their number, however they are cut.
LOSS_MEANS = ("micro", "token")
# torch.nn.utils.clip_grad_norm_ divides by (norm + 1e-6), which at a norm near the limit is not
# the same as dividing by the norm.
_CLIP_EPS = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, its schedule and the relative rates of parameter groups.

    `group_multipliers` is an ordered table (path pattern, factor on the learning rate) over the
    trainable parameters; an empty table means one rate for all. `loss_mean` is a name of
    `LOSS_MEANS`: what the loss of a step is when it has several micro-batches.
    """

    learning_rate: float
    group_multipliers: tuple[tuple[str, float], ...]
    schedule: str
    warmup_steps: int
    b1: float
    b2: float
    eps: float
    weight_decay: float
    clip_norm: float
    accumulation: int
    loss_mean: str

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UserError(
                f"optimizer.schedule is {self.schedule!r}; use one of {', '.join(SCHEDULES)}"
            )
        if self.loss_mean not in LOSS_MEANS:
            raise UserError(
                f"optimizer.loss_mean is {self.loss_mean!r}; use one of {', '.join(LOSS_MEANS)}"
            )
        for name in ("learning_rate", "eps", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(
                    f"optimizer.{name} is {getattr(self, name)!r}; use a positive number"
                )
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"optimizer.{name} is {getattr(self, name)!r}; use 0 or more, and less than 1"
                )
        for name, least in (("accumulation", 1), ("warmup_steps", 0), ("weight_decay", 0)):
            if not least <= getattr(self, name) < math.inf:
                raise UserError(f"optimizer.{name} is {getattr(self, name)!r}; use {least} or more")
        for pattern, factor in self.group_multipliers:
            if not 0 <= factor < math.inf:
                raise UserError(
                    f"optimizer.group_multipliers gives {pattern!r} the factor {factor!r}; use 0 "
                    "or more"
                )


def learning_rate(config: OptimizerConfig, *, steps: int) -> Callable[[Array], Array]:
    """Return the learning rate of optimiser step k, counted from 0, of a run of `steps` steps.

    Warm-up is `rate * k / warmup`, so the first step moves nothing (and does fill the moments);
    "linear" then falls to 0 at k = steps, as in the official logs; "cosine" does so along half a
    wave; "constant" stays. It is never negative, whatever the step.

    Raises:
        UserError: more warm-up steps than steps.
    """
    if config.warmup_steps >= steps and config.schedule != "constant":
        raise UserError(
            f"optimizer.warmup_steps is {config.warmup_steps} but the run has {steps} steps "
            "(config.steps; 0 for what data.epochs needs); warm up for fewer "
            f"(--config.optimizer.warmup_steps={steps // 10}) or train for more"
        )
    warmup, span = config.warmup_steps, max(1, steps - config.warmup_steps)

    def rate(step: Array) -> Array:
        step = jnp.maximum(jnp.asarray(step, jnp.float32), 0.0)
        left = jnp.clip((steps - step) / span, 0.0, 1.0)
        if config.schedule == "cosine":
            decay = 0.5 * (1.0 + jnp.cos(jnp.pi * (1.0 - left)))
        elif config.schedule == "linear":
            decay = left
        else:
            decay = jnp.ones_like(left)
        factor = jnp.where(step < warmup, step / max(1, warmup), decay)
        return config.learning_rate * factor

    return rate


def make_optimizer(
    config: OptimizerConfig, *, paths: Iterable[str], steps: int
) -> optax.GradientTransformation:
    """Make AdamW for a flat tree with exactly the trainable `paths`.

    Raises:
        ValueError: the group table leaves a path unmatched or has a rule without a path.
    """
    factors = dict.fromkeys(paths, 1.0)
    if config.group_multipliers:
        factors = label(config.group_multipliers, factors)
    rate = learning_rate(config, steps=steps)
    return optax.chain(
        clip_like_torch(config.clip_norm),
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps, mu_dtype=jnp.float32),
        optax.add_decayed_weights(config.weight_decay),
        _scale_groups(factors),
        optax.scale_by_schedule(lambda step: -rate(step)),
    )


def clip_like_torch(max_norm: float) -> optax.GradientTransformation:
    """Scale by `min(1, max_norm / (norm + 1e-6))` with the float32 norm over the whole tree."""

    def update(updates, state, params=None):
        del params
        factor = jnp.minimum(1.0, max_norm / (global_norm(updates) + _CLIP_EPS))
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def global_norm(tree: Mapping[str, Array]) -> Array:
    """Return the square root of the sum of squares of all entries, float32."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.float32(0.0)))


def _scale_groups(factors: Mapping[str, float]) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        del params
        return {path: leaf * factors[path] for path, leaf in updates.items()}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
