"""Directories with odd contents: Hugging Face models, adapters, checkpoints, weights of ours."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
from hostile_corpus import Call, hostile, touch, write
from safetensors.numpy import save_file


def llama_tensors() -> dict[str, np.ndarray]:
    layer, ones = "model.layers.0.", lambda *shape: np.ones(shape, np.float32)
    return {
        "model.embed_tokens.weight": ones(32, 8),
        **{f"{layer}self_attn.{n}_proj.weight": ones(8, 8) for n in "qkvo"},
        **{f"{layer}mlp.{n}_proj.weight": ones(16, 8) for n in ("gate", "up")},
        f"{layer}mlp.down_proj.weight": ones(8, 16),
        f"{layer}input_layernorm.weight": ones(8),
        f"{layer}post_attention_layernorm.weight": ones(8),
        "model.norm.weight": ones(8),
        "lm_head.weight": ones(32, 8),
    }


def hf_llama(folder: Path, **changes) -> Path:
    """A LLaMA of one layer that converts as it stands, with changes of its config."""
    save_file(llama_tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    settings = {
        "model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 32,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings | changes))
    return folder


def _sharded(folder: Path, weight_map: object) -> Path:
    """The same with an index in place of the one file, and two honest shards beside it."""
    hf_llama(folder)
    (folder / "model.safetensors").unlink()
    items = list(llama_tensors().items())
    for number, part in ((1, items[:6]), (2, items[6:])):
        save_file(dict(part), folder / f"model-0000{number}-of-00002.safetensors")
    content = weight_map if isinstance(weight_map, bytes) else json.dumps(weight_map).encode()
    (folder / "model.safetensors.index.json").write_bytes(content)
    return folder


def _placed(file: str) -> dict[str, object]:
    return {"weight_map": dict.fromkeys(llama_tensors(), file)}


def _index(name: str, content: object, says: str = "") -> None:
    def build(folder: Path) -> Path:
        return _sharded(folder, content)

    build.__name__ = f"index_{name}"
    hostile("hf-llama", says)(build)


_index("parent_folder", _placed("../../etc/passwd"), "refused")
_index("parent_folder_as_safetensors", _placed("../secret.safetensors"), "refused")
_index("absolute_path", _placed("/etc/passwd"), "refused")
_index("other_suffix", _placed("model.pkl"), "refused")
_index("null_byte", _placed("a\0b.safetensors"))
_index("empty_name", _placed(""), "refused")
_index("not_text", _placed(7), "weight_map")
_index("is_a_list", [1, 2], "weight_map")
_index("nested_deep", b'{"weight_map":' + b"[" * 5_000_000 + b"]" * 5_000_000 + b"}")
_index("number_of_a_million_digits", b'{"weight_map":' + b"9" * 1_000_000 + b"}")


@hostile("hf-llama")
def _index_of_a_gigabyte(folder: Path) -> Path:
    _sharded(folder, {})
    os.truncate(folder / "model.safetensors.index.json", 1 << 30)  # sparse: no disk is used
    return folder


@hostile("hf-llama", "also in another shard")
def _tensor_in_two_shards(folder: Path) -> Path:
    first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    names = list(llama_tensors())
    _sharded(
        folder, {"weight_map": dict.fromkeys(names[:6], first) | dict.fromkeys(names[6:], second)}
    )
    save_file(llama_tensors(), folder / second)
    return folder


@hostile("hf-llama")
def _shard_is_a_link_to_a_secret(folder: Path) -> Path:
    _sharded(folder, _placed("model-00001-of-00002.safetensors"))
    (folder / "model-00001-of-00002.safetensors").unlink()
    (folder / "model-00001-of-00002.safetensors").symlink_to("/etc/passwd")
    return folder


@hostile("hf-llama")
def _shard_is_a_device(folder: Path) -> Path:
    _sharded(folder, _placed("model-00001-of-00002.safetensors"))
    (folder / "model-00001-of-00002.safetensors").unlink()
    (folder / "model-00001-of-00002.safetensors").symlink_to("/dev/zero")
    return folder


@hostile("hf-llama")
def _shard_is_a_pipe(folder: Path) -> Path:
    _sharded(folder, _placed("model-00001-of-00002.safetensors"))
    (folder / "model-00001-of-00002.safetensors").unlink()
    os.mkfifo(folder / "model-00001-of-00002.safetensors")
    return folder


def _config(name: str, says: str = "", **changes) -> None:
    def build(folder: Path) -> Path:
        return hf_llama(folder, **changes)

    build.__name__ = f"config_{name}"
    hostile("hf-llama", says)(build)


_config("a_billion_layers", "num_hidden_layers", num_hidden_layers=10**9)
_config("huge_vocabulary", "vocab_size", vocab_size=10**12)
_config("sizes_as_text", hidden_size="many")
_config("heads_as_text", num_attention_heads="2")
_config("heads_as_list", num_attention_heads=[2])
_config("no_heads", num_attention_heads=0)
_config("negative_heads", num_attention_heads=-2)
_config("fractional_heads", num_attention_heads=2.5)
_config("key_heads_as_text", num_key_value_heads="two")
_config("head_dim_zero_and_negative", head_dim=-4)
_config("eps_as_list", rms_norm_eps=[1e-6])
_config("eps_not_a_number", rms_norm_eps=float("nan"))
_config("theta_as_text", rope_theta="large")
_config("theta_infinite", rope_theta=float("inf"))
_config("rope_scaling_as_text", rope_scaling="llama3")
_config("rope_scaling_wrong_values", rope_scaling={
    "rope_type": "llama3", "factor": "x", "low_freq_factor": [], "high_freq_factor": {},
    "original_max_position_embeddings": None,
})  # fmt: skip
_config("model_type_as_list", model_type=["llama"])


@hostile("hf-llama")
def _config_is_a_list(folder: Path) -> Path:
    (hf_llama(folder) / "config.json").write_text("[1]")
    return folder


@hostile("hf-llama")
def _config_is_a_pickle(folder: Path) -> Path:
    write(hf_llama(folder) / "config.json", pickle.dumps(Call(os.system, touch(folder))))
    return folder


@hostile("hf-llama")
def _config_nested_deep(folder: Path) -> Path:
    write(hf_llama(folder) / "config.json", b"[" * 1_000_000 + b"]" * 1_000_000)
    return folder


@hostile("hf-llama")
def _config_of_a_gigabyte(folder: Path) -> Path:
    os.truncate(hf_llama(folder) / "config.json", 1 << 30)
    return folder


@hostile("hf-llama", "tokenizer.json")
def _tokenizer_is_a_pickle(folder: Path) -> Path:
    write(hf_llama(folder) / "tokenizer.json", pickle.dumps(Call(os.system, touch(folder))))
    return folder


def _hf_whisper(folder: Path) -> Path:
    def ones(*shape: int) -> np.ndarray:
        return np.ones(shape, np.float32)

    save_file(
        {
            "model.encoder.conv1.weight": ones(8, 4, 3),
            "model.encoder.embed_positions.weight": ones(10, 8),
            "model.decoder.embed_tokens.weight": ones(51864, 8),
            "model.decoder.embed_positions.weight": ones(6, 8),
        },
        folder / "model.safetensors",
    )
    settings = {
        "model_type": "whisper", "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@hostile("hf-whisper", "tokenizer.json")
def _whisper_tokenizer_is_a_pickle(folder: Path) -> Path:
    write(_hf_whisper(folder) / "tokenizer.json", pickle.dumps(Call(os.system, touch(folder))))
    return folder


@hostile("hf-whisper")
def _whisper_tokenizer_of_wrong_types(folder: Path) -> Path:
    added = {"added_tokens": [{"content": ["x"], "id": "y"}, 7]}
    (_hf_whisper(folder) / "tokenizer.json").write_text(json.dumps(added))
    return folder


@hostile("hf-whisper")
def _whisper_without_heads(folder: Path) -> Path:
    (_hf_whisper(folder) / "config.json").write_text('{"model_type": "whisper"}')
    return folder


@hostile("hf-whisper")
def _whisper_tokenizer_of_no_model(folder: Path) -> Path:
    names = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>"]
    names += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    added = [{"content": name, "id": 50256 + i} for i, name in enumerate(names)]
    settings = {"added_tokens": added, "model": {"type": "BPE", "vocab": 7}}
    (_hf_whisper(folder) / "tokenizer.json").write_text(json.dumps(settings))
    return folder


def _adapter(folder: Path, **changes) -> Path:
    settings = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
        "base_model_name_or_path": str(folder / "nowhere"),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings | changes))
    stem = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    tensors = {f"{stem}A.weight": np.ones((2, 8)), f"{stem}B.weight": np.ones((8, 2))}
    save_file(tensors, folder / "adapter_model.safetensors")
    trained_part(folder / "ltu_as_audio.safetensors")
    return folder


def _adapted(name: str, says: str = "", **changes) -> None:
    def build(folder: Path) -> Path:
        return _adapter(folder, **changes)

    build.__name__ = f"adapter_{name}"
    hostile("peft", says)(build)


_adapted("base_is_a_url", base_model_name_or_path="http://169.254.169.254/latest/meta-data")
_adapted("base_leads_out", says="etc", base_model_name_or_path="../../../../../../etc")
_adapted("base_of_wrong_type", base_model_name_or_path=["a"])
_adapted("rank_as_text", r="two")
_adapted("targets_of_wrong_type", target_modules=[["q_proj"]])
_adapted("pattern_that_backtracks", target_modules="(a+)+$" + "(b*)*" * 20)
_adapted("loader_with_code", auto_mapping={"base_model_class": "os", "parent_library": "os"})


def _sealed(folder: Path, metadata: dict) -> Path:
    """A checkpoint whose hash of its metadata is the right one."""
    text = json.dumps(metadata)
    (folder / "metadata.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "metadata.json.sha256").write_text(f"{digest}  metadata.json\n")
    return folder


@hostile("orbax")
def _checkpoint_of_wrong_types(folder: Path) -> Path:
    metadata = {
        "ltu_jax": 2, "kind": "ltu-as-checkpoint", "stage": "stage3", "step": 1, "model": 7,
        "parameters": [1], "files": {"../../../../etc/passwd": "00"}, "base": "x",
    }  # fmt: skip
    return _sealed(folder, metadata)


@hostile("orbax")
def _checkpoint_base_leads_out(folder: Path) -> Path:
    metadata = {
        "ltu_jax": 2, "kind": "ltu-as-checkpoint", "stage": "stage3", "step": 1, "model": {},
        "parameters": {}, "files": {},
        "base": {"llama": {"path": "../../../../../../etc", "sha256": "00"}},
    }  # fmt: skip
    return _sealed(folder, metadata)


@hostile("orbax")
def _checkpoint_is_a_list(folder: Path) -> Path:
    (folder / "metadata.json").write_text("[]")
    return folder


def _ours(folder: Path, **changes) -> Path:
    """A weights directory of ours as the base of a trained part; give it as `--llama`."""
    save_file({"llama.norm.scale": np.ones(8, np.float32)}, folder / "params.safetensors")
    settings = {
        "ltu_jax": 1, "kind": "llama", "dtype": "float32", "source": {}, "config": {},
        "sha256": {"params.safetensors": "00"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings | changes))
    return folder


def _our_base(name: str, says: str = "", **changes) -> None:
    def build(folder: Path) -> Path:
        return _ours(folder, **changes)

    build.__name__ = f"our_directory_{name}"
    hostile("base", says)(build)


_our_base("names_a_file_outside", "refused", sha256={"params/../../../secret.safetensors": "00"})
_our_base("names_an_absolute_file", "refused", sha256={"/etc/passwd": "00"})
_our_base("hashes_of_wrong_type", sha256=["params.safetensors"])
_our_base("hash_is_a_number", sha256={"params.safetensors": 7})
_our_base("kind_of_wrong_type", kind=["llama"])
_our_base("config_of_wrong_type", config="llama", sha256={})
_our_base("format_of_the_future", "format", ltu_jax=10**9)


def trained_part(path: Path) -> Path:
    """A stage-1 state dict that is in order as far as its names are looked at."""
    root = "base_model.model.model."
    names = ("audio_proj.1.weight", "audio_encoder.time_tr.attn.query.weight")
    save_file({f"{root}{name}": np.ones((8, 8), np.float32) for name in names}, path)
    return path
