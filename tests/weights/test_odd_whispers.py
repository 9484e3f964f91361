"""Whispers as people have them: padded, and with settings that contradict the weights."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import tiny_whisper as tiny
import torch

from ltu_jax.convert import import_weights
from ltu_jax.core.errors import UserError
from ltu_jax.generation.loading import load_transcriber
from ltu_jax.generation.transcribe import OPENAI
from ltu_jax.preprocessing.whisper_vocabulary import Vocabulary
from ltu_jax.weights.identify.describe import describe
from ltu_jax.weights.verify import verify

SIZES = dict(
    num_mel_bins=80, max_source_positions=1500, max_target_positions=30,
    encoder_layers=1, decoder_layers=1,
)  # fmt: skip


def _folder(path, tokenizer_dir, *, rows=51865, state=None, **changes):
    """A random Whisper with a tokenizer; `changes` go into config.json."""
    model = tiny.hf_model(**SIZES, vocab_size=51865)
    model.save_pretrained(path)
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": rows} | changes))
    if rows != 51865:
        # rows that would win every time, were they tokens
        table = model.model.decoder.embed_tokens.weight.data
        held = {n: v.clone() for n, v in model.state_dict().items() if n != "proj_out.weight"}
        extra = 20 * torch.sign(torch.randn(rows - 51865, table.shape[1]))
        held["model.decoder.embed_tokens.weight"] = torch.cat([table, extra])
        _save(held, path)
    (path / "tokenizer.json").write_bytes((tokenizer_dir / "tokenizer.json").read_bytes())
    (path / "generation_config.json").unlink(missing_ok=True)
    return path


def _save(state, path):
    from safetensors.torch import save_file

    save_file({n: v.contiguous() for n, v in state.items()}, path / "model.safetensors")


def test_a_padded_whisper_is_usable(tmp_path, whisper_base_files):
    """51872 rows: what it says is what the model says without them."""
    clip = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    options = dataclasses.replace(OPENAI, temperatures=(0.0,), no_speech_limit=2.0, language="en")
    said = {}
    for rows in (51865, 51872):
        folder = _folder(tmp_path / f"hf{rows}", whisper_base_files, rows=rows)
        out = import_weights("hf-whisper", weights=[folder], out=tmp_path / f"ours{rows}")
        transcriber = load_transcriber(out)
        assert transcriber.vocabulary == Vocabulary.of_size(51865)
        (said[rows],) = transcriber.transcribe([clip], batch_size=1, options=options)
        assert [one.problem for one in verify(out)] == [""]
    np.testing.assert_allclose(said[51872].no_speech_prob, said[51865].no_speech_prob, rtol=1e-5)
    assert said[51872].text == said[51865].text != ""


def _bad_ids(tokenizer_dir, **changes):
    """generation_config.json, right but for `changes`."""
    ours = json.loads((tokenizer_dir / "generation.json").read_text())
    return {
        "no_timestamps_token_id": ours["special"]["no_timestamps"],
        "lang_to_id": {f"<|{code}|>": index for code, index in ours["languages"].items()},
        "task_to_id": {name: ours["special"][name] for name in ("transcribe", "translate")},
        "is_multilingual": True,
    } | changes


# changes of config.json, changes of generation_config.json (None: no such file), the datum
CASES = [
    ({}, {}, ""),
    ({}, {"suppress_tokens": [], "begin_suppress_tokens": [220]}, ""),
    ({}, {"suppress_tokens": [51865]}, "suppress_tokens has 51865"),
    ({}, {"suppress_tokens": ["a"]}, "suppress_tokens has a"),
    ({}, {"begin_suppress_tokens": 220}, "begin_suppress_tokens is '220'"),
    ({}, {"no_timestamps_token_id": 50362}, "no_timestamps_token_id is 50362"),
    ({}, {"lang_to_id": {"<|en|>": 50260}}, "<|en|> is 50260"),
    ({}, {"task_to_id": {"transcribe": 1}}, "transcribe is 1"),
    ({}, {"is_multilingual": False}, "is_multilingual is False"),
    ({"d_model": 32}, None, "d_model is 32"),
    ({"decoder_layers": 2}, None, "decoder_layers is 2"),
    ({"num_mel_bins": 128}, None, "num_mel_bins is 128"),
    ({"max_target_positions": 448}, None, "max_target_positions is 448"),
    ({"vocab_size": 51866}, None, "vocab_size is 51866"),
    ({"encoder_ffn_dim": 128}, None, "encoder_ffn_dim is 128"),
    ({"quantization_config": {"quant_method": "bitsandbytes"}}, None, "bitsandbytes"),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory, whisper_base_files):
    return _folder(tmp_path_factory.mktemp("whisper") / "hf", whisper_base_files)


@pytest.mark.parametrize(("settings", "generation", "datum"), CASES)
def test_settings_of_a_whisper(tmp_path, good, whisper_base_files, settings, generation, datum):
    folder = tmp_path / "hf"
    shutil.copytree(good, folder)
    held = json.loads((good / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(held | settings))
    if generation is not None:
        made = _bad_ids(whisper_base_files, **generation)
        (folder / "generation_config.json").write_text(json.dumps(made))
    told = describe(folder, hash=False)  # asks the importer, for all but the numbers
    if not datum:
        import_weights("hf-whisper", weights=[folder], out=tmp_path / "ours")
        assert told.problems == () and told.next
        return
    assert datum in told.problems[0] and told.next is None
    if generation is None:
        with pytest.raises(UserError, match=re.escape(datum)):
            import_weights("hf-whisper", weights=[folder], out=tmp_path / "ours")


def test_the_tokenizer_of_another_whisper(tmp_path, whisper_base_files, whisper_tiny_files):
    """An English tokenizer would fit a padded table; OpenAI's own sizes it does not."""
    folder = _folder(tmp_path / "hf", whisper_tiny_files)
    with pytest.raises(UserError, match=r"tokenizer.json.*51864 tokens.*51865 rows"):
        import_weights("hf-whisper", weights=[folder], out=tmp_path / "ours")
    names = json.loads((whisper_base_files / "tokenizer.json").read_text())
    for entry in names["added_tokens"]:
        entry["id"] += entry["content"] == "<|transcribe|>"
    (folder / "tokenizer.json").write_text(json.dumps(names))
    with pytest.raises(UserError, match=r"<\|transcribe\|> is 50360"):
        import_weights("hf-whisper", weights=[folder], out=tmp_path / "ours")
