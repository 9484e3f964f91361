"""Laws of the assembled model: caches, padding, grouping change nothing; every config key does."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.core.trees import count
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import PROJECTIONS, LoRAConfig, draw_masks, dropped
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.rope import RopeScaling
from ltu_jax.models.sizes import LLAMA_SIZES, WHISPER_SIZES
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.models.tltr import TaggerConfig, TLTRConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from tests.support.official_names import from_official

AUDIO = 5
CONFIG = LTUASConfig(
    tltr=TLTRConfig(d_model=24, time_heads=2, layer_heads=4),
    llama=LlamaConfig(
        vocab_size=53,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        rope_theta=1e4,
        rope_scaling=RopeScaling(
            factor=4.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
        tie_word_embeddings=False,
        attention_bias=True,
    ),
    lora=LoRAConfig(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj", "v_proj")),
    audio_layers=3,
    audio_tokens=AUDIO,
)
FULL = LTUASConfig(
    tltr=TLTRConfig(d_model=1280, time_heads=1, layer_heads=8),
    llama=LLAMA_SIZES["llama-7b"],
    lora=LoRAConfig(rank=8, alpha=16.0, dropout=0.05, targets=("q_proj", "v_proj")),
    audio_layers=32,
    audio_tokens=25,
)


def noisy(shapes, seed=0):
    """Parameters far from any initialisation that could hide a mistake (zero biases, zero B)."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(
            rng.standard_normal(s.shape, dtype=np.float32) * 0.2 + name.endswith("scale")
        )
        for name, s in sorted(shapes.items())
    }


@pytest.fixture(scope="module")
def fns():
    return LTUAS.functional(CONFIG)


@pytest.fixture(scope="module")
def forward(fns):
    return jax.jit(fns.pure(LTUAS.__call__))


@pytest.fixture(scope="module")
def prefill(fns):
    return jax.jit(fns.pure(LTUAS.prefill))


@pytest.fixture(scope="module")
def extend(fns):
    return jax.jit(fns.pure(LTUAS.extend))


@pytest.fixture(scope="module")
def hidden(fns):
    return jax.jit(fns.pure(LTUAS.hidden))


@pytest.fixture(scope="module")
def params(fns):
    return noisy(fns.shapes)


def features(rows, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, 3, AUDIO, 24), dtype=np.float32)


def tokens(*shape, seed=2):
    return np.random.default_rng(seed).integers(1, 53, shape).astype(np.int32)


def plain(ids):
    """A batch of one unpadded pair per row."""
    length = ids.shape[1] + AUDIO
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (len(ids), length))
    return TextBatch(input_ids=ids, segment_ids=np.ones_like(ids), positions=positions)


def close(got, want, atol=1e-5):
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-5, atol=atol)


@pytest.mark.parametrize("with_audio", [True, False])
def test_prefill_and_extend_equal_the_full_forward(
    fns, forward, prefill, extend, params, with_audio
):
    ids, audio = tokens(2, 14), features(2)
    text = plain(ids)
    if not with_audio:
        audio, text = None, dataclasses.replace(text, positions=text.positions[:, :14])
    want = forward(params, text, audio)
    skip, start = text.positions.shape[1] - 14, 9
    cache = fns.bind(params).init_cache(2, 30)
    prompt = TextBatch(
        input_ids=ids[:, :start],
        segment_ids=text.segment_ids[:, :start],
        positions=text.positions[:, : skip + start],
    )
    logits, cache = prefill(params, prompt, audio, cache=cache)
    close(logits, want[:, start - 1])
    for t in (9, 10, 11):  # token by token, then several at once
        now = text.positions[:, skip + t : skip + t + 1]
        logits, cache = extend(params, ids[:, t : t + 1], positions=now, cache=cache)
        close(logits, want[:, t])
    rest = text.positions[:, skip + 12 :]
    logits, cache = extend(params, ids[:, 12:], positions=rest, cache=cache)
    close(logits, want[:, -1])
    assert int(cache.length) == skip + 14


def test_left_padded_batch_equals_rows_one_by_one(fns, forward, prefill, extend, params):
    lengths, width = (4, 6, 4), 6
    audio = features(3)
    rows = [tokens(1, n + 2, seed=10 + i) for i, n in enumerate(lengths)]
    ids = np.zeros((3, width), np.int32)
    segments = np.zeros((3, width), np.int32)
    positions = np.zeros((3, AUDIO + width), np.int32)
    positions[:, :AUDIO] = np.arange(AUDIO)
    for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        ids[i, width - n :] = row[0, :n]
        segments[i, width - n :] = 1
        positions[i, AUDIO + width - n :] = AUDIO + np.arange(n)
    cache = fns.bind(params).init_cache(3, 20)
    text = TextBatch(input_ids=ids, segment_ids=segments, positions=positions)
    first, cache = prefill(params, text, audio, cache=cache)
    steps = [first]
    for t in range(2):
        new = np.stack([row[0, n + t : n + t + 1] for row, n in zip(rows, lengths, strict=True)])
        now = np.array([[AUDIO + n + t] for n in lengths], np.int32)
        logits, cache = extend(params, new, positions=now, cache=cache)
        steps.append(logits)
    for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        want = np.asarray(forward(params, plain(row), audio[i : i + 1]))[0]
        for t, logits in enumerate(steps):
            close(logits[i], want[n - 1 + t])


def test_grouped_pairs_equal_rows_of_their_own(fns, forward, prefill, extend, params):
    lengths = (6, 8, 5)
    audio = features(1)
    pairs = [tokens(1, n, seed=20 + i) for i, n in enumerate(lengths)]
    ids = np.concatenate([*pairs, np.zeros((1, 3), np.int32)], axis=1)
    segments = np.repeat([1, 2, 3, 0], [*lengths, 3])[None].astype(np.int32)
    starts = [AUDIO + np.arange(n) for n in lengths]
    positions = np.concatenate([np.arange(AUDIO), *starts, np.zeros(3)])[None].astype(np.int32)
    text = TextBatch(input_ids=ids, segment_ids=segments, positions=positions)
    grouped = forward(params, text, audio)
    assert np.isfinite(grouped).all()
    start = 0
    for pair in pairs:
        alone = forward(params, plain(pair), audio)
        close(grouped[:, start : start + pair.shape[1]], alone)
        start += pair.shape[1]
    # Decoding may go on from a grouped row: only the last pair and the audio are visible then.
    cache = fns.bind(params).init_cache(1, 40)
    upto = sum(lengths)
    prompt = TextBatch(
        input_ids=ids[:, :upto],
        segment_ids=segments[:, :upto],
        positions=positions[:, : AUDIO + upto],
    )
    logits, cache = prefill(params, prompt, audio, cache=cache)
    close(logits, grouped[:, upto - 1])
    new = tokens(1, 1, seed=5)
    now = np.array([[AUDIO + lengths[-1]]], np.int32)
    logits, _ = extend(params, new, positions=now, cache=cache)
    longer = np.concatenate([pairs[-1], new], axis=1)
    close(logits, forward(params, plain(longer), audio)[:, -1])


def test_several_clips_in_a_row_equal_rows_of_their_own(fns, forward, params):
    """Three clips of two, one and no pairs; the pads between them belong to nobody."""
    lengths, owners = (6, 8, 5), (0, 0, 2)
    audio = features(3)
    pairs = [tokens(1, n, seed=30 + i) for i, n in enumerate(lengths)]
    pad = np.zeros((1, 3), np.int32)
    ids = np.concatenate([*pairs, pad], axis=1)
    segments = np.repeat([1, 2, 3, 0], [*lengths, 3])[None].astype(np.int32)
    clips = np.repeat([*owners, 0], [*lengths, 3])[None].astype(np.int32)
    ahead = np.tile(np.arange(AUDIO), 3)
    starts = [AUDIO + np.arange(n) for n in lengths]
    positions = np.concatenate([ahead, *starts, np.zeros(3)])[None].astype(np.int32)
    text = TextBatch(input_ids=ids, segment_ids=segments, positions=positions, clip_ids=clips)
    together = forward(params, text, audio[None])
    assert np.isfinite(together).all()
    start = 0
    for pair, owner in zip(pairs, owners, strict=True):
        alone = forward(params, plain(pair), audio[owner : owner + 1])
        close(together[:, start : start + pair.shape[1]], alone)
        start += pair.shape[1]
    # The clip that nothing asks about, and what the others hear, change nothing.
    other = audio.copy()
    other[1] = 100.0
    np.testing.assert_array_equal(forward(params, text, other[None]), together)
    model = fns.bind(params)
    close(model.embed_audio(audio[None])[0], model.embed_audio(audio).reshape(-1, 32))


def test_visibility_is_what_it_says():
    """Against the rule written out for every pair of positions."""
    rng = np.random.default_rng(0)
    clips, each, time = 3, 2, 9
    for _ in range(20):
        owner = np.sort(rng.integers(0, clips, 4))
        segments = np.repeat([1, 2, 3, 4, 0], [2, 1, 3, 2, 1])
        texts = np.append(np.repeat(owner, [2, 1, 3, 2]), 0)
        text = TextBatch(
            input_ids=None,
            segment_ids=jnp.asarray(segments)[None],
            positions=None,
            clip_ids=jnp.asarray(texts)[None],
        )
        seen = text.visible(audio_tokens=clips * each, clips=clips)
        clip = [*np.repeat(np.arange(clips), each), *texts]
        pair = [*[-1] * (clips * each), *segments]
        for query in range(clips * each + time):
            for key in range(clips * each + time):
                heard = pair[key] == -1 and clip[key] == clip[query]
                read = pair[key] > 0 and pair[key] == pair[query]
                assert seen[0, query, key] == (key <= query and (heard or read))
    one = dataclasses.replace(text, clip_ids=None)
    same = dataclasses.replace(text, clip_ids=jnp.zeros((1, time), jnp.int32))
    np.testing.assert_array_equal(one.visible(audio_tokens=each), same.visible(audio_tokens=each))


def test_parts_make_the_whole(fns, forward, hidden, params):
    ids, audio = tokens(2, 6), features(2)
    model, text = fns.bind(params), plain(ids)
    states = hidden(params, text, audio)
    whole = forward(params, text, audio)
    close(model.unembed(states), whole)
    close(model.unembed(states[0, 3]), whole[0, 3])  # any leading shape
    close(model.embed_text(ids), params["llama.embed_tokens.embedding"][ids])
    mid = jax.jit(fns.pure(LTUAS.intermediates))(params, text, audio)
    close(jax.jit(fns.pure(LTUAS.embed_audio))(params, audio), mid["audio_embeds"])
    close(states, mid["final_norm"][:, AUDIO:])


def test_lora_on_every_projection_is_the_low_rank_product():
    lora = dataclasses.replace(CONFIG.lora, targets=PROJECTIONS, dropout=0.0)
    fns = LTUAS.functional(dataclasses.replace(CONFIG, lora=lora))
    params = noisy(fns.shapes)
    assert sum(name.endswith("lora_a") for name in params) == 7
    ids, audio = tokens(2, 6), features(2)
    got = jax.jit(fns.pure(LTUAS.__call__))(params, plain(ids), audio)
    merged = {}
    for name, leaf in params.items():
        if name.endswith("_proj.kernel"):
            a, b = (params.get(name.replace("kernel", n)) for n in ("lora_a", "lora_b"))
            leaf = leaf if a is None else leaf + a @ b * (8.0 / 4)
        if "lora" not in name:
            merged[name] = leaf
    bare = LTUAS.functional(CONFIG, with_lora=False)
    assert merged.keys() == bare.shapes.keys()
    close(got, jax.jit(bare.pure(LTUAS.__call__))(merged, plain(ids), audio), atol=1e-4)


def test_dropout_is_on_the_adapter_only_and_keeps_its_mean(hidden, params):
    audio, text = features(2), plain(tokens(2, 6))
    still = hidden(params, text, audio)
    one = hidden(params, text, audio, dropout_key=jax.random.key(1))
    again = hidden(params, text, audio, dropout_key=jax.random.key(1))
    other = hidden(params, text, audio, dropout_key=jax.random.key(2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - still).max() > 1e-3 and np.abs(one - other).max() > 1e-3
    zero = {n: jnp.zeros_like(v) if n.endswith("lora_b") else v for n, v in params.items()}
    close(hidden(zero, text, audio, dropout_key=jax.random.key(1)), hidden(zero, text, audio))
    # With one layer and one target the output is linear in the dropped input, up to the norm.
    from flax import nnx

    from ltu_jax.models.layers import normal_002
    from ltu_jax.models.lora import LoRALinear

    layer = LoRALinear(
        16,
        8,
        bias=False,
        init=normal_002,
        lora=dataclasses.replace(CONFIG.lora, dropout=0.3),
        dtype=jnp.float32,
        rngs=nnx.Rngs(params=0),
        word=2,
        upper=False,
    )
    layer.lora_b[...] = jnp.ones((4, 8))
    x = jnp.ones((20_000, 16))
    masks = {2: draw_masks(jax.random.key(0), x.shape, rate=0.3)}
    mean = layer(x, masks=masks).mean(0)
    np.testing.assert_allclose(mean, layer(x)[0], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_dropout_masks_of_one_word_are_two_independent_draws(rate):
    x = jnp.ones((4000, 100))
    masks = draw_masks(jax.random.key(3), x.shape, rate=rate)
    q, v = (np.asarray(dropped(x, masks, rate=rate, upper=upper)) for upper in (False, True))
    share = 1 - round(rate * 65_536) / 65_536
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    for mask in (q, v):
        np.testing.assert_allclose(mask[mask > 0], 1 / share, rtol=1e-6)
        assert abs((mask > 0).mean() - share) < 5 * deviation
    both = ((q > 0) & (v > 0)).mean()
    assert abs(both - share**2) < 5 * deviation
    # What is dropped for one projection is not what is dropped for the other.
    assert (np.not_equal(q > 0, v > 0)).mean() > rate


def perturbations(config, prefix=""):
    """(path, changed config) for every field of a nested config; by default one more of it."""
    special = {
        "tltr.d_model": 48,
        "tltr.time_heads": 4,
        "tltr.layer_heads": 2,
        "llama.num_attention_heads": 8,
        "llama.num_key_value_heads": 4,
        "llama.head_dim": 10,
        "llama.rms_norm_eps": 1e-2,
        "llama.rope_theta": 100.0,
        "llama.rope_scaling.original_max_position_embeddings": 16,
        "llama.rope_scaling": None,
        "lora": None,
        "lora.dropout": 0.4,
        "lora.targets": ("k_proj", "down_proj"),
    }
    for field in dataclasses.fields(config):
        path, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            for inner, changed in perturbations(value, path + "."):
                yield inner, dataclasses.replace(config, **{field.name: changed})
            if path not in special:
                continue
        if path in special:
            new = special[path]
        else:
            new = not value if isinstance(value, bool) else value + 1
        yield path, dataclasses.replace(config, **{field.name: new})


def outcome(fns):
    """Logits with dropout on, or the message of the refusal."""
    ids, audio = tokens(1, 20), features(1)
    forward = jax.jit(fns.pure(LTUAS.__call__))
    try:
        logits = forward(noisy(fns.shapes), plain(ids), audio, dropout_key=jax.random.key(3))
        return np.asarray(logits)
    except UserError as error:
        return str(error)


@pytest.fixture(scope="module")
def unchanged(fns):
    return outcome(fns)


@pytest.mark.parametrize("path, changed", list(perturbations(CONFIG)), ids=lambda x: str(x)[:50])
def test_every_config_field_matters(fns, unchanged, path, changed):
    other = LTUAS.functional(changed)
    if other.shapes != fns.shapes:
        return  # the parameters themselves change
    result = outcome(other)
    if path in ("audio_layers", "audio_tokens"):  # they say which inputs fit, and nothing else
        assert "features of shape" in result or "6 audio tokens need" in result
    else:
        assert np.abs(result - unchanged).max() > 1e-3, f"{path} changes nothing"


WHISPER = WhisperConfig(
    n_mels=6,
    n_audio_ctx=10,
    n_audio_state=16,
    n_audio_head=2,
    n_audio_layer=2,
    n_vocab=17,
    n_text_ctx=8,
    n_text_state=16,
    n_text_head=2,
    n_text_layer=2,
)


@functools.cache
def whisper_outcome(config):
    fns = Whisper(config)
    mel = np.random.default_rng(0).standard_normal((1, 20, 6), dtype=np.float32)

    def logits(params):
        decoder = fns.decoder.bind(params)
        cache = decoder.init_cache(fns.encoder.bind(params).encode(mel), length=4)
        return decoder.decode(tokens(1, 4) % 17, cache)[0]

    return np.asarray(jax.jit(logits)(noisy(fns.shapes)))


# Of which parameters a field is a size, and what becomes of their dimensions.
WIDTHS = {16: 32, 64: 128}
WHISPER_FIELDS = {
    "n_mels": (r"encoder\.conv1\.kernel", {6: 7}),
    "n_audio_ctx": (r"encoder\.positions", {10: 11}),
    "n_audio_state": (r".+", WIDTHS),  # the decoder reads the encoder's states
    "n_audio_layer": (r"encoder\.blocks\..+", {2: 3}),
    "n_vocab": (r"decoder\.embedding", {17: 18}),
    "n_text_ctx": (r"decoder\.positions", {8: 9}),
    "n_text_state": (r".+", WIDTHS),
    "n_text_layer": (r"decoder\.blocks\..+", {2: 3}),
}
WHISPER_HEADS = ("n_audio_head", "n_text_head")  # no size: they change what is computed


def test_every_whisper_config_field_is_checked():
    fields = {field.name for field in dataclasses.fields(WhisperConfig)}
    assert fields == {*WHISPER_FIELDS, *WHISPER_HEADS}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(WhisperConfig)])
def test_every_whisper_config_field_matters(field):
    before = {path: leaf.shape for path, leaf in Whisper(WHISPER).shapes.items()}
    if field in WHISPER_HEADS:
        config = dataclasses.replace(WHISPER, **{field: 4})
        after = {path: leaf.shape for path, leaf in Whisper(config).shapes.items()}
        assert after == before
        assert np.abs(whisper_outcome(config) - whisper_outcome(WHISPER)).max() > 1e-3
        return
    pattern, sizes = WHISPER_FIELDS[field]
    step = 16 if sizes is WIDTHS else 1
    names = ("n_audio_state", "n_text_state") if sizes is WIDTHS else (field,)
    config = dataclasses.replace(WHISPER, **{n: getattr(WHISPER, n) + step for n in names})
    after = {path: leaf.shape for path, leaf in Whisper(config).shapes.items()}
    expected = {
        path: tuple(sizes.get(size, size) for size in shape)
        if re.fullmatch(pattern, path)
        else shape
        for path, shape in before.items()
    }
    assert after == expected != before


@pytest.fixture(scope="module")
def names_7b(golden):
    return json.loads((golden / "ltu_as_7b_names.json").read_text())


def official_shapes(names):
    """Official names and shapes as ours, without allocating: zero-strided arrays."""
    return {
        name: np.broadcast_to(np.float16(0), shape)
        for name, shape in names.items()
        if "inv_freq" not in name
    }


def test_full_size_shapes_and_trainable_counts(names_7b):
    counts = names_7b["counts"]
    shapes = LTUAS.functional(FULL).shapes
    adapter = {n: s for n, s in shapes.items() if not n.startswith("llama.") or "lora" in n}
    assert count(shapes) == counts["all"] == 6_787_209_216
    assert count(adapter) == counts["trainable_stage2_3"] == 48_793_600
    for part in ("tltr", "audio_proj"):
        inside = {n: s for n, s in shapes.items() if n.startswith(part + ".")}
        assert count(inside) == counts[part]
    assert count({n: s for n, s in shapes.items() if "lora" in n}) == counts["lora"]

    stage1 = LTUAS.functional(FULL, with_lora=False).shapes
    projection = {n: s for n, s in stage1.items() if n.startswith("audio_proj.")}
    assert count(stage1) == 6_783_014_912
    assert count(projection) == counts["trainable_stage1"] == 5_246_976


def test_full_size_names_are_the_official_ones(names_7b):
    # One layer stands for the 32 equal ones, so that stacking does not allocate 13 GB.
    names = {
        name: shape
        for name, shape in names_7b["peft_state_dict"].items()
        if ".layers." not in name or ".layers.0." in name
    }
    ours = {name: leaf.shape for name, leaf in from_official(official_shapes(names)).items()}
    one = dataclasses.replace(FULL, llama=dataclasses.replace(FULL.llama, num_hidden_layers=1))
    assert ours == {name: s.shape for name, s in LTUAS.functional(one).shapes.items()}


def test_whisper_large_v1_has_the_official_encoder(golden):
    info = json.loads((golden / "whisper_large_names.json").read_text())
    config = WhisperConfig.from_dict(info["dims"])
    assert config == WHISPER_SIZES["large-v1"]
    shapes = Whisper(config).shapes
    encoder = {n: s for n, s in shapes.items() if n.startswith("encoder.")}
    assert count(encoder) == info["n_params_without_positional"] + 1500 * 1280
    official = sum(int(np.prod(s)) for s in info["state_dict"].values())
    assert count(encoder) == official


@pytest.mark.parametrize(
    "size, millions",
    [
        ("tiny", 39),
        ("base", 74),
        ("small", 244),
        ("medium", 769),
        ("large-v1", 1550),
        ("large-v3", 1550),
        ("turbo", 809),
    ],
)
def test_whisper_sizes_have_the_published_counts(size, millions):
    # OpenAI's table counts in millions, and rounds 37.8 up to 39 (it counts the fixed positions).
    got = count(Whisper(WHISPER_SIZES[size]).shapes) / 1e6
    assert abs(got - millions) / millions < 0.04


def test_wrong_shapes_are_named(fns, params):
    ids, audio = tokens(2, 6), features(2)
    text, model = plain(ids), fns.bind(params)

    def changed(**fields):
        return dataclasses.replace(text, **fields)

    with pytest.raises(
        UserError, match=r"positions has shape \(2, 6\).*5 audio tokens need \(2, 11\)"
    ):
        model(changed(positions=text.positions[:, :6]), audio)
    with pytest.raises(UserError, match="segment_ids has shape"):
        model(changed(segment_ids=text.segment_ids[:, :5]), audio)
    with pytest.raises(UserError, match=r"shape \(3, 5, 20\).*takes \(3, 5, 24\)"):
        model(text, audio[..., :20])
    with pytest.raises(UserError, match="1 clips of features for 2 rows"):
        model(text, audio[:1])
    with pytest.raises(UserError, match=r"go together; given are \(2, 2, 3, 5, 24\) and None"):
        model(text, np.stack([audio, audio]))
    with pytest.raises(UserError, match=r"given are \(2, 3, 5, 24\) and \(2, 6\)"):
        model(changed(clip_ids=np.zeros_like(ids)), audio)
    with pytest.raises(UserError, match=r"positions has shape .*10 audio tokens need \(2, 16\)"):
        model(changed(clip_ids=np.zeros_like(ids)), np.stack([audio, audio]))
    with pytest.raises(UserError, match="2 rows x 10 slots for 2 rows x 11 positions"):
        model.prefill(text, audio, cache=model.init_cache(2, 10))


def test_bad_options_are_named():
    with pytest.raises(UserError, match="remat policy 'most' is unknown; choose one of none, full"):
        LTUAS.functional(CONFIG, remat="most")
    with pytest.raises(UserError, match="targets"):
        dataclasses.replace(CONFIG.lora, targets=("query",))
    with pytest.raises(UserError, match="rank is 0"):
        dataclasses.replace(CONFIG.lora, rank=0)
    with pytest.raises(UserError, match="audio_tokens is 0"):
        dataclasses.replace(CONFIG, audio_tokens=0)
    with pytest.raises(UserError, match="a tagger with 0 labels"):
        TaggerConfig(tltr=CONFIG.tltr, labels=0, d_input=None, audio_layers=None)
    round_trip = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    assert LTUASConfig.from_dict(round_trip) == CONFIG


def test_initialisation_follows_the_official_code(fns):
    params = jax.jit(fns.init)(jax.random.key(0))
    assert {n: (v.shape, v.dtype) for n, v in params.items()} == {
        n: (s.shape, s.dtype) for n, s in fns.shapes.items()
    }
    for name, leaf in params.items():
        leaf = np.asarray(leaf)
        if name.endswith("lora_b") or name.startswith("llama") and name.endswith("bias"):
            assert (leaf == 0).all(), name
        elif name.endswith("scale"):
            assert (leaf == 1).all(), name
        elif name.endswith("lora_a"):  # kaiming-uniform, a = sqrt(5)
            bound = leaf.shape[-2] ** -0.5
            assert 0.9 * bound < np.abs(leaf).max() <= bound, name
        elif name.startswith("llama."):
            assert abs(leaf.std() - 0.02) < 0.002, name
    kernel = np.asarray(params["llama.layers.self_attn.q_proj.kernel"])
    assert not np.allclose(kernel[0], kernel[1])  # every layer draws its own
