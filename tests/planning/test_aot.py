"""The real TPU compiler plans a small step; `python -m benchmarks.plan --check` the full size."""

import json
import platform
import sys

import pytest

from ltu_jax.planning.aot import library

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="libtpu exists for x86-64 Linux only",
)


def test_the_compiler_is_where_make_test_puts_it():
    assert library() is not None, "no libtpu: `make test` installs it in .venv/libtpu"


def test_a_small_step_compiles_for_a_slice(for_tpu):
    made = json.loads((for_tpu / "plan.json").read_text())
    assert (for_tpu / "status.txt").read_text() == "0"
    assert made["fits"] and made["devices"] == 4 and "FITS" in (for_tpu / "plan.txt").read_text()
    assert [count for _, count in made["loops"]] == [6, 6]  # layers forward and back
    assert 0.95 < made["flops_per_device"] / made["hand_flops_per_device"] <= 1.05
    # All that a copy of the model sends is the gradient, in bf16 or float32.
    sent = made["collective_bytes_per_step"]["all-reduce"]
    assert 0.45 < sent / made["trainable_bytes"] < 1.1
    peak = made["est_step_seconds"] * 4 * 197e12  # of four chips, by the data sheet
    assert made["mfu_bound"] == pytest.approx(made["model_flops_per_step"] / peak)
    # All of the 96 positions are multiplied, and attend to each other: no bound above what is done.
    again = made["recomputed_flops_per_device"]
    shapes = 4 * (made["hand_flops_per_device"] - again) / peak
    assert made["padded_mfu_bound"] == pytest.approx(shapes)
    assert made["mfu_bound"] < made["padded_mfu_bound"] <= 4 * made["flops_per_device"] / peak
    parts = ("base_bytes", "trainable_bytes", "optimiser_bytes", "batch_bytes")
    held = sum(made[name] for name in parts)
    assert held < made["peak_bytes_per_chip"] < 5e9
