"""The real TPU compiler plans a small step; `python -m benchmarks.plan --check` the full size.

It has a process of its own, because libtpu allows one per machine and never lets go.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from ltu_jax.planning.aot import library

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="libtpu exists for x86-64 Linux only",
)


def test_the_compiler_is_where_make_test_puts_it():
    assert library() is not None, "no libtpu: `make test` installs it in .venv/libtpu"


SMALL = """
--config=configs/stage3.py:mini --config.data.layout=single
--config.data.lengths=() --config.data.rows_per_batch=32 --config.compute.dtype=bfloat16
--config.compute.remat=full --config.model.llama.num_hidden_layers=6
--config.model.llama.hidden_size=256 --config.model.llama.intermediate_size=1024
--config.model.llama.num_attention_heads=4 --config.model.llama.num_key_value_heads=4
--config.model.llama.vocab_size=2048 --text-length 96 --mean-text 60
"""


def plan(arguments, target):
    command = [sys.executable, "-m", "ltu_jax.plan", *arguments, "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(target.read_text()), done.stdout


def test_a_small_step_compiles_for_a_slice(tmp_path):
    made, printed = plan([*SMALL.split(), "--slice", "v5e-4"], tmp_path / "plan.json")
    assert made["fits"] and made["devices"] == 4 and "FITS" in printed
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
