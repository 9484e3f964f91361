"""Attention backends against `layers.attend`, and that against a loop over queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ltu_as_model import AUDIO, CONFIG, features, noisy, tokens

from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.models.attention import BACKENDS, backend, require_platform
from ltu_jax.models.block_attention import block_size
from ltu_jax.models.layers import gelu
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.rope import rotate
from ltu_jax.models.text_batch import TextBatch

HEADS, KV_HEADS, SIZE = 4, 2, 8


def grouped(rng, rows, text):
    """Random rows of several pairs each, with padding behind or before them."""
    segments = np.zeros((rows, text), np.int32)
    for row in range(rows):
        used = int(rng.integers(text // 2, text))
        cuts = np.sort(rng.integers(0, used, 3))
        start = 0 if row % 2 else text - used
        segments[row, start : start + used] = 1 + np.searchsorted(cuts, np.arange(used), "right")
    return segments


def visible_to_pairs(segments, *, audio_tokens, clip_ids=None, clips=1):
    """Who sees whom in rows of these pairs."""
    text = TextBatch(
        input_ids=None, segment_ids=jnp.asarray(segments), positions=None, clip_ids=clip_ids
    )
    return np.asarray(text.visible(audio_tokens=audio_tokens, clips=clips))


def case(seed, *, audio, text=30, rows=3):
    rng = np.random.default_rng(seed)
    visible = visible_to_pairs(grouped(rng, rows, text), audio_tokens=audio)
    length = audio + text
    q = rng.standard_normal((rows, length, HEADS, SIZE), dtype=np.float32)
    k, v = rng.standard_normal((2, rows, KV_HEADS, length, SIZE), dtype=np.float32)
    weights = rng.standard_normal((rows, length, HEADS * SIZE), dtype=np.float32)
    return (q, k, v), visible, weights


def results(name, inputs, visible, weights, *, audio=0, **options):
    """Output and the gradients of q, k and v."""
    attend = backend(name, **options).of(audio)

    def loss(q, k, v):
        out = attend(q, k, v, visible=jnp.asarray(visible), scale=0.4)
        return jnp.sum(out * weights), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*inputs)
    return [np.asarray(x) for x in (out, *grads)]


def assert_close(found, expected):
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_attend_is_a_loop_over_queries():
    (q, k, v), visible, weights = case(0, audio=AUDIO, text=9)
    out = results("xla", (q, k, v), visible, weights)[0].reshape(q.shape)
    for row, time, head in np.ndindex(q.shape[:3]):
        seen = np.flatnonzero(visible[row, time])
        keys = k[row, head // (HEADS // KV_HEADS)][seen]
        values = v[row, head // (HEADS // KV_HEADS)][seen]
        odds = np.exp(keys @ q[row, time, head] * 0.4)
        np.testing.assert_allclose(out[row, time, head], odds / odds.sum() @ values, atol=1e-5)


@pytest.mark.parametrize("name", ["dot_product", "splash"])
# Without audio a pad before the text sees nothing at all; 150 needs padded blocks.
@pytest.mark.parametrize("audio, text", [(AUDIO, 30), (0, 30), (AUDIO, 150)])
def test_backends_agree(name, audio, text):
    given = case(text + audio, audio=audio, text=text)
    assert audio or not given[1].any(-1).all()
    assert_close(results(name, *given), results("xla", *given))


# (text, audio, clips, longest pair): rows that are blocks exactly, rows that must be padded, and
# rows of up to three blocks, which are computed whole.
BLOCKS = [
    *((102, 26, 2, 32), (110, 7, 1, 20), (90, 15, 3, 17)),
    *((70, 26, 2, 32), (70, 7, 1, 20), (30, 0, 1, 12), (50, 14, 1, 32)),
]


def pairs_of(rng, rows, text, *, longest, clips):
    """(segments, clip of each position): rows full of pairs, with some padding at the end."""
    segments, clip_ids = np.zeros((2, rows, text), np.int32)
    for row in range(rows):
        start, pair = 0, 1
        while start < text - 4:
            size = int(rng.integers(1, longest + 1))
            segments[row, start : start + size] = pair
            clip_ids[row, start : start + size] = min(clips - 1, pair // 3)
            start, pair = start + size, pair + 1
    return segments, clip_ids


@pytest.mark.parametrize("text, audio, clips, longest", BLOCKS)
def test_blocks_leave_out_only_what_nobody_sees(text, audio, clips, longest):
    rng = np.random.default_rng(text + audio)
    segments, clip_ids = pairs_of(rng, 3, text, longest=longest, clips=clips)
    several = dict(clip_ids=jnp.asarray(clip_ids), clips=clips) if clips > 1 else {}
    visible = visible_to_pairs(segments, audio_tokens=audio, **several)
    # Text first, as the model lays its rows.
    visible = np.roll(visible, -audio, axis=(1, 2))
    length = text + audio
    q, weights = rng.standard_normal((2, 3, length, HEADS, SIZE), dtype=np.float32)
    k, v = rng.standard_normal((2, 3, KV_HEADS, length, SIZE), dtype=np.float32)
    # What a position that sees nothing computes is nobody's business.
    weights = weights.reshape(3, length, -1) * visible.any(-1)[:, :, None]
    found = results("blocks", (q, k, v), visible, weights, audio=audio, longest_pair=longest)
    want = results("xla", (q, k, v), visible, weights)
    sees = visible.any(-1)[:, :, None]
    assert_close([found[0] * sees, *found[1:]], [want[0] * sees, *want[1:]])


def test_blocks_divide_rows_where_they_can():
    assert block_size(672, longest=108) == 112  # 622 tokens and two clips
    assert block_size(384, longest=108) == 128
    assert block_size(690, longest=108) == 112  # nothing near divides it: padded
    assert block_size(64, longest=17) == 32


def test_blocks_have_to_know_the_longest_pair():
    with pytest.raises(UserError, match="has to know the longest pair; use 'xla'"):
        backend("blocks")


def test_splash_takes_rows_longer_than_a_block():
    given = case(7, audio=AUDIO, text=520, rows=1)
    assert_close(results("splash", *given), results("xla", *given))


@pytest.mark.parametrize("sizes", [(2, 1, 2), (1, 4, 1)])
def test_splash_on_a_mesh(sizes):
    data, fsdp, tensor = sizes
    config = MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
    mesh = make_mesh(config, jax.devices()[:4])
    given = case(3, audio=AUDIO, rows=4)
    assert_close(results("splash", *given, mesh=mesh), results("xla", *given))


@pytest.mark.parametrize("name", ["dot_product", "splash", "blocks"])
def test_the_model_is_the_same_with_every_backend(name):
    plain = LTUAS.functional(CONFIG)
    other = LTUAS.functional(CONFIG, attention=name, longest_pair=20)
    params, ids, audio = noisy(plain.shapes), tokens(2, 20), features(2)
    segments = grouped(np.random.default_rng(1), 2, 20)
    positions = np.broadcast_to(np.arange(20 + AUDIO, dtype=np.int32), (2, 20 + AUDIO))
    text = TextBatch(input_ids=ids, segment_ids=segments, positions=positions)
    want = np.asarray(jax.jit(plain.pure(LTUAS.hidden))(params, text, audio))
    found = np.asarray(jax.jit(other.pure(LTUAS.hidden))(params, text, audio))
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_backends_say_where_they_work():
    mesh = make_mesh(MeshConfig(data=-1, fsdp=1, tensor=1))
    for name in ("blocks", "xla", "dot_product"):
        require_platform(name, mesh)
    for name, device in (("splash", "tpu"), ("cudnn", "gpu")):
        with pytest.raises(UserError, match=f"'{name}', which needs {device} devices; these are"):
            require_platform(name, mesh)
    with pytest.raises(UserError, match="'flash' is unknown; use one of blocks, xla, dot_product"):
        LTUAS.functional(CONFIG, attention="flash")
    assert set(BACKENDS) == {"blocks", "xla", "dot_product", "cudnn", "splash"}


def test_rope_of_bfloat16_is_that_of_float32_rounded():
    rng = np.random.default_rng(5)
    x, g = rng.standard_normal((2, 2, 3, 7, 16)).astype(jnp.bfloat16)
    angles = rng.standard_normal((2, 7, 8)).astype(np.float32)
    rope = jnp.cos(angles), jnp.sin(angles)

    def both(x, g):
        turned, pull = jax.vjp(lambda x: rotate(x, rope), x)
        return turned, pull(g)[0]

    wide = both(jnp.asarray(x, jnp.float32), jnp.asarray(g, jnp.float32))
    for found, want in zip(both(jnp.asarray(x), jnp.asarray(g)), wide, strict=True):
        assert found.dtype == jnp.bfloat16
        # A unit in the last place of bfloat16: the compiler may fuse a product and a sum.
        np.testing.assert_allclose(np.asarray(found, np.float32), want, rtol=2**-7, atol=1e-6)


def test_gelu_of_bfloat16_is_that_of_float32_rounded():
    x = jnp.linspace(-6, 6, 4001).astype(jnp.bfloat16)
    want = jax.nn.gelu(x.astype(jnp.float32), approximate=False)
    np.testing.assert_allclose(np.asarray(gelu(x), np.float32), want, rtol=2**-7, atol=1e-6)
