"""The golden run with accumulation, in a process of its own: `accumulated_steps.py OUT.npz`.

An entry whose gradient is of the size of Adam's eps (1e-8 here) moves by a visible part of the
rate when the order of a float32 sum changes. The official numbers come from one device, so they
are compared with one device, not with one of the suite's eight.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from conftest_training import STAGE3, load_tiny
from test_golden_steps import run_golden

from ltu_jax.training import losses

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def main(out: str) -> None:
    """Train and store the parameters; losses, norms and rates are compared on the way."""
    assert len(jax.devices()) == 1
    jax.config.update("jax_default_matmul_precision", "highest")
    tiny = load_tiny(GOLDEN / "ltu_as_tiny_a", with_lora=True)
    # Micro-batches are example 0 alone and examples 1 and 2: a row without targets evens them out.
    # Rows 0, 2 make the first micro-batch of two and rows 1, 3 the second.
    rows = {name: leaf[[0, 1, 0, 2]] for name, leaf in tiny.batch.items()}
    rows["labels"] = rows["labels"].copy()
    rows["labels"][2] = losses.IGNORED
    state, _ = run_golden(tiny, "adamw_accum2", rules=STAGE3, accumulation=2, batch=rows, steps=2)
    np.savez(out, **{path: np.asarray(leaf) for path, leaf in state.trainable.items()})


if __name__ == "__main__":
    main(sys.argv[1])
