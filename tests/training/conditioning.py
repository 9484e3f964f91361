"""What of an AdamW step can be compared: an entry moves by `rate * m / sqrt(v)`, a matter of sign.

Where a gradient is not large against its own error (float32 sums in another order, other CPUs), or
against eps, rounding decides which way its entry moves by up to a full rate. So gradients and
moments are compared everywhere, each step everywhere with a float64 one from the same moments, and
parameters with those of another program where the gradient decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltu_jax.training.optimizer import OptimizerConfig

EPS_TIMES = 1e3  # how far above Adam's eps a clipped gradient has to be


def allowed(gradient: np.ndarray) -> float:
    """The error that a gradient may have (facts section 3)."""
    return max(1e-5, 3e-5 * np.abs(gradient).max())


def decisive(
    gradients: Mapping[str, np.ndarray], *, config: OptimizerConfig, moved: float, atol: float
) -> dict[str, np.ndarray]:
    """Entries whose parameter stays within `atol` if their gradient is within what is allowed.

    Args:
        gradients: of the first step, of an independent program, before clipping.
        config: for eps and the clip.
        moved: sum of the rates.
        atol: of the parameters.
    """
    norm = np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in gradients.values()))
    clip = min(1.0, config.clip_norm / norm)
    return {
        path: (np.abs(leaf) > moved * allowed(leaf) / atol)
        & (np.abs(leaf) * clip > EPS_TIMES * config.eps)
        for path, leaf in gradients.items()
    }


def adam(state: Any) -> Any:
    """The moments of a train state."""
    return next(part for part in state.opt_state if hasattr(part, "mu"))


def check_steps(states: Sequence[Any], *, config: OptimizerConfig, rates: Sequence[float]) -> None:
    """Compare every parameter and moment of consecutive states with AdamW in float64.

    Args:
        states: on the host, the first one before the first step.
        config: the optimiser's.
        rates: of each step.
    """
    b1, b2 = config.b1, config.b2
    pairs = zip(states[:-1], states[1:], rates, strict=True)
    for step, (before, after, rate) in enumerate(pairs, 1):
        old, new = adam(before), adam(after)
        for path, param in after.trainable.items():
            m0, v0, m, v = (
                np.asarray(part[path], np.float64) for part in (old.mu, old.nu, new.mu, new.nu)
            )
            gradient = (m - b1 * m0) / (1 - b1)
            truth = b2 * v0 + (1 - b2) * gradient**2
            np.testing.assert_allclose(v, truth, atol=1e-9, rtol=1e-5, err_msg=path)
            update = m / (1 - b1**step) / (np.sqrt(v / (1 - b2**step)) + config.eps)
            moved = np.asarray(before.trainable[path], np.float64) - rate * update
            np.testing.assert_allclose(param, moved, atol=1e-7, rtol=2e-7, err_msg=path)
