"""Memory of the compiled step: the old state's buffers become the new state's."""

import jax
import numpy as np
import pytest

from tests.support.golden_model import STAGE3, make_trainer, optimizer_config
from tests.support.targets import dense_targets

pytestmark = pytest.mark.optimised


def test_the_step_writes_the_new_state_over_the_old_one(tiny):
    trainer = make_trainer(tiny, rules=STAGE3, config=optimizer_config(), steps=200)
    batch = jax.device_put(dense_targets(tiny.batch))
    key = jax.random.key(0)
    compiled = trainer.step.lower(trainer.state, trainer.frozen, batch, key).compile()
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(trainer.state))
    assert compiled.memory_analysis().alias_size_in_bytes == state
    after, _ = trainer.step(trainer.state, trainer.frozen, batch, key)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(trainer.state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((after, trainer.frozen)))
    assert np.isfinite(float(jax.tree.leaves(after)[0].sum()))
