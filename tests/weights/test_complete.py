"""Training checkpoints of ours in and out, and base weights in Hugging Face directories."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tiny_models as tiny
import torch
import transformers

from ltu_jax import checkpoint
from ltu_jax.convert import export_weights, import_weights, verify_folder
from ltu_jax.core.errors import UserError
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.weights.formats import orbax
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.open import base_entry, open_base, open_model, open_weights
from ltu_jax.weights.store import load_weights, save_weights
from ltu_jax.weights.verify import verify

WHISPER = WhisperConfig(
    n_mels=8, n_audio_ctx=50, n_audio_state=16, n_audio_head=2, n_audio_layer=2,
    n_vocab=51864, n_text_ctx=8, n_text_state=16, n_text_head=2, n_text_layer=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """whole/ (LTU-AS), base/ (its LLaMA), whisper/, and run/ made from them."""
    folder = tmp_path_factory.mktemp("complete")
    config = tiny.ltu_as_config(tiny.llama_config())
    params = tiny.random_params(LTUAS.functional(config))
    base = {path: array for path, array in params.items() if not is_adapter(path)}
    save_weights(
        folder / "whole", kind="ltu-as", config=tiny.as_dict(config), params=params, source={}
    )
    save_weights(
        folder / "base", kind="llama", config=tiny.as_dict(config.llama), params=base,
        source={"format": "hf-llama", "name": "vicuna-7b-v1.1"},
    )  # fmt: skip
    whisper = {
        path: np.zeros(leaf.shape, np.float32) for path, leaf in Whisper(WHISPER).shapes.items()
    }
    save_weights(
        folder / "whisper", kind="whisper", config=dataclasses.asdict(WHISPER), params=whisper,
        source={},
    )  # fmt: skip
    export_weights(
        "orbax", checkpoint=folder / "whole", out=folder / "run", llama=folder / "base",
        whisper=folder / "whisper",
    )  # fmt: skip
    return folder


def test_out_and_in_again_is_bit_identical(folder, tmp_path):
    import_weights("orbax", weights=[folder / "run"], out=tmp_path / "again")
    before, after = load_weights(folder / "whole"), load_weights(tmp_path / "again", kind="ltu-as")
    assert after.sha256 == before.sha256
    assert after.source["format"] == "orbax" and after.source["stage"] == orbax.CONVERTED
    with pytest.raises(UserError, match="is a weights directory already"):
        import_weights("orbax", weights=[folder / "whole"], out=tmp_path / "x")


def test_a_converted_checkpoint_is_started_from_but_not_resumed(folder):
    metadata, adapter = checkpoint.load_adapter(folder / "run")
    assert metadata["step"] == 0 and set(metadata["base"]) == {"llama", "whisper"}
    assert all(is_adapter(path) for path in adapter) and "audio_proj.kernel" in adapter
    from ltu_jax.training.state import TrainState

    like = TrainState(step=np.int32(0), trainable=adapter, opt_state={})
    with pytest.raises(UserError, match="no optimiser state.*--config.init_from="):
        checkpoint.restore(folder / "run", like=like, shardings=like)


def test_it_loads_by_itself(folder, tmp_path):
    import ltu_jax

    model = ltu_jax.load(folder / "run")
    assert model.config.audio_layers == 2 and model.tokenizer is None
    wanted = load_weights(folder / "whole").params
    np.testing.assert_array_equal(model.params["audio_proj.kernel"], wanted["audio_proj.kernel"])
    (folder / "base").rename(folder / "away")
    try:
        with pytest.raises(UserError) as caught:
            ltu_jax.load(folder / "run")
    finally:
        (folder / "away").rename(folder / "base")
    message = str(caught.value)
    assert "the language model of" in message and str(folder / "base") in message
    assert "ltu_jax.convert --from hf-llama --weights vicuna-7b-v1.1 --out DIR" in message


def test_another_base_or_whisper_is_refused(folder, tmp_path):
    changed = dict(load_weights(folder / "base").params)
    changed["llama.layers.mlp.up_proj.kernel"] = changed["llama.layers.mlp.up_proj.kernel"] + 1e-7
    config = load_weights(folder / "base").config
    save_weights(tmp_path / "other", kind="llama", config=config, params=changed, source={})
    held = open_model(folder / "whole")
    with pytest.raises(UserError, match=r"not the base of this model: llama.layers.mlp.up_proj"):
        orbax.to_run(held, base=tmp_path / "other", whisper=folder / "whisper", out=tmp_path / "r")
    wide = dataclasses.replace(WHISPER, n_audio_layer=3)
    params = {p: np.zeros(leaf.shape) for p, leaf in Whisper(wide).shapes.items()}
    save_weights(
        tmp_path / "w3", kind="whisper", config=dataclasses.asdict(wide), params=params, source={}
    )
    with pytest.raises(UserError, match="Whisper of 3 layers and width 16; .* for 2 layers"):
        orbax.to_run(held, base=folder / "base", whisper=tmp_path / "w3", out=tmp_path / "r")
    with pytest.raises(UserError, match="holds a run already"):
        orbax.to_run(held, base=folder / "base", whisper=folder / "whisper", out=folder / "run")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_a_hugging_face_directory_is_a_base_as_it_lies(tmp_path, shard):
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "hf", max_shard_size=shard)
    assert (tmp_path / "hf" / "model.safetensors.index.json").is_file() == (shard == "20KB")
    straight = open_weights(tmp_path / "hf", kind="llama")
    import_weights("hf-llama", weights=[tmp_path / "hf"], out=tmp_path / "ours")
    converted = load_weights(tmp_path / "ours")
    assert straight.config == converted.config
    assert list(straight.params) == list(converted.params)
    for path, array in converted.params.items():
        np.testing.assert_array_equal(straight.params[path], array)
    entry = base_entry(straight, relative_to=tmp_path / "run")
    assert open_base(entry, relative_to=tmp_path / "run", subject="x").sha256 == straight.sha256
    file = next((tmp_path / "hf").glob("model*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="is not the language model that"):
        open_base(entry, relative_to=tmp_path / "run", subject="language model")
    with pytest.raises(UserError, match="holds 'llama' weights, expected 'whisper'"):
        open_weights(tmp_path / "hf", kind="whisper")
    (tmp_path / "hf" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UserError, match="Hugging Face directory of model_type 'gpt2'"):
        open_weights(tmp_path / "hf")


def test_verify_knows_every_folder_that_convert_makes(folder, tmp_path, capsys):
    """Good as it was written, and named when a byte of it changes."""
    made = {"whole": folder / "whole", "base": folder / "base", "whisper": folder / "whisper"}
    for target, source, options in (
        ("hf", "base", {}), ("hf", "whole", {}), ("hf", "whisper", {}), ("ltu-as", "whole", {}),
        ("peft", "whole", {"base_name": "vicuna"}),
    ):  # fmt: skip
        made[f"{target} {source}"] = out = tmp_path / f"{target}-{source}"
        export_weights(target, checkpoint=folder / source, out=out, **options)
    shutil.copytree(folder / "run", tmp_path / "run")
    made["run"] = tmp_path / "run"
    made["import"] = import_weights("orbax", weights=[folder / "run"], out=tmp_path / "again")
    capsys.readouterr()
    for name, path in made.items():
        verify_folder(path)
        told = capsys.readouterr().out
        assert str(path) in told and told.endswith("good\n"), name
    for path in made.values():
        if path.parent == folder:
            continue
        files = [f for f in path.rglob("*") if f.is_file() and f.stat().st_size > 500]
        victim = max(files, key=lambda file: file.stat().st_size)
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(bytes(content))
        with pytest.raises(UserError, match="damaged"):
            verify_folder(path)
    (made["peft whole"] / "SHA256SUMS").write_text("0  ../../etc/passwd\n")
    with pytest.raises(UserError, match="line 1 of .*SHA256SUMS"):
        verify_folder(made["peft whole"])


def test_verify_reads_a_folder_without_hashes(tmp_path):
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for value, problem in ((1.0, ""), (float("nan"), "a.weight has 1 entries")):
        torch.save({"a.weight": torch.tensor([0.0, value])}, folder / "pytorch_model.bin")
        (found,) = verify(folder)
        assert problem in found.problem and bool(found.problem) == bool(problem)
