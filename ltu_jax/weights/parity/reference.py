"""What other implementations compute from the same weights: `transformers` in float32, and numpy.

A LLaMA passes through one layer at a time, so that a 7B model needs the memory of one layer.
Whisper is built whole. The TLTR has no implementation elsewhere: it is written out here in
float64 from its definition (Gong et al., Whisper-AT, 2023), apart from the model's own code.
"""

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from scipy.special import erf
from tqdm import tqdm

from ltu_jax.core.axes import Float, Int
from ltu_jax.weights.files import torch_file
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.tensors import Tensors, WeightsError

_NORM_EPS = 1e-5  # of every LayerNorm of Whisper and TLTR


def libraries() -> tuple[ModuleType, ModuleType]:
    """Return (torch, transformers).

    Raises:
        WeightsError: one of them is not installed.
    """
    torch = torch_file.torch_module("--verify runs the PyTorch reference")
    try:
        import transformers
    except ImportError:
        raise WeightsError(
            "--verify runs the PyTorch reference of transformers: run `pip install transformers`"
        ) from None
    return torch, transformers


def _array(tensors: Tensors, name: str) -> np.ndarray:
    return np.array(tensors[name].read(), np.float32)


def _state(torch: ModuleType, tensors: Tensors, *, prefix: str = "") -> dict[str, Any]:
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): torch.from_numpy(_array(tensors, name)) for name in names}


def _hook(module: Any, kept: dict[str, np.ndarray], name: str) -> None:
    def keep(_: Any, __: Any, output: Any) -> None:
        kept[name] = (output[0] if isinstance(output, tuple) else output).numpy()

    module.register_forward_hook(keep)


def whisper(
    config: Mapping[str, int],
    tensors: Tensors,
    *,
    log_mel: Float[np.ndarray, "B F M"],
    tokens: Int[np.ndarray, "B T"],
) -> dict[str, np.ndarray]:
    """Run every block of transformers' `WhisperModel`.

    Args:
        config: WhisperConfig as a dict.
        tensors: under the names of `hf_whisper.HF_RULES`.
        log_mel: as long as the encoder hears (F = 2 n_audio_ctx), all that transformers takes.
        tokens: of the decoder.

    Returns:
        "encoder.blocks.N" and "encoder.ln_post" [B, F/2, D]; "decoder.blocks.N", "decoder.ln"
        [B, T, D]; "logits" [B, T, V].
    """
    torch, transformers = libraries()
    settings = transformers.WhisperConfig(
        vocab_size=config["n_vocab"],
        num_mel_bins=config["n_mels"],
        d_model=config["n_audio_state"],
        encoder_layers=config["n_audio_layer"],
        encoder_attention_heads=config["n_audio_head"],
        encoder_ffn_dim=4 * config["n_audio_state"],
        decoder_layers=config["n_text_layer"],
        decoder_attention_heads=config["n_text_head"],
        decoder_ffn_dim=4 * config["n_text_state"],
        max_source_positions=config["n_audio_ctx"],
        max_target_positions=config["n_text_ctx"],
        **dict.fromkeys(
            ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0
        ),
    )
    with torch.device("meta"):  # no random weights first
        model = transformers.WhisperModel(settings).eval()
    model.load_state_dict(_state(torch, tensors), strict=True, assign=True)
    kept: dict[str, np.ndarray] = {}
    for side in ("encoder", "decoder"):
        half = getattr(model, side)
        for number, block in enumerate(half.layers):
            _hook(block, kept, f"{side}.blocks.{number}")
        _hook(half.layer_norm, kept, f"{side}.{'ln_post' if side == 'encoder' else 'ln'}")
    with torch.no_grad():
        model(
            input_features=torch.from_numpy(np.array(log_mel.swapaxes(1, 2), np.float32)),
            decoder_input_ids=torch.from_numpy(np.array(tokens, np.int64)),
            use_cache=False,
        )
        table = model.decoder.embed_tokens.weight
        kept["logits"] = (torch.from_numpy(kept["decoder.ln"]) @ table.T).numpy()
    return kept


def llama_model(
    config: Mapping[str, Any],
    tensors: Tensors,
    *,
    embeds: Float[np.ndarray, "B T E"],
    lora: Mapping[str, Any] | None = None,
    adapter: Tensors | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Run transformers' `LlamaForCausalLM` (or Qwen2's) layer by layer, causal, no padding.

    Args:
        config: LlamaConfig as a dict.
        tensors: under Hugging Face names.
        embeds: what enters the first layer, at positions 0, 1, 2 ...
        lora: LoRAConfig as a dict: its branches are added to the linear layers, as PEFT does.
        adapter: `llama.layers.*.lora_a` and `.lora_b`, stacked, where `lora` is given.

    Yields:
        ("llama.layers.N", [B, T, E]) ..., ("llama.norm", [B, T, E]), ("logits", [B, T, V]).
    """
    torch, transformers = libraries()
    depth = config["num_hidden_layers"]
    # embedding and output are done here, so the model needs one layer and no vocabulary
    single = dict(config) | {"num_hidden_layers": 1, "vocab_size": 8}
    settings = hf_llama.hf_config(single, dtype="float32", tokens={})
    kind = settings.pop("model_type")
    made = transformers.AutoConfig.for_model(kind, **settings)
    model = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager")
    body = model.float().eval().model
    layer, norm, body.norm = body.layers[0], body.norm, torch.nn.Identity()
    branches: dict[str, tuple[Any, Any]] = {}
    for name in lora["targets"] if lora else ():
        _add_branch(layer, name, branches, scale=lora["alpha"] / lora["rank"])
    x = torch.from_numpy(np.array(embeds, np.float32))
    with torch.no_grad():
        for number in tqdm(range(depth), desc="reference", unit="layer", disable=None):
            state = _state(torch, tensors, prefix=f"model.layers.{number}.")
            layer.load_state_dict(state, strict=True)
            for name in lora["targets"] if lora else ():
                stem = f"llama.layers.{hf_llama.projection(name)}"
                pair = (adapter[f"{stem}.lora_{part}"].layer(number) for part in "ab")
                branches[name] = tuple(torch.from_numpy(np.array(p, np.float32)) for p in pair)
            x = body(inputs_embeds=x, use_cache=False).last_hidden_state
            yield f"llama.layers.{number}", x.numpy()
        norm.load_state_dict(_state(torch, tensors, prefix="model.norm."), strict=True)
        x = norm(x)
        yield "llama.norm", x.numpy()
        tied = config["tie_word_embeddings"]
        table = _array(tensors, "model.embed_tokens.weight" if tied else "lm_head.weight")
        yield "logits", (x @ torch.from_numpy(table).T).numpy()


def _add_branch(layer: Any, name: str, branches: Mapping[str, Any], *, scale: float) -> None:
    part = layer.self_attn if name in hf_llama.ATTENTION else layer.mlp

    def branch(_: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        a, b = branches[name]
        return output + (inputs[0] @ a) @ b * scale

    getattr(part, name).register_forward_hook(branch)


class ReferenceTLTR:
    """TLTR, tagger and projection in float64, from our flat parameters."""

    def __init__(self, tensors: Tensors, *, time_heads: int, layer_heads: int):
        self._tensors = tensors
        self._time_heads, self._layer_heads = time_heads, layer_heads

    def _at(self, name: str) -> np.ndarray:
        return np.asarray(self._tensors[name].read(), np.float64)

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        y = x @ self._at(f"{name}.kernel")
        return y + self._at(f"{name}.bias") if f"{name}.bias" in self._tensors else y

    def _normed(self, name: str | None, x: np.ndarray) -> np.ndarray:
        y = x - x.mean(-1, keepdims=True)
        y /= np.sqrt((y * y).mean(-1, keepdims=True) + _NORM_EPS)
        return y if name is None else y * self._at(f"{name}.scale") + self._at(f"{name}.bias")

    def _block(self, name: str, x: np.ndarray, heads: int) -> np.ndarray:
        """Run attention without mask, then a GELU MLP, each after a LayerNorm, on x [N, T, D]."""
        h = self._normed(f"{name}.attn_ln", x)
        q, k, v = (
            self._linear(f"{name}.attn.{part}", h).reshape(*x.shape[:2], heads, -1)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("nqhd,nkhd->nhqk", q, k) / q.shape[-1] ** 0.5
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("nhqk,nkhd->nqhd", weights, v).reshape(x.shape)
        x = x + self._linear(f"{name}.attn.out", mixed)
        h = self._linear(f"{name}.mlp.up", self._normed(f"{name}.mlp_ln", x))
        return x + self._linear(f"{name}.mlp.down", h * 0.5 * (1 + erf(h / 2**0.5)))

    def _over_time(self, x: np.ndarray) -> np.ndarray:
        flat = x.reshape(-1, *x.shape[2:])
        return self._block("tltr.time_tr", flat, self._time_heads).reshape(x.shape)

    def audio_tokens(self, features: Float[np.ndarray, "B W A D"]) -> dict[str, np.ndarray]:
        """Return "tltr.time_tr", "tltr.layer_tr", "tltr", "audio_proj" of the features (LTU-AS)."""
        time_tr = self._over_time(np.asarray(features, np.float64))
        by_step = time_tr.swapaxes(1, 2)
        flat = by_step.reshape(-1, *by_step.shape[2:])
        layer_tr = self._block("tltr.layer_tr", flat, self._layer_heads).reshape(by_step.shape)
        tokens = layer_tr.mean(2)
        return {
            "tltr.time_tr": time_tr,
            "tltr.layer_tr": layer_tr,
            "tltr": tokens,
            "audio_proj": self._linear("audio_proj", self._normed(None, tokens)),
        }

    def label_logits(self, features: Float[np.ndarray, "B W A D"]) -> Float[np.ndarray, "B V"]:
        """Return Whisper-AT's logits: the mean over time comes before the block over layers."""
        x = np.asarray(features, np.float64)
        if "down.kernel" in self._tensors:
            x = self._linear("down", self._normed("down.norm", x))
        x = self._block("tltr.layer_tr", self._over_time(x).mean(2), self._layer_heads).mean(1)
        return self._linear("label_head", self._normed("label_head.norm", x))
