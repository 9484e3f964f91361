"""Loss and gradients on every mesh of 1, 2, 4 and 8 devices, and what the devices exchange."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ltu_jax.core.sharding import MeshConfig, audio_layout, make_mesh, param_shardings
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import losses
from ltu_jax.training.state import create_state, split_trainable, state_shardings
from ltu_jax.training.step import make_train_step
from tests.support.golden_model import STAGE3
from tests.support.targets import dense_targets

ROWS, PAIR, AUDIO, LAYERS = 8, 12, 5, 3
TEXT = 3 * PAIR  # rows of three pairs about one clip
# Every dimension that is cut divides by 8; the TLTR's width occurs nowhere else.
CONFIG = LTUASConfig(
    tltr=TLTRConfig(d_model=48, time_heads=1, layer_heads=8),
    llama=LlamaConfig(
        vocab_size=80,
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=8,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        rope_scaling=None,
        tie_word_embeddings=False,
        attention_bias=False,
    ),
    lora=LoRAConfig(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj", "v_proj")),
    audio_layers=LAYERS,
    audio_tokens=AUDIO,
)
MESHES = [
    (data, fsdp, count // data // fsdp)
    for count in (1, 2, 4, 8)
    for data in (1, 2, 4, 8)
    for fsdp in (1, 2, 4, 8)
    if count % (data * fsdp) == 0
]
# Where attention is computed in blocks, which takes longer to compile; elsewhere whole.
IN_BLOCKS = [(1, 1, 8), (4, 1, 1), (2, 2, 2)]
# The programs run once; compiling them well would cost more than it gains.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def _batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 80, (ROWS, TEXT))
    labels[rng.random(labels.shape) < 0.3] = IGNORE
    segments = np.tile(1 + np.arange(TEXT, dtype=np.int32) // PAIR, (ROWS, 1))
    segments[1::2, 30:] = 0
    positions = np.concatenate([np.arange(AUDIO), AUDIO + np.arange(TEXT) % PAIR])
    rows = {
        "features": rng.normal(size=(ROWS, LAYERS, AUDIO, 48)).astype(np.float32),
        "input_ids": rng.integers(0, 80, (ROWS, TEXT)).astype(np.int32),
        "labels": labels.astype(np.int32),
        "segment_ids": segments,
        "positions": np.tile(positions.astype(np.int32), (ROWS, 1)),
    }
    return dense_targets(rows)


@pytest.fixture(scope="module")
def params() -> dict[str, np.ndarray]:
    made = LTUAS.functional(CONFIG).init(jax.random.key(0))
    rng = np.random.default_rng(1)
    drawn = {path: np.asarray(leaf) for path, leaf in sorted(made.items())}
    # LoRA's B starts at zero, where A has no gradient.
    return {
        path: 0.1 * rng.normal(size=leaf.shape).astype(np.float32) if "lora_b" in path else leaf
        for path, leaf in drawn.items()
    }


def _lowered(params, sizes, *, dtype="float32", attention="xla"):
    """The step that training compiles, with an optimiser that keeps the gradient as its state."""
    data, fsdp, tensor = sizes
    config = MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
    mesh = make_mesh(config, jax.devices()[: data * fsdp * tensor])
    layout = audio_layout(mesh)
    fns = LTUAS.functional(
        CONFIG,
        dtype=jnp.dtype(dtype),
        attention=attention,
        longest_pair=PAIR,
        lay_audio=layout.gather,
    )
    loss_fn = losses.language_loss(
        fns,
        features=lambda frozen, batch: layout.spread(batch["features"]),
    )
    tx = optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, state, params: (jax.tree.map(jnp.zeros_like, grads), grads),
    )
    trainable, frozen = split_trainable(params, STAGE3)
    state = create_state(trainable, tx, mesh=mesh)
    laid = param_shardings(mesh, frozen)
    step = make_train_step(
        loss_fn,
        tx,
        mesh=mesh,
        shardings=(state_shardings(state, mesh=mesh), laid),
        accumulation=1,
    )
    frozen = {path: jax.device_put(leaf.astype(dtype), laid[path]) for path, leaf in frozen.items()}
    inputs = (state, frozen, _batch(), jax.random.key(0))
    return step.lower(*inputs), inputs


def _gradients(params, sizes, attention):
    lowered, inputs = _lowered(params, sizes, attention=attention)
    state, metrics = lowered.compile(compiler_options=QUICK)(*inputs)
    return float(metrics["loss"]), {name: np.asarray(g) for name, g in state.opt_state.items()}


@pytest.fixture(scope="module")
def alone(params):
    # Rows lie in another order for blocks, so dropout falls on other places.
    return {name: _gradients(params, (1, 1, 1), name) for name in ("xla", "blocks")}


def test_every_factorisation_is_here():
    assert len(MESHES) == len(set(MESHES)) == 1 + 3 + 6 + 10


@pytest.mark.parametrize("sizes", MESHES[1:], ids=lambda sizes: "x".join(map(str, sizes)))
def test_loss_and_gradients_are_those_of_one_device(params, alone, sizes):
    attention = "blocks" if sizes in IN_BLOCKS else "xla"
    expected_loss, expected = alone[attention]
    loss, gradients = _gradients(params, sizes, attention)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    assert gradients.keys() == expected.keys()
    for path, truth in expected.items():
        largest = np.abs(truth).max()
        assert largest > 0, path
        np.testing.assert_allclose(
            gradients[path], truth, atol=1e-5 * largest, rtol=0, err_msg=path
        )


@pytest.fixture(scope="module")
def partitioned(params, tmp_path_factory) -> str:
    """HLO of the bfloat16 step on a 2 x 2 x 2 mesh, as partitioned, before a CPU rewrites it.

    CPUs turn bfloat16 into float32 later, which would hide what the devices exchange.
    """
    folder: Path = tmp_path_factory.mktemp("hlo")
    lowered, _ = _lowered(params, (2, 2, 2), dtype="bfloat16")
    dump = {"xla_dump_to": str(folder), "xla_dump_hlo_pass_re": "spmd-partitioning"}
    lowered.compile(compiler_options={**QUICK, **dump})
    (file,) = folder.glob("*jit_step*after_spmd-partitioning*.txt")
    return file.read_text()


def test_the_tltr_is_not_repeated_on_the_tensor_axis(partitioned):
    """Its products work on rows / (data x fsdp x tensor), forward and backward."""
    each = ROWS // 8 * LAYERS * AUDIO
    shapes = re.findall(r"= \w+\[([\d,]+)\]\S* dot\(", partitioned)
    widths = [tuple(map(int, shape.split(","))) for shape in shapes]
    rows = {
        int(np.prod(shape[:-1]))
        for shape in widths
        if shape[-1] in (48, 192) and shape not in {(48, 48), (48, 192), (192, 48), (32, 48)}
    }
    assert each in rows and rows <= {each, AUDIO}, sorted(rows)


def test_gradients_are_summed_over_devices_in_float32(params, partitioned):
    sums = re.findall(r"= (\w+)\[([\d,]*)\]\S* all-reduce(?:-start)?\(", partitioned)
    found = {(tuple(map(int, shape.split(","))) if shape else ()): set() for _, shape in sums}
    for dtype, shape in sums:
        found[tuple(map(int, shape.split(","))) if shape else ()].add(dtype)
    trainable, _ = split_trainable(params, STAGE3)
    checked = 0
    for path, leaf in trainable.items():
        # Adapters are stacked: their sums are made layer by layer, inside the loop.
        shape = leaf.shape[1:] if ".lora_" in path else leaf.shape
        cut = {shape, shape[::-1], (shape[0] // 2, *shape[1:]), (*shape[:-1], shape[-1] // 2)}
        for size in cut & found.keys():
            assert found[size] == {"f32"}, (path, size, found[size])
            checked += 1
    assert checked >= len({leaf.shape for leaf in trainable.values()})
