"""What the TPU compiler is told about the precision of every product, read from its own text."""

import platform
import re
import sys

import pytest

from ltu_jax.planning.hlo_text import parse

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="libtpu exists for x86-64 Linux only",
)
# Of an encoder, whose blocks are one loop: convolutions, kernels, scores and values, pooling.
PRODUCTS = 2 + 6 + 2 + 1


@pytest.fixture(scope="module")
def compiled(for_tpu):
    """The text of each program of `compile_for_tpu.py`."""
    return {file.stem: file.read_text() for file in for_tpu.glob("*.txt")}


def products(text):
    """(instruction, its line's precision, dtypes of its operands) of all products of a module."""
    found = []
    for computation in parse(text).values():
        for one in computation.instructions.values():
            if one.opcode in ("convolution", "dot"):
                dtypes = {computation.instructions[name].shape[:4] for name in one.operands}
                said = re.search(r"operand_precision=(\{[^}]*\})", one.rest)
                found.append((one.name, said and said.group(1), dtypes))
    return found


def test_float32_features_are_float32_products(compiled):
    found = products(compiled["features-float32"])
    assert len(found) == PRODUCTS
    assert {precision for _, precision, _ in found} == {"{highest,highest}"}


def test_bfloat16_features_are_one_pass_over_bfloat16_operands(compiled):
    found = products(compiled["features-bfloat16"])
    assert len(found) == PRODUCTS
    (pooling,) = (one for one in found if one[1])  # an average, of float32 states
    assert pooling[1] == "{highest,highest}" and pooling[2] == {"f32["}
    for name, precision, dtypes in found:
        assert (name, dtypes) == (name, {"bf16"}) or (name, precision) == pooling[:2]


def test_a_float32_step_has_float32_products(compiled):
    """Backward passes too, those of custom gradients among them."""
    found = products(compiled["gradient-float32"])
    assert len(found) > 40
    assert [name for name, precision, _ in found if precision != "{highest,highest}"] == []
