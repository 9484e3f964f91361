"""int8 kernels: closed forms of the rounding, the product and its gradient, and the whole model."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from test_ltu_as_model import CONFIG, FULL, features, noisy, plain, tokens

from ltu_jax.models import int8
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.weights.placement import quantised
from ltu_jax.weights.tensors import array_tensor

LAYERS, SIZE_IN, SIZE_OUT = 3, 32, 20


@pytest.fixture(scope="module")
def kernel():
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((LAYERS, SIZE_IN, SIZE_OUT)).astype(np.float32)
    # Outputs and layers of very different size must not share a scale.
    return kernel * rng.uniform(0.01, 10, (LAYERS, 1, SIZE_OUT)).astype(np.float32)


def test_one_scale_for_each_layer_and_output(kernel):
    values, scale = (np.asarray(x) for x in int8.quantise(kernel))
    assert values.dtype == np.int8 and scale.dtype == np.float32
    np.testing.assert_allclose(scale, np.abs(kernel).max(1) / 127.5, rtol=1e-6)
    assert np.abs(values.astype(int)).max() == 127 or values.min() == -128
    # Rounding to the nearest step; the largest weight of a column is half a step above 127.
    assert (np.abs(values * scale[:, None] - kernel) <= 0.5001 * scale[:, None]).all()


def test_a_column_of_zeros():
    values, scale = int8.quantise(np.zeros((4, 2), np.float32))
    assert not np.asarray(values).any() and np.isfinite(np.asarray(scale)).all()


@pytest.mark.parametrize("dtype, limit", [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_product_and_gradient_are_those_of_the_dequantised_kernel(kernel, dtype, limit):
    values, scale = int8.quantise(kernel[0])
    whole = np.asarray(values, np.float32) * np.asarray(scale)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 5, SIZE_IN)).astype(np.float32)
    dy = rng.standard_normal((2, 5, SIZE_OUT)).astype(np.float32)
    y, pull = jax.vjp(lambda x: int8.product(x, values, scale), jnp.asarray(x, dtype))
    (dx,) = pull(jnp.asarray(dy, dtype))
    assert y.dtype == dx.dtype == dtype
    for found, expected in ((y, x @ whole), (dx, dy @ whole.T)):
        off = np.abs(np.asarray(found, np.float32) - expected).max()
        assert off <= limit * np.abs(expected).max()


@pytest.mark.parametrize("stored", [np.float32, ml_dtypes.bfloat16])
def test_stored_kernels_are_quantised_in_parts(kernel, stored):
    """Any part of the values and scales is that part of the whole's."""
    values, scales = quantised(array_tensor(kernel.astype(stored)))
    want_values, want_scales = int8.quantise(kernel.astype(stored).astype(np.float32))
    np.testing.assert_array_equal(values.read(), want_values)
    np.testing.assert_array_equal(scales.read(), want_scales)
    part = values.region((slice(1, 3), slice(8, 16), slice(0, 10)), np.int8)
    np.testing.assert_array_equal(part, np.asarray(want_values)[1:3, 8:16, :10])
    part = scales.region((slice(2, 3), slice(10, 20)), np.float32)
    np.testing.assert_array_equal(part, np.asarray(want_scales)[2:3, 10:])


def test_the_model_is_that_of_the_dequantised_base():
    small = LTUAS.functional(CONFIG, int8_base=True)
    params = noisy(LTUAS.functional(CONFIG).shapes)
    rounded, held = dict(params), dict(params)
    for path in small.shapes:
        if path.endswith(int8.SCALE):
            kernel = path.removesuffix(int8.SCALE)
            values, scale = int8.quantise(params[kernel])
            held[kernel], held[path] = values, scale
            rounded[kernel] = values.astype(jnp.float32) * scale[..., None, :]
    assert {p: (v.shape, v.dtype) for p, v in held.items()} == {
        p: (s.shape, s.dtype) for p, s in small.shapes.items()
    }
    ids, audio = tokens(2, 6), features(2)
    lora = [path for path in params if ".lora_" in path]

    def slopes(fns, params):
        def loss(trained):
            model = fns.bind({**params, **trained})
            return jnp.mean(jnp.square(model.hidden(plain(ids), audio)))

        return jax.jit(jax.value_and_grad(loss))({path: params[path] for path in lora})

    loss, grads = slopes(small, held)
    loss_0, grads_0 = slopes(LTUAS.functional(CONFIG), rounded)
    np.testing.assert_allclose(loss, loss_0, rtol=1e-5)
    for path in lora:
        expected = np.asarray(grads_0[path])
        np.testing.assert_allclose(
            grads[path], expected, rtol=0, atol=1e-5 * np.abs(expected).max()
        )


def test_which_parameters_are_int8_at_7b():
    one = dataclasses.replace(FULL, llama=dataclasses.replace(FULL.llama, num_hidden_layers=1))
    shapes = LTUAS.functional(one, int8_base=True).shapes
    found = {path for path, leaf in shapes.items() if leaf.dtype == jnp.int8}
    names = [f"self_attn.{x}_proj" for x in "qkvo"]
    names += [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    assert found == {f"llama.layers.{name}.kernel" for name in names}
    # A byte a weight, float32 scales, and embedding and head in bfloat16: 7.0 GB at 32 layers.
    scales = {path: leaf for path, leaf in shapes.items() if path.endswith(int8.SCALE)}
    assert scales.keys() == {path + int8.SCALE for path in found}
    layer = sum(shapes[path].size for path in found) + 4 * sum(s.size for s in scales.values())
    assert 32 * layer + 2 * 2 * 32000 * 4096 == pytest.approx(7.0e9, rel=2e-3)
