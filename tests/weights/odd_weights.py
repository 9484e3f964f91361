"""Folders and files as people have them: a small random model, and one thing about it changed."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import tiny_models as tiny
import torch
import transformers
from gguf import GGUFWriter
from safetensors.torch import save_file

from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.weights.formats import gguf_llama
from ltu_jax.weights.name_tables import export
from ltu_jax.weights.store import load_weights
from ltu_jax.weights.tensors import as_tensors

SIZES = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5,
)  # fmt: skip
FAMILIES = {
    "llama": transformers.LlamaConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
}
SPECIALS = ("<unk>", "<s>", "</s>")
IDS = np.random.default_rng(1).integers(0, 300, (2, 20))


@functools.lru_cache
def model(rows: int = 320, family: str = "llama"):
    """A random model of transformers; nobody may change it."""
    torch.manual_seed(0)
    settings = FAMILIES[family](**SIZES, vocab_size=rows)
    made = transformers.AutoModelForCausalLM.from_config(settings).eval()
    for value in made.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return made


def settings_of(rows: int = 320, family: str = "llama", **changes) -> dict:
    """A config.json as transformers 4 wrote it; None takes a key out, "null" sets it to null."""
    found = {
        "architectures": [f"{family.title()}ForCausalLM"], "model_type": family,
        "vocab_size": rows, "hidden_act": "silu", "rope_theta": 10000.0, "bos_token_id": 1,
        "eos_token_id": 2, "tie_word_embeddings": False, **SIZES,
    }  # fmt: skip
    if family == "mistral":
        found["sliding_window"] = None
    found |= {key: value for key, value in changes.items() if value is not None}
    found = {key: None if value == "null" else value for key, value in found.items()}
    return {key: value for key, value in found.items() if changes.get(key, 0) is not None}


def state_of(rows: int = 320, family: str = "llama") -> dict[str, torch.Tensor]:
    """A copy of the model's state dict."""
    return {name: value.clone() for name, value in model(rows, family).state_dict().items()}


def write(folder: Path, settings: dict, state: dict, *, files: dict | None = None) -> Path:
    """A Hugging Face directory; `files` are texts, bytes, or objects to write as JSON."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    if state:
        save_file(
            {n: v.clone().contiguous() for n, v in state.items()}, folder / "model.safetensors"
        )
    for name, content in (files or {}).items():
        data = content if isinstance(content, bytes | str) else json.dumps(content)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


@functools.lru_cache
def byte_level(*, size: int = 300) -> str:
    """A tokenizer.json of `size` tokens: three special ones, all bytes, and merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIALS), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    text = "hello world, hello dogs and 1234 cats; the dog's barking, and a speaker says nothing"
    made.train_from_iterator([text] * 5, trainer)
    assert made.get_vocab_size() == size
    return made.to_str()


FAST = {"bos_token": "<s>", "eos_token": "</s>"}


@functools.lru_cache
def _forward(config: LlamaConfig):
    return jax.jit(Llama.functional(config).pure(Llama.__call__))


def our_logits(folder: Path, ids: np.ndarray = IDS) -> np.ndarray:
    """Logits of a weights directory."""
    held = load_weights(folder, kind="llama", dtype=np.float32)
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    text = TextBatch(input_ids=ids, segment_ids=np.ones_like(ids), positions=positions)
    return np.asarray(_forward(LlamaConfig.from_dict(held.config))(dict(held.params), text))


def their_logits(made, ids: np.ndarray = IDS) -> np.ndarray:
    """Logits of a model of transformers."""
    with torch.no_grad():
        return made(torch.from_numpy(ids)).logits.numpy()


def write_gguf(
    file: Path, *, family: str = "llama", rows: int = 300, tokens: list[str] | None = None,
    merges: list[str] | None = None, pre: str | None = "llama-bpe", fields: dict | None = None,
    tensors: dict | None = None,
) -> Path:  # fmt: skip
    """A float32 GGUF with the byte-level tokenizer, as llama.cpp's converter lays it out."""
    config = tiny.llama_config(
        vocab_size=rows, num_hidden_layers=2, attention_bias=family == "qwen2", rope_theta=10000.0
    )
    writer = GGUFWriter(str(file), family)
    writer.add_block_count(2)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    held = json.loads(byte_level())["model"]
    tokens = tokens or sorted(held["vocab"], key=held["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in tokens])
    pairs = [m if isinstance(m, str) else " ".join(m) for m in held["merges"]]
    if merges != []:
        writer.add_token_merges(merges or pairs)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in (fields or {}).items():
        add = {bool: writer.add_bool, float: writer.add_float32, str: writer.add_string}
        add.get(type(value), writer.add_uint32)(f"{family}.{key}", value)
    rules = gguf_llama.rules(heads=4, kv_heads=2, permuted=family == "llama")
    found = export(rules, as_tensors(tiny.random_params(Llama.functional(config))))
    for name, value in (tiny.numbers(found) | (tensors or {})).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
