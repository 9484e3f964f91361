"""What Whisper may say next, against transformers' processors and OpenAI's numbering."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltu_jax.generation.transcribe import load_whisper_tokenizer
from ltu_jax.generation.whisper_rules import (
    Emitted,
    Masks,
    compression_ratio,
    cut,
    masks,
    restrict,
)
from ltu_jax.preprocessing.whisper_vocabulary import LANGUAGES, Vocabulary

pytestmark = pytest.mark.optimised

ENGLISH = Vocabulary.of_size(51864)
MULTILINGUAL = Vocabulary.of_size(51865)
STAMP = ENGLISH.timestamp


def test_special_ids_are_those_of_the_tokenizers(whisper_tiny_dir):
    tokenizer = load_whisper_tokenizer(whisper_tiny_dir)
    for name, token in {
        "end": "<|endoftext|>",
        "start": "<|startoftranscript|>",
        "translate": "<|translate|>",
        "transcribe": "<|transcribe|>",
        "start_of_lm": "<|startoflm|>",
        "previous": "<|startofprev|>",
        "no_timestamps": "<|notimestamps|>",
    }.items():
        assert getattr(ENGLISH, name) == tokenizer.token_to_id(token), name
    assert ENGLISH.no_speech == ENGLISH.no_timestamps - 1
    assert ENGLISH.language_id("en") == tokenizer.token_to_id("<|en|>")


def test_multilingual_numbering():
    from transformers.models.whisper.tokenization_whisper import LANGUAGES as KNOWN

    assert tuple(KNOWN) == LANGUAGES
    # start, en, transcribe, notimestamps of every published multilingual model
    assert MULTILINGUAL.prompt(language="en", timestamps=False) == [50258, 50259, 50359, 50363]
    large_v3 = Vocabulary.of_size(51866)
    assert large_v3.prompt(language="yue", timestamps=False) == [50258, 50358, 50360, 50364]
    assert ENGLISH.prompt(language=None, timestamps=True) == [50257]


def test_suppressed_tokens_are_those_of_the_published_models(whisper_tiny_dir):
    from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS

    tokenizer = load_whisper_tokenizer(whisper_tiny_dir)
    got = masks(ENGLISH, encode=lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    # transformers' list leaves out <|nospeech|> and the task tokens of English-only models differ
    always = set(np.flatnonzero(np.asarray(got.always)).tolist())
    assert {token for token in NON_SPEECH_TOKENS if token < ENGLISH.end} == {
        token for token in always if token < ENGLISH.end
    }
    assert {token for token in always if token >= ENGLISH.end} == {
        50257, 50357, 50358, 50359, 50360, 50361,
    }  # fmt: skip
    assert np.flatnonzero(np.asarray(got.first)).tolist() == [220, ENGLISH.end]


def said(tokens):
    stamps = [token for token in tokens if token >= STAMP]
    padded = [0, 0, *tokens]
    return Emitted(
        *(
            jnp.asarray([value], jnp.int32)
            for value in (len(tokens), padded[-1], padded[-2], max(stamps, default=-1))
        )
    )


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [STAMP],
        [STAMP, 400],
        [STAMP, 400, STAMP + 90],
        [STAMP, 400, STAMP + 90, STAMP + 90],
        [STAMP + 3, 400, 401, STAMP + 90, STAMP + 95, 402],
    ],
)
@pytest.mark.parametrize("bias", [-6.0, 0.0, 6.0])
def test_timestamp_rules_match_transformers(tokens, bias):
    import torch
    from transformers import GenerationConfig
    from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

    config = GenerationConfig(
        eos_token_id=ENGLISH.end,
        bos_token_id=ENGLISH.end,
        no_timestamps_token_id=ENGLISH.no_timestamps,
        max_initial_timestamp_index=50,
    )
    processor = WhisperTimeStampLogitsProcessor(config, begin_index=1)
    logits = np.random.default_rng(len(tokens)).normal(size=(1, ENGLISH.size)).astype(np.float32)
    logits[:, STAMP:] += bias
    want = processor(torch.tensor([[ENGLISH.start, *tokens]]), torch.tensor(logits.copy())).numpy()
    none = jnp.zeros(ENGLISH.size, bool)
    got = restrict(
        jnp.asarray(logits),
        said(tokens),
        vocabulary=ENGLISH,
        masks=Masks(always=none, first=none),
        timestamps=True,
    )
    np.testing.assert_array_equal(np.asarray(got), want)


def test_without_timestamps_only_the_masks_hold():
    always = np.zeros(ENGLISH.size, bool)
    first = np.zeros(ENGLISH.size, bool)
    always[7], first[220] = True, True
    logits = jnp.zeros((1, ENGLISH.size))
    for tokens, banned in (([], [7, 220]), ([400], [7])):
        got = restrict(
            logits,
            said(tokens),
            vocabulary=ENGLISH,
            masks=Masks(always=jnp.asarray(always), first=jnp.asarray(first)),
            timestamps=False,
        )
        assert np.flatnonzero(np.isneginf(np.asarray(got)[0])).tolist() == banned


@pytest.mark.parametrize(
    ("tokens", "frames", "pieces", "moved"),
    [
        # closed at the end: the window is done
        ([STAMP, 5, 6, STAMP + 200], 1000, [(0.0, 4.0, 4)], 1000),
        ([STAMP, 5, STAMP + 100, STAMP + 110, 6, STAMP + 200], 1000,
         [(0.0, 2.0, 3), (2.2, 4.0, 3)], 1000),
        # cut off inside the second sentence: go on from its start
        ([STAMP, 5, STAMP + 100, STAMP + 110, 6, 7], 1000, [(0.0, 2.0, 3)], 200),
        # a pair at the end: go on after it
        ([STAMP, 5, STAMP + 100, STAMP + 100], 1000, [(0.0, 2.0, 3)], 200),
        # no pair: one piece up to its last timestamp or the window's end
        ([STAMP, 5, 6], 730, [(0.0, 7.3, 3)], 730),
        ([5, 6], 730, [(0.0, 7.3, 2)], 730),
        ([5, STAMP + 50, 6], 730, [(0.0, 1.0, 3)], 730),
        ([], 730, [(0.0, 7.3, 0)], 730),
    ],
)  # fmt: skip
def test_windows_are_cut_at_timestamp_pairs(tokens, frames, pieces, moved):
    got, step = cut(tokens, vocabulary=ENGLISH, frames=frames)
    assert step == moved
    assert [(round(p.start, 2), round(p.end, 2), len(p.tokens)) for p in got] == pieces


def test_compression_ratio_tells_repetition():
    assert compression_ratio("yes yes " * 40) > 2.4
    assert compression_ratio("And so my fellow Americans, ask not what your country can do.") < 1.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary.of_size(50257), "vocabulary of 50257 tokens is unknown"),
        (lambda: MULTILINGUAL.prompt(language="klingon", timestamps=True), "language 'klingon'"),
        (lambda: MULTILINGUAL.prompt(language="yue", timestamps=True), "language 'yue'"),
    ],
)
def test_unknown_sizes_and_languages_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
