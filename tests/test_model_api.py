"""The Python API on the official tiny weights: logits, generated ids and scores, refusals."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import ltu_jax
from ltu_jax.convert import import_weights
from ltu_jax.core.compilation import CompileCount
from ltu_jax.core.errors import UserError
from ltu_jax.core.kept_programs import ProgramStore
from ltu_jax.generation.explain import explain, warm
from ltu_jax.generation.generate import generate, stream
from ltu_jax.generation.request import drain
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.inference import AnswerMode, EncodedClip, PositionLayout, Request
from ltu_jax.models.listening import audio_heard
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.preprocessing.text import prompt_ids
from ltu_jax.weights import store

WHISPER = WhisperConfig(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=48,
    n_audio_head=4,
    n_audio_layer=6,
    n_vocab=51864,
    n_text_ctx=448,
    n_text_state=48,
    n_text_head=4,
    n_text_layer=1,
)
RATE = 16_000


@pytest.fixture(scope="module")
def tiny(golden, tmp_path_factory):
    """The official tiny state dict as a weights directory with its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    base = folder / "base"
    base.mkdir()
    dims = json.loads((golden / "ltu_as_tiny_a" / "config.json").read_text())["dims"]
    settings = {name: dims[name] for name in ("num_attention_heads", "rms_norm_eps")}
    settings |= {"model_type": "llama", "rope_theta": 10_000.0}
    (base / "config.json").write_text(json.dumps(settings))
    spm = (golden / "text_cases" / "spm320.model").read_bytes()
    (base / "tokenizer.model").write_bytes(spm)
    weights = golden / "ltu_as_tiny_a" / "weights.safetensors"
    return import_weights(
        "ltu-as", weights=[weights], llama=base, out=folder / "ltu-as", audio_layers=6
    )


@pytest.fixture(scope="module")
def model(tiny):
    return ltu_jax.load(tiny)


@pytest.fixture(scope="module")
def whisper_dir(tmp_path_factory):
    """A random Whisper of the tiny model's width and depth, without a tokenizer."""
    import dataclasses

    folder = tmp_path_factory.mktemp("whisper") / "weights"
    whisper = Whisper(WHISPER)
    params = {
        path: np.asarray(leaf) for path, leaf in jax.jit(whisper.init)(jax.random.key(0)).items()
    }
    config = dataclasses.asdict(WHISPER)
    store.save_weights(folder, kind="whisper", config=config, params=params, source={})
    return folder


@pytest.fixture(scope="module")
def hearing(tiny, whisper_dir):
    return ltu_jax.load(tiny, whisper=whisper_dir)


@pytest.fixture(scope="module")
def arrays(golden):
    folder = golden / "ltu_as_tiny_a"
    return {
        name: np.load(folder / f"{name}.npz") for name in ("forward", "forward_extra", "generate")
    }


# --- logits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "prefix"),
    [("forward", ""), ("forward_extra", "nopad."), ("forward_extra", "smallaudio.")],
)
def test_training_logits_are_the_official_ones(model, arrays, file, prefix):
    data = arrays[file]
    got = model.logits(
        data[f"{prefix}in.input_ids"],
        data[f"{prefix}in.attention_mask"],
        data[f"{prefix}in.audio_input"],
        layout="train",
    )
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, data[f"{prefix}out.logits"], rtol=0, atol=1e-4)


def test_text_only_logits_are_the_official_ones(model, arrays):
    data = arrays["forward"]
    mask = data["in.attention_mask"][:, 25:]
    got = np.asarray(model.logits(data["in.input_ids"], mask, None, layout=PositionLayout.TRAIN))
    real = mask > 0
    np.testing.assert_allclose(got[real], data["text_only.logits"][real], rtol=0, atol=1e-4)


def test_a_mask_with_and_without_audio_means_the_same(model, arrays):
    data = arrays["forward"]
    args = data["in.input_ids"], data["in.audio_input"]
    whole = model.logits(args[0], data["in.attention_mask"], args[1], layout="train")
    text = model.logits(args[0], data["in.attention_mask"][:, 25:], args[1], layout="train")
    np.testing.assert_array_equal(whole, text)


def test_inference_layout_does_not_count_pads(model, arrays):
    """A padded row gives the logits of the same row without pads; the training layout does not."""
    data = arrays["forward"]
    row = int(data["in.attention_mask"].sum(1).argmin())
    ids, audio = data["in.input_ids"][row : row + 1], data["in.audio_input"][row : row + 1]
    mask = data["in.attention_mask"][row : row + 1, 25:]
    pads = int((mask == 0).sum())
    assert pads > 8
    alone = model.logits(ids[:, pads:], mask[:, pads:], audio, layout="inference")
    padded = model.logits(ids, mask, audio, layout="inference")[:, pads:]
    np.testing.assert_allclose(padded, alone, rtol=0, atol=1e-4)
    counted = model.logits(ids, mask, audio, layout="train")[:, pads:]
    assert np.abs(counted - alone).max() > 1


# --- generation -----------------------------------------------------------------------------------

GENERATED = ("greedy", "greedy_rp", "greedy2_rp", "text_only", "official_settings", "eos_stop")


@pytest.fixture(scope="module")
def generated(golden):
    return json.loads((golden / "ltu_as_tiny_a" / "generate.json").read_text())


def test_every_generation_case_is_tested(generated):
    named = {name for name in generated if not name.startswith("_")}
    assert named == {*GENERATED, "BUG_batched_left_pad"}


def call(generated, arrays, name):
    """Arguments of `generate` for a golden case; the official code takes the best token."""
    config, data = generated[name]["config"], arrays["generate"]
    ids = data[f"{name}.prompt_ids"]
    sampling = SamplingConfig(
        temperature=config["temperature"],
        top_p=config["top_p"],
        top_k=config["top_k"],
        repetition_penalty=config["repetition_penalty"],
        seed=0,
        pick="argmax",
    )
    audio = f"{name}.audio_input"
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "audio_features": data.get(audio),
        "max_new_tokens": config["max_new_tokens"],
        "eos_id": config["eos_token_id"],
        "sampling": sampling,
    }


@pytest.mark.parametrize("name", GENERATED)
def test_ids_and_scores_are_the_official_ones(model, generated, arrays, name):
    arguments = call(generated, arrays, name)
    got = generate(model.model, model.params, **arguments, with_scores=True)
    assert got.row(0) == generated[name]["new_tokens"][0]
    want = arrays["generate"][f"{name}.scores"]
    scores = got.scores[:, : want.shape[1]]
    np.testing.assert_array_equal(np.isneginf(scores), np.isneginf(want))
    limit = 1e-4 / min(1.0, arguments["sampling"].temperature)
    np.testing.assert_allclose(scores, want, rtol=0, atol=limit)
    assert got.finish_reasons == (("eos" if name == "eos_stop" else "length"),)


@pytest.mark.parametrize("name", ["greedy", "text_only", "eos_stop"])
def test_without_processors_greedy_needs_no_config(model, generated, arrays, name):
    arguments = call(generated, arrays, name) | {"sampling": None}
    got = generate(model.model, model.params, **arguments)
    assert got.row(0) == generated[name]["new_tokens"][0]
    assert list(stream(model.model, model.params, **arguments)) == generated[name]["new_tokens"][0]


def test_left_padded_batch_repeats_the_single_answers(model, generated, arrays):
    """The official code's mask is shifted by the audio here (BUG_batched_left_pad); ours is not."""
    first, second = (call(generated, arrays, name) for name in ("greedy_rp", "greedy2_rp"))
    length = first["input_ids"].shape[1]
    left = length - second["input_ids"].shape[1]
    together = first | {
        "input_ids": np.concatenate(
            [first["input_ids"], np.pad(second["input_ids"], ((0, 0), (left, 0)))]
        ),
        "attention_mask": np.pad(np.ones((2, length - left)), ((0, 0), (left, 0))),
        "audio_features": np.concatenate([first["audio_features"], second["audio_features"]]),
    }
    together["attention_mask"][0] = 1
    got = generate(model.model, model.params, **together)
    assert got.row(0) == generated["greedy_rp"]["new_tokens"][0]
    assert got.row(1) == generated["greedy2_rp"]["new_tokens"][0]


# --- answers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    return (0.1 * rng.normal(size=12 * RATE)).astype(np.float32)


def test_a_long_clip_is_cut_and_says_so(hearing, clip):
    answer = hearing.answer(clip, "What is the sound?", spoken_text="hello", max_new_tokens=8)
    assert answer.seconds == 12.0 and answer.seconds_dropped == 2.0
    assert answer.spoken_text == "hello" and len(answer.tokens) <= 8
    assert answer.finish_reason in ("eos", "length")


def test_answers_alone_streamed_and_in_a_batch_agree(hearing, clip):
    features = hearing.audio_features(clip)
    requests = [
        Request(question=question, spoken_text=text, audio_features=heard)
        for question in ("What is the sound?", "Describe the music genre with a sentence?")
        for text in ("", "some words")
        for heard in (features, None)
    ]
    together = hearing.answer_batch(requests, max_new_tokens=12, batch_size=2)
    for request, answer in zip(requests, together, strict=True):
        heard = EncodedClip(
            features=request.audio_features,
            spoken_text=request.spoken_text,
            seconds=12.0,
            seconds_dropped=2.0,
            mode=AnswerMode.JOINT,
        )
        pieces = list(hearing.stream(heard, request.question, max_new_tokens=12))
        assert "".join(pieces) == answer.text
    alone = hearing.answer(
        clip, requests[2].question, spoken_text=requests[2].spoken_text, max_new_tokens=12
    )
    assert alone.tokens == together[2].tokens and alone.text == together[2].text
    assert len({answer.tokens for answer in together}) > 4


def test_audio_mode_gives_no_transcript(hearing, clip):
    answer = hearing.answer(
        clip, "What is the sound?", spoken_text="hello", mode=AnswerMode.AUDIO, max_new_tokens=4
    )
    empty = hearing.answer(clip, "What is the sound?", spoken_text="", max_new_tokens=4)
    assert answer.spoken_text == "" and answer.tokens == empty.tokens


def test_sampling_is_reproducible_and_one_seed_serves_a_batch(hearing, clip):
    features = hearing.audio_features(clip)
    request = Request(question="Hi", spoken_text="", audio_features=features)
    config = SamplingConfig(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=3)
    first, second = hearing.answer_batch([request] * 2, max_new_tokens=12, sampling=config)
    assert first.tokens == second.tokens
    other = SamplingConfig(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=4)
    third, fourth = hearing.answer_batch([request] * 2, max_new_tokens=12, sampling=[config, other])
    assert third.tokens == first.tokens and fourth.tokens != first.tokens


def test_features_are_those_of_whisper_on_the_model_window(hearing, clip):

    from ltu_jax.preprocessing.audio import model_log_mel

    features = hearing.audio_features(clip)
    assert features.shape == (6, 25, 48) and features.dtype == np.float32
    mel = model_log_mel(clip, n_mels=80).log_mel
    want = hearing.listener.whisper.encoder.bind(hearing.listener.params).features(mel[None])[0]
    np.testing.assert_allclose(features, want, rtol=0, atol=1e-5)
    many = hearing.audio_features_batch([clip, clip[:RATE], clip], batch_size=2)
    np.testing.assert_allclose(many[0], features, rtol=0, atol=1e-5)
    np.testing.assert_allclose(many[2], features, rtol=0, atol=1e-5)
    assert np.abs(many[1] - features).max() > 1e-3


# --- refusals -------------------------------------------------------------------------------------


def refusal(call):
    with pytest.raises(ValueError) as caught:
        call()
    return str(caught.value)


def test_audio_without_whisper_says_how_to_give_it(model, clip):
    message = refusal(lambda: model.answer(clip, "Hi"))
    assert "without Whisper weights" in message and "whisper=DIR" in message
    assert "6 layers and width 48" in message


def test_transcribing_without_a_tokenizer_is_named(hearing, clip):
    assert "tokenizer.json" in refusal(lambda: hearing.answer(clip, "Hi"))


def test_questions_without_a_tokenizer_are_refused(tiny, tmp_path, arrays):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny, bare)
    header = json.loads((bare / "config.json").read_text())
    del header["sha256"]["tokenizer.model"]
    (bare / "config.json").write_text(json.dumps(header))
    (bare / "tokenizer.model").unlink()
    model = ltu_jax.load(bare)
    message = refusal(lambda: model.answer(None, "Hi", spoken_text="", mode="text"))
    assert "has no tokenizer" in message
    data = arrays["forward"]
    got = model.logits(
        data["in.input_ids"], data["in.attention_mask"], data["in.audio_input"], layout="train"
    )
    np.testing.assert_allclose(got, data["out.logits"], rtol=0, atol=1e-4)
    again = ltu_jax.load(bare, llama=tiny)
    assert again.answer(None, "Hi", spoken_text="", mode="text", max_new_tokens=2).tokens


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "both"}, "mode 'both' is unknown; known are joint, audio, text"),
        ({"question": "  "}, "question is empty"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"audio": None}, "mode 'joint' needs audio"),
        ({"audio": "no/such.wav"}, "no/such.wav"),
        ({"audio": np.zeros((3, 3, 3), np.float32)}, "samples"),
    ],
)
def test_bad_questions_are_named(hearing, clip, arguments, message):
    options = {"audio": clip, "question": "Hi", "spoken_text": "x", **arguments}
    audio, question = options.pop("audio"), options.pop("question")
    assert message in refusal(lambda: hearing.answer(audio, question, **options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "both"}, "layout 'both' is unknown"),
        ({"attention_mask": np.ones((3, 90))}, "do not agree"),
        ({"attention_mask": np.zeros((3, 113))}, "hides audio tokens"),
    ],
)
def test_bad_logits_arguments_are_named(model, arrays, change, message):
    data = arrays["forward"]
    options = {
        "input_ids": data["in.input_ids"],
        "attention_mask": data["in.attention_mask"],
        "audio_features": data["in.audio_input"],
        "layout": "train",
        **change,
    }
    assert message in refusal(lambda: model.logits(**options))


def test_loading_says_what_is_wrong(tiny, whisper_dir, tmp_path, whisper_tiny_files):
    assert "does not exist" in refusal(lambda: ltu_jax.load(tmp_path / "nothing"))
    assert "'whisper' weights" in refusal(lambda: ltu_jax.load(whisper_dir))
    assert "'ltu-as'" in refusal(lambda: ltu_jax.load(tiny, whisper=tiny))
    message = refusal(lambda: ltu_jax.load(tiny, whisper=whisper_tiny_files))
    assert "4 layers and width 384" in message and "6 layers and width 48" in message
    assert "dtype 'float16'" in refusal(lambda: ltu_jax.load(tiny, dtype="float16"))


def test_bfloat16_answers_stay_close(tiny, arrays):
    data = arrays["forward"]
    model = ltu_jax.load(tiny, dtype="bfloat16")
    got = model.logits(
        data["in.input_ids"], data["in.attention_mask"], data["in.audio_input"], layout="train"
    )
    assert got.dtype == np.float32
    assert np.abs(np.asarray(got) - data["out.logits"]).mean() < 0.2


def test_the_package_is_imported_lazily():
    import subprocess
    import sys

    code = "import ltu_jax, sys; assert 'jax' not in sys.modules; ltu_jax.load; print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ok", done.stderr


# --- what it listened to --------------------------------------------------------------------------


def test_an_explanation_is_the_attention_behind_each_token(model, arrays):
    """Padding changes nothing, and row i belongs to the position that chose token i."""
    features = arrays["forward"]["in.audio_input"][0]
    clip = EncodedClip(
        features=features, spoken_text="", seconds=1.0, seconds_dropped=0.0, mode=AnswerMode.AUDIO
    )
    answer = drain(model.stream(clip, "what is it?", max_new_tokens=6))
    made = model.explain(clip, "what is it?", tokens=answer.tokens)
    layers, tokens = features.shape[0], len(answer.tokens)
    assert made.layers.shape == (25, layers) and made.tokens.shape == (tokens, 25)
    np.testing.assert_allclose(made.layers.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(made.tokens.sum(1), 1, atol=1e-5)
    assert "".join(made.pieces).strip() == answer.text and len(made.pieces) == tokens

    prompt = prompt_ids(model.tokenizer, instruction="what is it?", spoken_text="")
    ids = np.array([[*prompt, *answer.tokens]])
    text = TextBatch(
        input_ids=ids, segment_ids=np.ones_like(ids), positions=np.arange(25 + ids.size)[None]
    )
    whole = np.asarray(model.model.pure(audio_heard)(model.params, text, features[None]))[0]
    np.testing.assert_allclose(made.tokens, whole[len(prompt) - 1 : -1], atol=1e-5)

    both = np.stack([features, arrays["forward"]["in.audio_input"][1]])
    made = explain(
        model.model,
        model.params,
        prompt=prompt,
        audio_features=both,
        tokens=answer.tokens,
        tokenizer=model.tokenizer,
    )
    assert made.layers.shape == (50, layers) and made.tokens.shape == (tokens, 50)
    np.testing.assert_allclose(made.tokens.sum(1), 1, atol=1e-5)
    alone = model.explain(clip, "what is it?", tokens=answer.tokens)
    np.testing.assert_allclose(made.layers[:25], alone.layers, atol=1e-6)


def test_after_warming_an_explanation_compiles_nothing(model, arrays):
    """Whatever the lengths of prompt and answer."""
    features = arrays["forward"]["in.audio_input"][0]
    clip = EncodedClip(
        features=features, spoken_text="", seconds=1.0, seconds_dropped=0.0, mode=AnswerMode.AUDIO
    )
    with ProgramStore(folder=None, device=jax.devices()[0]).used():
        warm(model.model, model.params, audio_features=features[None], longest=200)
        compiled = CompileCount()
        for question, answer in (("a", 1), ("why " * 9, 3), ("what is it? " * 9, 60)):
            made = model.explain(clip, question, tokens=[7] * answer)
            assert made.tokens.shape == (answer, 25)
        compiled.close()
        assert compiled.count == 0


@pytest.mark.parametrize("tokens", [(), "abc", [1.5], [320], [-1], [[1]], None])
def test_what_cannot_be_explained_is_refused_by_name(model, tokens):
    clip = EncodedClip(
        features=np.zeros((6, 25, 48), np.float32),
        spoken_text="",
        seconds=1.0,
        seconds_dropped=0.0,
        mode=AnswerMode.AUDIO,
    )
    with pytest.raises(UserError, match="^tokens"):
        model.explain(clip, "what?", tokens=tokens)
    silent = dataclasses.replace(clip, features=None, mode=AnswerMode.TEXT)
    with pytest.raises(UserError, match="^clip is of mode 'text'"):
        model.explain(silent, "what?", tokens=(1,))
