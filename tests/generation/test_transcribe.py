"""Transcription: the real tiny.en on real speech, against transformers, and OpenAI's rules."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltu_jax.generation import whisper_decode
from ltu_jax.generation.loading import load_transcriber
from ltu_jax.generation.transcribe import (
    OPENAI,
    Transcriber,
    _Job,
    load_whisper_tokenizer,
)
from ltu_jax.generation.whisper_decode import RowResult
from ltu_jax.generation.whisper_rules import WhisperInput, begin
from ltu_jax.models.sizes import WHISPER_SIZES
from ltu_jax.models.whisper import Whisper
from ltu_jax.preprocessing.audio import transcribe_log_mel
from ltu_jax.preprocessing.whisper_vocabulary import LANGUAGES

pytestmark = pytest.mark.optimised

JFK = (
    "and so my fellow americans ask not what your country can do for you "
    "ask what you can do for your country"
)
RATE = 16_000


@pytest.fixture(scope="module")
def speech(golden):
    pcm = np.load(golden / "whisper_tiny_random" / "jfk.npz")["pcm16k"]
    return pcm.astype(np.float32) / 32768


@pytest.fixture(scope="module")
def transcriber(whisper_tiny_dir):
    return load_transcriber(whisper_tiny_dir)


def words(text):
    return re.sub(r"[^a-z ]", "", text.lower())


def test_jfk_is_transcribed_without_error(transcriber, speech):
    (heard,) = transcriber.transcribe([speech], batch_size=1)
    assert words(heard.text) == JFK
    assert heard.spoken_text == heard.text and heard.language == "en"
    assert heard.segments[0].start == 0.0 and 10 <= heard.segments[-1].end <= 11
    assert {segment.temperature for segment in heard.segments} == {0.0}
    assert heard.no_speech_prob < 0.1 and heard.avg_logprob > -0.5


def test_a_clip_does_not_depend_on_its_batch(transcriber, speech):
    noise = (0.2 * np.random.default_rng(0).normal(size=3 * RATE)).astype(np.float32)
    clips = [
        speech,
        np.zeros(100, np.float32),
        noise,
        speech[: 4 * RATE],
        np.zeros(RATE, np.float32),
    ]
    options = dataclasses.replace(OPENAI, temperatures=(0.0, 0.4))
    together = transcriber.transcribe(iter(clips), batch_size=4, options=options)
    assert words(together[0].text) == JFK
    assert words(together[3].text).startswith("and so my fellow americans")
    assert together[1].text == "" and np.isnan(together[1].avg_logprob)
    for clip, heard in zip(clips, together, strict=True):
        (alone,) = transcriber.transcribe([clip], batch_size=1, options=options)
        assert alone.text == heard.text
        assert [s.temperature for s in alone.segments] == [s.temperature for s in heard.segments]


@pytest.mark.parametrize("conditioned", [False, True])
def test_long_audio_moves_through_windows(transcriber, speech, conditioned):
    pause = np.zeros(RATE, np.float32)
    clip = np.concatenate([speech, pause] * 3)  # 36 s
    options = dataclasses.replace(OPENAI, condition_on_previous_text=conditioned)
    (heard,) = transcriber.transcribe([clip], batch_size=1, options=options)
    assert words(heard.text).split().count("americans") == 3
    times = [time for segment in heard.segments for time in (segment.start, segment.end)]
    assert times == sorted(times) and 30 < times[-1] <= 36.1


# --- against transformers -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch_whisper(transcriber):
    """transformers' Whisper with the same weights."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from ltu_jax.weights import name_tables
    from ltu_jax.weights.formats.hf_whisper import HF_RULES
    from ltu_jax.weights.tensors import as_tensors

    sizes, end = transcriber.whisper.config, transcriber.vocabulary.end
    config = WhisperConfig(
        vocab_size=sizes.n_vocab,
        num_mel_bins=sizes.n_mels,
        d_model=sizes.n_audio_state,
        encoder_layers=sizes.n_audio_layer,
        decoder_layers=sizes.n_text_layer,
        encoder_attention_heads=sizes.n_audio_head,
        decoder_attention_heads=sizes.n_text_head,
        encoder_ffn_dim=4 * sizes.n_audio_state,
        decoder_ffn_dim=4 * sizes.n_text_state,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=transcriber.vocabulary.start,
    )
    model = WhisperForConditionalGeneration(config).eval()
    params = {path: np.asarray(leaf) for path, leaf in transcriber.params.items()}
    state = {
        f"model.{name}": torch.tensor(tensor.read())
        for name, tensor in name_tables.export(HF_RULES, as_tensors(params)).items()
    }
    missing, surplus = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"proj_out.weight"} and not surplus
    return model


def torch_greedy(model, transcriber, log_mel, *, timestamps):
    """Greedy ids, sum of log-probabilities and no-speech probability, by transformers' parts."""
    import torch
    from transformers import GenerationConfig
    from transformers.generation import logits_process

    vocabulary, masks = transcriber.vocabulary, transcriber.masks
    prompt = vocabulary.prompt(language=None, timestamps=timestamps)
    processors = [
        logits_process.SuppressTokensLogitsProcessor(np.flatnonzero(masks.always).tolist()),
        logits_process.SuppressTokensAtBeginLogitsProcessor(
            np.flatnonzero(masks.first).tolist(), len(prompt)
        ),
    ]
    if timestamps:
        config = GenerationConfig(
            eos_token_id=vocabulary.end,
            bos_token_id=vocabulary.end,
            no_timestamps_token_id=vocabulary.no_timestamps,
            max_initial_timestamp_index=50,
        )
        processors.append(logits_process.WhisperTimeStampLogitsProcessor(config, len(prompt)))
    ids, total, silence = torch.tensor([prompt]), 0.0, None
    fed, cache = ids, None
    with torch.no_grad():
        encoded = model.model.encoder(torch.tensor(np.array(log_mel.T))[None])
        while True:
            out = model(encoder_outputs=encoded, decoder_input_ids=fed, past_key_values=cache)
            logits, cache = out.logits, out.past_key_values
            if silence is None:
                silence = logits[0, 0].softmax(-1)[vocabulary.no_speech].item()
            scores = logits[:, -1]
            for processor in processors:
                scores = processor(ids, scores)
            best = scores.argmax(-1)
            total += scores.log_softmax(-1)[0, best].item()
            if best.item() == vocabulary.end:
                return ids[0, len(prompt) :].tolist(), total, silence
            fed = best[None]
            ids = torch.cat([ids, fed], dim=1)


@pytest.mark.parametrize("timestamps", [True, False])
def test_greedy_ids_are_those_of_transformers(transcriber, torch_whisper, speech, timestamps):
    log_mel = transcribe_log_mel(speech, n_mels=80)[:3000]
    tokens, total, silence = torch_greedy(
        torch_whisper, transcriber, log_mel, timestamps=timestamps
    )
    assert len(tokens) > 20
    prompt = transcriber.vocabulary.prompt(language=None, timestamps=timestamps)
    got = greedy(transcriber, log_mel, prompt, timestamps=timestamps, silent_above=np.inf)
    assert got.tokens == tokens and not got.out_of_room
    assert got.sum_logprob == pytest.approx(total, abs=2e-3)
    assert got.no_speech_prob == pytest.approx(silence, abs=1e-5)
    # Where silence alone decides, a window is given up at its first token.
    given_up = greedy(transcriber, log_mel, prompt, timestamps=timestamps, silent_above=0.0)
    assert given_up.tokens == [] and not given_up.out_of_room
    assert given_up.no_speech_prob == got.no_speech_prob


def greedy(transcriber, log_mel, prompt, *, timestamps, silent_above):
    """The first window decoded at temperature 0."""
    encoded = whisper_decode.encode(
        transcriber.params, log_mel[None], encoder=transcriber.whisper.encoder
    )
    (result,) = whisper_decode.decode(
        transcriber.params,
        [whisper_decode.Row(encoded[0], prompt, temperature=0.0, seeds=(0, 0, 0))],
        whisper_decode.DecodeSettings(
            decoder=transcriber.whisper.decoder,
            vocabulary=transcriber.vocabulary,
            masks=transcriber.masks,
            task_length=len(prompt),
            room=64,
            timestamps=timestamps,
            silent_above=silent_above,
        ),
    )
    return result


# --- rules ----------------------------------------------------------------------------------------


def test_windows_are_those_of_openai(speech):
    """Frames behind the end are filled in; Whisper computes them from 30 s of zeros."""
    clip = begin(speech, n_mels=80, index=0)
    whole = transcribe_log_mel(speech, n_mels=80)
    assert clip.frames == len(whole) - 3000
    for seek in (0, 400, clip.frames - 1):
        clip.seek = seek
        want = whole[seek : seek + 3000]
        np.testing.assert_allclose(clip.window(), want, rtol=0, atol=1e-6)


@pytest.fixture
def job(transcriber):
    clip = WhisperInput(log_mel=np.zeros((1000, 80), np.float32), frames=1000, silence=-1.5)
    return _Job(index=0, clip=clip, prompt=[transcriber.vocabulary.start])


def said(transcriber, text, **changes):
    stamp = transcriber.vocabulary.timestamp
    ids = whisper_words(transcriber, text)
    values = dict(sum_logprob=-1.0, no_speech_prob=0.0, out_of_room=False)
    return RowResult(tokens=[stamp, *ids, stamp + 100], **{**values, **changes})


def whisper_words(transcriber, text):
    tokens = range(transcriber.vocabulary.end)
    table = {transcriber.decode_text([t]): t for t in tokens[:5000]}
    return [table[" " + word] for word in text.split()]


def test_a_likely_text_is_accepted(transcriber, job):
    result = said(transcriber, "the man and the dog")
    assert not transcriber._again(job, result, OPENAI)
    transcriber._accept(job, result, OPENAI)
    assert job.clip.size == 0  # closed by its timestamp: the window is done
    assert [(s.text, s.start, s.end) for s in job.clip.segments] == [("the man and the dog", 0, 2)]


@pytest.mark.parametrize(
    ("text", "changes"),
    [("the man and the dog", {"sum_logprob": -20.0}), ("the dog " * 40, {})],
)
def test_unlikely_and_repeating_texts_go_to_the_next_temperature(transcriber, job, text, changes):
    result = said(transcriber, text, **changes)
    for attempt in range(1, len(OPENAI.temperatures)):
        assert transcriber._again(job, result, OPENAI) and job.attempt == attempt
    assert not transcriber._again(job, result, OPENAI)  # the last one is taken as it is


def test_an_unlikely_text_over_silence_is_dropped(transcriber, job):
    result = said(transcriber, "the dog", sum_logprob=-20.0, no_speech_prob=0.9)
    assert not transcriber._again(job, result, OPENAI)
    transcriber._accept(job, result, OPENAI)
    assert job.clip.segments == [] and job.clip.size == 0


def test_a_likely_text_is_kept_whatever_no_speech_says(transcriber, job):
    result = said(transcriber, "the dog", no_speech_prob=0.9)
    transcriber._accept(job, result, OPENAI)
    assert [s.text for s in job.clip.segments] == ["the dog"]


def test_a_text_out_of_room_gets_whispers_own_limit(transcriber, job):
    assert transcriber._again(job, said(transcriber, "the dog", out_of_room=True), OPENAI)
    assert job.full_room and job.attempt == 0


def test_a_text_cut_inside_a_sentence_goes_on_there(transcriber, job):
    stamp, (word,) = transcriber.vocabulary.timestamp, whisper_words(transcriber, "dog")
    result = said(transcriber, "the man")._replace(
        tokens=[stamp, word, stamp + 100, stamp + 110, word, word]
    )
    transcriber._accept(job, result, OPENAI)
    assert job.clip.seek == 200  # before the second sentence starts, as openai/whisper does


# --- multilingual, refusals -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def multilingual(whisper_base_dir):
    config = dataclasses.replace(
        WHISPER_SIZES["tiny"],
        n_audio_state=16,
        n_text_state=16,
        n_audio_head=2,
        n_text_head=2,
        n_audio_layer=1,
        n_text_layer=1,
    )
    fns = Whisper(config)
    params = jax.jit(fns.init)(jax.random.key(0))
    tokenizer = load_whisper_tokenizer(whisper_base_dir)
    return Transcriber.of(fns, params, tokenizer=tokenizer)


def test_the_language_is_the_likeliest_language_token(multilingual, speech):
    # Without timestamps a clip is one window, whatever the random weights say.
    options = dataclasses.replace(OPENAI, temperatures=(0.0,), timestamps=False)
    clip = begin(speech, n_mels=80, index=0)
    whisper, params = multilingual.whisper, multilingual.params

    @jax.jit
    def first_logits(log_mel):
        decoder = whisper.decoder.bind(params)
        cache = decoder.init_cache(whisper.encoder.bind(params).encode(log_mel), length=1)
        return decoder.decode(jnp.full((1, 1), 50258), cache)[0][0, 0]

    logits = first_logits(jnp.asarray(clip.window()[None]))
    want = LANGUAGES[int(logits[50259:50358].argmax())]
    (heard,) = multilingual.transcribe([speech], batch_size=1, options=options)
    assert heard.language == want
    told = dataclasses.replace(options, language="de")
    assert multilingual.transcribe([speech], batch_size=1, options=told)[0].language == "de"


@pytest.mark.parametrize(
    ("clips", "changes", "message"),
    [
        ([np.zeros((2, RATE), np.float32)], {}, r"clip 0: samples of shape \(2, 16000\)"),
        ([np.zeros(RATE, np.float32)], {"language": "klingon"}, "language 'klingon' is unknown"),
    ],
)
def test_bad_input_is_named(multilingual, clips, changes, message):
    options = dataclasses.replace(OPENAI, **changes)
    with pytest.raises(ValueError, match=message):
        multilingual.transcribe(clips, batch_size=1, options=options)


def test_a_whisper_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer.json"):
        load_whisper_tokenizer(tmp_path)
