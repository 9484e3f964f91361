"""The decoding loop against a naive loop over the full forward pass, and batch against single."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltu_jax.generation import generate as generate_lib
from ltu_jax.generation import sampling
from ltu_jax.generation.buckets import left_pad
from ltu_jax.generation.generate import generate, stream
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.models.tltr import TLTRConfig

VOCAB, AUDIO, EOS = 97, 5, 2
CONFIG = LTUASConfig(
    tltr=TLTRConfig(d_model=16, time_heads=1, layer_heads=4),
    llama=LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        rope_scaling=None,
        tie_word_embeddings=False,
        attention_bias=False,
    ),
    lora=LoRAConfig(rank=2, alpha=4, dropout=0.0, targets=("q_proj", "v_proj")),
    audio_layers=3,
    audio_tokens=AUDIO,
)
NEVER = VOCAB + 1  # an end token that never comes
DRAW = dict(temperature=1.0, top_p=0.9, top_k=20, repetition_penalty=1.2)


@pytest.fixture(scope="module")
def model():
    fns = LTUAS.functional(CONFIG)
    params = jax.jit(fns.init)(jax.random.key(0))
    # The default initialisation answers with one constant token; spread the logits out.
    params = {path: 8 * leaf if "lm_head" in path else 3 * leaf for path, leaf in params.items()}
    return fns, params


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    rows = [[1, *rng.integers(3, VOCAB, size=n).tolist()] for n in (4, 11, 7)]
    return rows, rng.normal(size=(3, 3, AUDIO, 16)).astype(np.float32)


def naive(model, ids, features, *, steps, settings=None):
    """Greedy or argmax-of-processors decoding that recomputes the whole sequence at each step.

    Pads stand on the right, where causality hides them from every token that is read.
    """
    fns, params = model
    audio = 0 if features is None else AUDIO
    forward = jax.jit(fns.pure(LTUAS.__call__))
    new, scores = [], []
    for _ in range(steps):
        text = ids + new
        padded = TextBatch(
            input_ids=jnp.asarray([text + [0] * (24 - len(text))], jnp.int32),
            segment_ids=jnp.asarray([[1] * len(text) + [0] * (24 - len(text))]),
            positions=jnp.arange(audio + 24)[None],
        )
        logits = forward(params, padded, features)[:, len(text) - 1]
        if settings is not None:
            text = jnp.asarray([text])
            seen = sampling.seen_tokens(text, attention_mask=jnp.ones_like(text), vocab=VOCAB)
            logits = sampling.process(
                logits, seen=seen, settings=sampling.row_settings(settings, rows=1)
            )
        scores.append(np.asarray(logits[0]))
        new.append(int(logits[0].argmax()))
    return new, np.stack(scores)


def run(model, rows, features, **options):
    ids, mask = left_pad(rows)
    options = {"max_new_tokens": 9, "eos_id": NEVER, "sampling": None, **options}
    return generate(*model, input_ids=ids, attention_mask=mask, audio_features=features, **options)


@pytest.mark.parametrize("with_audio", [True, False])
def test_greedy_is_the_naive_loop(model, prompts, with_audio):
    rows, features = prompts
    audio = features[1:2] if with_audio else None
    got = run(model, rows[1:2], audio, with_scores=True)
    ids, scores = naive(model, rows[1], audio, steps=9)
    assert got.row(0) == ids
    np.testing.assert_allclose(got.scores[0], scores, rtol=1e-4, atol=1e-4)
    assert got.finish_reasons == ("length",) and got.lengths.tolist() == [9]


def test_processors_see_prompt_and_answer(model, prompts):
    rows, features = prompts
    config = sampling.SamplingConfig(**DRAW, seed=0, pick="argmax")
    got = run(model, rows[:1], features[:1], sampling=config)
    assert got.row(0) == naive(model, rows[0], features[:1], steps=9, settings=config)[0]


@pytest.mark.parametrize("drawn", [False, True])
def test_a_left_padded_batch_answers_like_single_prompts(model, prompts, drawn):
    rows, features = prompts
    config = sampling.SamplingConfig(**DRAW, seed=5) if drawn else None
    together = run(model, rows, features, sampling=config)
    for index, row in enumerate(rows):
        alone = run(model, [row], features[index : index + 1], sampling=config)
        assert together.row(index) == alone.row(0)
    assert len({tuple(together.row(index)) for index in range(3)}) == 3


def test_extra_padding_changes_nothing(model, prompts):
    rows, features = prompts
    ids, mask = left_pad(rows, length=40)
    padded = generate(
        *model,
        input_ids=ids,
        attention_mask=mask,
        audio_features=features,
        max_new_tokens=9,
        eos_id=NEVER,
        sampling=None,
    )
    np.testing.assert_array_equal(padded.tokens, run(model, rows, features).tokens)


@pytest.mark.parametrize("drawn", [False, True])
def test_streaming_gives_the_same_ids(model, prompts, drawn):
    rows, features = prompts
    config = sampling.SamplingConfig(**DRAW, seed=5) if drawn else None
    ids, mask = left_pad(rows[:1])
    streamed = stream(
        *model,
        input_ids=ids,
        attention_mask=mask,
        audio_features=features[:1],
        max_new_tokens=9,
        eos_id=NEVER,
        sampling=config,
    )
    assert list(streamed) == run(model, rows[:1], features[:1], sampling=config).row(0)


def test_layers_apart_are_the_same_layers(model, prompts):
    """A step that reads the layers' weights apart, as a CPU does, against the scanned one."""
    fns, params = model
    _, features = prompts
    ids = jnp.asarray([[1, 9, 4], [1, 5, 8]], jnp.int32)
    text = TextBatch(
        input_ids=ids,
        segment_ids=jnp.ones_like(ids),
        positions=jnp.tile(jnp.arange(AUDIO + 3), (2, 1)),
    )
    cache = fns.bind(params).init_cache(2, AUDIO + 8)
    _, cache = jax.jit(fns.pure(LTUAS.prefill))(params, text, features[:2], cache=cache)
    new, now = jnp.asarray([[7], [3]], jnp.int32), jnp.full((2, 1), AUDIO + 3)
    extend = jax.jit(fns.pure(LTUAS.extend))
    scanned, first = extend(params, new, positions=now, cache=cache)
    layers = fns.bind(params).separate_layers()
    apart, second = extend(params, new, positions=now, cache=cache, layers=layers)
    np.testing.assert_allclose(apart, scanned, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), first, second)


def test_long_answers_begin_like_short_ones(model, prompts):
    rows, features = prompts
    short = run(model, rows, features)
    long = run(model, rows, features, max_new_tokens=generate_lib.LONG_ANSWER)
    np.testing.assert_array_equal(long.tokens[:, : short.tokens.shape[1]], short.tokens)
    ids, mask = left_pad(rows[:1])
    streamed = stream(
        *model,
        input_ids=ids,
        attention_mask=mask,
        audio_features=features[:1],
        max_new_tokens=generate_lib.LONG_ANSWER,
        eos_id=NEVER,
        sampling=None,
    )
    assert list(streamed) == long.row(0)


def test_each_row_stops_after_its_own_end(model, prompts):
    rows, features = prompts
    free = run(model, rows, features)
    end = free.row(0)[4]
    got = run(model, rows, features, eos_id=end)
    for index in range(3):
        whole = free.row(index)
        stops = end in whole
        want = whole[: whole.index(end) + 1] if stops else whole
        assert got.row(index) == want
        assert got.finish_reasons[index] == ("eos" if stops else "length")
        assert not got.tokens[index, len(want) :].any()


def test_rows_may_have_their_own_limits(model, prompts):
    rows, features = prompts
    free = run(model, rows, features)
    got = run(model, rows, features, max_new_tokens=[1, 9, 4])
    assert got.lengths.tolist() == [1, 9, 4]
    for index in range(3):
        assert got.row(index) == free.row(index)[: got.lengths[index]]


def test_prompts_of_one_room_share_the_decode_programs(model, prompts):
    """Whatever their buckets: the programs that take longest to compile."""
    _, features = prompts
    loops, steps = generate_lib._jit_loop._cache_size(), generate_lib._jit_step._cache_size()
    for length in (3, 20, 50, 61):
        ids, mask = left_pad([[1] * length])
        given = {"input_ids": ids, "attention_mask": mask, "audio_features": features[:1]}
        for new in (5, 12):
            generate(*model, **given, max_new_tokens=new, eos_id=NEVER, sampling=None)
        list(stream(*model, **given, max_new_tokens=3, eos_id=NEVER, sampling=None))
    assert generate_lib._jit_loop._cache_size() <= loops + 2  # answer buffers of 8 and 16
    assert generate_lib._jit_step._cache_size() <= steps + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"audio_features": np.zeros((2, 3, AUDIO, 16))}, r"B = 1"),
        ({"attention_mask": np.array([[1, 1, 0]])}, "pad prompts on the left"),
        ({"attention_mask": np.ones((1, 8))}, "text only"),
    ],
)
def test_bad_input_is_named(model, change, message):
    options = {
        "input_ids": np.array([[1, 4, 5]]),
        "attention_mask": np.ones((1, 3)),
        "audio_features": None,
        "max_new_tokens": 3,
        "eos_id": EOS,
        "sampling": None,
    }
    with pytest.raises(ValueError, match=message):
        generate(*model, **{**options, **change})


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="prompt 1 has 0 tokens"):
        left_pad([[1], []])
