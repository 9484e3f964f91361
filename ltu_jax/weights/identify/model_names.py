"""What the published models are called, by their sizes."""

import math
import re
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]

# (width, layers, width of the MLP, vocabulary): the published models that have these sizes.
_LLAMAS = {
    (4096, 32, 11008, 32000): "LLaMA 7B (LLaMA-1, LLaMA-2 and Vicuna 7B have these sizes)",
    (5120, 40, 13824, 32000): "LLaMA 13B (LLaMA-1, LLaMA-2 and Vicuna 13B have these sizes)",
    (6656, 60, 17920, 32000): "LLaMA 30B",
    (8192, 80, 22016, 32000): "LLaMA 65B",
    (8192, 80, 28672, 32000): "LLaMA-2 70B",
    (4096, 32, 14336, 128256): "LLaMA-3 8B",
    (2048, 16, 8192, 128256): "LLaMA-3.2 1B",
    (3072, 28, 8192, 128256): "LLaMA-3.2 3B",
    (4096, 32, 14336, 32000): "Mistral 7B",
    (4096, 32, 14336, 32768): "Mistral 7B",
    (2048, 22, 5632, 32000): "TinyLlama 1.1B",
    (576, 30, 1536, 49152): "SmolLM2 135M",
    (960, 32, 2560, 49152): "SmolLM2 360M",
    (2048, 24, 8192, 49152): "SmolLM2 1.7B",
    (896, 24, 4864, 151936): "Qwen2 0.5B",
    (1536, 28, 8960, 151936): "Qwen2 1.5B",
    (3584, 28, 18944, 152064): "Qwen2 7B",
}
_LLAMA_SIZES = {4096: "7B", 5120: "13B", 6656: "30B", 8192: "65B"}
# (width, encoder layers, decoder layers)
_WHISPERS = {
    (384, 4, 4): "tiny",
    (512, 6, 6): "base",
    (768, 12, 12): "small",
    (1024, 24, 24): "medium",
    (1280, 32, 32): "large",
    (1280, 32, 4): "large-v3-turbo",
}
_ENGLISH_VOCAB = 51864


def parameter_count(shapes: Shapes) -> int:
    """Count the numbers that are parameters: all but the rotary buffers."""
    return sum(math.prod(shape) for n, shape in shapes.items() if "rotary_emb.inv_freq" not in n)


def llama_size(width: int) -> str:
    """Return 7B and the like, or the width where no LLaMA has it."""
    return _LLAMA_SIZES.get(width, f"of width {width}")


def whisper_words(
    width: int, encoder: int, decoder: int, *, mels: int, vocabulary: int, hint: str
) -> str:
    """Name the published Whisper of this width, layers, mel bands and vocabulary, if one is.

    `hint` is what people call it: large-v1 and large-v2 have the same sizes.
    """
    name = _WHISPERS.get((width, encoder, decoder))
    if name is None:
        return f"Whisper of no published size ({width} wide, {encoder} + {decoder} layers)"
    if vocabulary == _ENGLISH_VOCAB:
        return f"Whisper {name}.en (English only)"
    if name == "large" and mels == 128:
        return "Whisper large-v3"
    if name == "large":
        said = re.search(r"large-?v([12])", hint)
        why = "by its name; " if said else ""
        version = f"-v{said.group(1)}" if said else ""
        return f"Whisper large{version} ({why}large-v1 and large-v2 have the same sizes)"
    return f"Whisper {name} (multilingual)"


def llama_words(shape: tuple[int, int, int, int], shapes: Shapes) -> str:
    """Name the published LLaMA of these sizes (as in `llama_sizes`), or its parameters."""
    count = parameter_count(shapes)
    unit = f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"
    return _LLAMAS.get(shape, f"LLaMA family, {unit} parameters")


def llama_sizes(shape: tuple[int, int, int, int]) -> dict[str, int]:
    """Return width, layers, width of the MLP and vocabulary under their config names."""
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
    return dict(zip(names, shape, strict=True))
