"""Files of the kinds that people reported in public, each with what is right for it.

`tests/field_inputs` holds equivalents made for this project: audio, weights, and data sets.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import transformers

from ltu_jax import convert, evaluate
from ltu_jax.evaluation.metrics.words import word_error_counts
from ltu_jax.preprocessing.audio import AudioError, load_audio
from ltu_jax.preprocessing.tokenizer import load_tokenizer
from ltu_jax.weights.store import load_weights

FILES = Path(__file__).resolve().parent / "field_inputs"
IDS = np.random.default_rng(0).integers(3, 300, (2, 12))


@pytest.mark.parametrize(
    ("name", "seconds", "slack"),
    [
        ("cover_in_ape_tag_behind.mp3", 10.0, 0.06),
        ("cover_in_id3v2_behind.mp3", 10.0, 0.06),
        ("recorder_died_data_size_0.wav", 6.0, 0.01),
        ("zeros_in_front.mp3", 10.0, 0.06),
    ],
)
def test_sound_audio_is_read_whole(name, seconds, slack):
    samples = load_audio(FILES / "audio" / name).samples
    assert samples.size / 16_000 == pytest.approx(seconds, abs=slack)
    quiet = np.abs(samples[: samples.size // 1600 * 1600].reshape(-1, 1600)).max(1) < 1e-4
    assert not quiet[1:-1].any()


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("cut_off_behind_large_cover.mp3", ("4.47 s", "8.00 s")),
        ("header_says_1s_of_6s.wav", ("1.00 s", "6.00 s")),
    ],
)
def test_audio_that_contradicts_itself_is_refused_with_both_lengths(name, lengths):
    with pytest.raises(AudioError) as caught:
        load_audio(FILES / "audio" / name)
    assert all(length in str(caught.value) for length in lengths)


def _imported(name: str, kind: str, out: Path):
    convert.import_weights(kind, weights=[FILES / "weights" / name], out=out)
    return load_weights(out, dtype=np.float32)


def _check_logits(held, source: Path, **options) -> transformers.PreTrainedModel:
    import jax

    from ltu_jax.models.llama import Llama, LlamaConfig
    from ltu_jax.models.text_batch import TextBatch

    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, **options
    ).eval()
    with torch.no_grad():
        truth = theirs(torch.from_numpy(IDS)).logits.numpy()
    forward = jax.jit(Llama.functional(LlamaConfig.from_dict(held.config)).pure(Llama.__call__))
    text = TextBatch(
        input_ids=IDS,
        segment_ids=np.ones_like(IDS),
        positions=np.broadcast_to(np.arange(IDS.shape[1]), IDS.shape),
    )
    ours = forward(dict(held.params), text)
    np.testing.assert_allclose(ours, truth, atol=1e-4)
    return theirs


def test_a_pad_token_in_added_tokens_is_usable(tmp_path):
    held = _imported("hf_pad_in_added_tokens", "hf-llama", tmp_path / "ours")
    tokenizer = load_tokenizer(held.tokenizer_dir)
    source = FILES / "weights" / "hf_pad_in_added_tokens"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    for text in ("a dog barks", "hello world", "1234"):
        assert tokenizer.encode(text) == pieces.encode(text)
    pad = json.loads((source / "added_tokens.json").read_text())["[PAD]"]
    assert tokenizer.encode("a [PAD]")[-1] == pad < held.config["vocab_size"]
    _check_logits(held, source)


def test_a_context_of_131072_and_three_end_tokens_survive_both_ways(tmp_path):
    held = _imported("hf_llama3_context_131072", "hf-llama", tmp_path / "ours")
    assert held.max_position_embeddings == 131_072
    assert held.facts["end_tokens"] == [2, 5, 6]
    _check_logits(held, FILES / "weights" / "hf_llama3_context_131072")
    out = tmp_path / "out"
    convert.export_weights("hf", checkpoint=tmp_path / "ours", out=out)
    config = transformers.AutoConfig.from_pretrained(out)
    assert config.max_position_embeddings == 131_072
    assert transformers.GenerationConfig.from_pretrained(out).eos_token_id == [2, 5, 6]


def test_the_prefix_of_a_compiled_model_is_taken_off(tmp_path):
    from safetensors.torch import load_file

    held = _imported("hf_torch_compile_prefix", "hf-llama", tmp_path / "ours")
    source = FILES / "weights" / "hf_torch_compile_prefix"
    plain = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(source))
    state = load_file(source / "model.safetensors")
    plain.load_state_dict({name.removeprefix("_orig_mod."): t for name, t in state.items()})
    plain.save_pretrained(tmp_path / "plain")
    _check_logits(held, tmp_path / "plain")


def test_a_gguf_of_qwen2s_way_to_cut_text_is_imported(tmp_path):
    name = "deepseek_r1_qwen_tiny.gguf"
    held = _imported(name, "gguf", tmp_path / "ours")
    tokenizer = load_tokenizer(held.tokenizer_dir)
    for text in ("It's 2024, DON'T panic", "a dog barks \n\n twice"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and max(ids) < held.config["vocab_size"]
    _check_logits(held, FILES / "weights", gguf_file=name)


def test_two_kinds_of_apostrophe_are_one_word():
    (question,) = (FILES / "evaluation" / "apostrophe.jsonl").read_text("utf-8").splitlines()
    (answer,) = (
        (FILES / "evaluation" / "apostrophe_predictions.jsonl").read_text("utf-8").splitlines()
    )
    assert word_error_counts(json.loads(question)["answer"], json.loads(answer)["output"])[0] == 0


def test_check_counts_every_record_that_cannot_be_asked(capsys):
    data = str(FILES / "evaluation" / "mmau_answers_outside_choices")
    assert evaluate.main(["--check", "--benchmarks", "mmau", "--data", data]) == 1
    out = capsys.readouterr().out
    assert "record 7:" in out and "record 14:" in out
    assert "2 records cannot be asked" in out and "--skip-bad-records" in out
