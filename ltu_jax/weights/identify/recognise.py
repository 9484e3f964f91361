"""Which model a set of tensor names and shapes is: the words that `convert info` prints.

Names and shapes are all it looks at, so that it can speak about a 26 GB checkpoint from its header.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ltu_jax.core.errors import UserError, shorten
from ltu_jax.weights.diagnosis import LLAMA_WIDTHS, Shapes, architecture
from ltu_jax.weights.formats import hf_llama, hf_whisper, name_prefixes, official_ltu_as
from ltu_jax.weights.formats.whisper_tokens import ENGLISH_VOCAB
from ltu_jax.weights.store import ADAPTER

# How four spellings of Whisper name: first convolution, token embedding, a block, an MLP in it.
_WHISPER_SPELLINGS = {
    "openai-whisper": (
        "encoder.conv1.weight", "decoder.token_embedding.weight",
        r"{side}\.blocks\.(\d+)\.mlp\.0\.weight",
    ),
    "hf-whisper": (
        "encoder.conv1.weight", "decoder.embed_tokens.weight",
        r"{side}\.layers\.(\d+)\.fc1\.weight",
    ),
    "ct2-whisper": (
        "encoder/conv1/weight", "decoder/embeddings/weight",
        r"{side}/layer_(\d+)/ffn/linear_0/weight",
    ),
}  # fmt: skip
_AUDIO = f"{official_ltu_as.ROOT}model.audio_"


@dataclass(frozen=True, kw_only=True)
class RecognisedModel:
    """What names and shapes tell.

    `family` is the format whose names these are: ltu-as, ltu, lora, whisper-at, hf-llama, gguf,
    openai-whisper, hf-whisper, ct2-whisper, ours; or None.
    """

    family: str | None
    words: str
    stage: str = ""
    complete: bool = True  # False: a trained part that needs base weights
    sizes: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def recognise(shapes: Shapes, *, hint: str = "") -> RecognisedModel:
    """Return the model that has tensors of these names and shapes.

    Args:
        shapes: {name: shape} of a file or of all shards together.
        hint: what people call it (file or folder name), where shapes do not decide.
    """
    shapes = _plain(shapes)
    official = {official_ltu_as.canonical(name): tuple(shape) for name, shape in shapes.items()}
    for attempt in (
        lambda: _ltu(official),
        lambda: _tagger(shapes),
        lambda: _whisper(shapes, hint=hint),
        lambda: _lora(official),
        lambda: _gguf(shapes),
        lambda: _llama(official),
        lambda: _ours(shapes),
    ):
        if (known := attempt()) is not None:
            return known
    other = architecture(shapes)
    if other is not None:
        return RecognisedModel(
            family=None,
            words=f"a {other} model",
            problems=(f"{other} is an architecture that ltu_jax does not have",),
        )
    return RecognisedModel(
        family=None,
        words=f"an unknown model ({len(shapes)} tensors, first names {shorten(shapes)})",
        problems=("its tensor names are of no model that ltu_jax knows",),
    )


def _plain(shapes: Shapes) -> Shapes:
    """Take off what wrappers put into the names, unless that makes two of one."""
    try:
        return name_prefixes.unwrapped(
            shapes, anchors=(*hf_llama.ANCHORS, *hf_whisper.ANCHORS), subject="the file"
        )[0]
    except UserError:
        return shapes


def _depth(pattern: str, names: Iterable[str]) -> int:
    matches = (re.match(pattern, name) for name in names)
    return max((int(match.group(1)) + 1 for match in matches if match), default=0)


def _missing(wanted: Iterable[str], shapes: Shapes) -> tuple[str, ...]:
    lost = sorted(set(wanted) - set(shapes))
    if not lost:
        return ()
    return (f"incomplete: {len(lost)} tensors are missing: {shorten(lost)}",)


def _adapted(shapes: Shapes) -> tuple[int, dict[str, int], list[str]]:
    """Return layers, LoRA sizes, and the LoRA names that these layers and targets have."""
    layers = _depth(rf"{re.escape(official_ltu_as.ROOT)}model\.layers\.(\d+)\.", shapes)
    targets, rank = set(), 0
    for name, shape in shapes.items():
        match = re.search(r"\.(?:self_attn|mlp)\.(\w+)\.lora_A\.default\.weight$", name)
        if match and len(shape) == 2:
            targets.add(hf_llama.projection(match.group(1)))
            rank = shape[0]
    names = [
        f"{official_ltu_as.ROOT}model.layers.{layer}.{target}.lora_{letter}.default.weight"
        for layer in range(min(layers, len(shapes)))
        for target in targets
        for letter in "AB"
    ]
    return layers, {"lora_rank": rank} if rank else {}, names


def _base_names(shapes: Shapes, *, layers: int) -> list[str]:
    biased = f"{official_ltu_as.ROOT}model.layers.0.self_attn.q_proj.bias" in shapes
    return [
        entry.source.replace("{layer}", str(layer))
        for entry in hf_llama.rules(root=official_ltu_as.ROOT)
        if (biased or not entry.source.endswith(".bias")) and "lm_head" not in entry.source
        for layer in range(min(layers, len(shapes)) if entry.layered else 1)
    ]


def _ltu(shapes: Shapes) -> RecognisedModel | None:
    audio = [name for name in shapes if name.startswith(_AUDIO)]
    if not audio:
        return None
    projections = [n for n in audio if re.search(r"audio_proj\.(\d+\.)?weight$", n)]
    width = next((s[0] for n in projections if len(s := shapes[n]) == 2), 0)
    if projections and not any("_tr." in name for name in audio):
        inner = shapes[projections[0]][-1:]
        return RecognisedModel(
            family="ltu",
            words=f"LTU {llama_size(width)} "
            f"(not LTU-AS: no time_tr/layer_tr, audio input {inner[0]})",
            sizes={"hidden_size": width},
            problems=("this is LTU, not LTU-AS; ltu_jax computes LTU-AS only",),
        )
    layers, lora, wanted = _adapted(shapes)
    wanted += [
        e.source for e in official_ltu_as.RULES if e.source.startswith(_AUDIO) and not e.layered
    ]
    complete = f"{official_ltu_as.ROOT}model.embed_tokens.weight" in shapes
    if complete:
        wanted += _base_names(shapes, layers=layers)
    stage = "2 or 3" if lora else "1"
    part = "complete" if complete else "trained part"
    inner = next((s[1] for n in projections if len(s := shapes[n]) == 2), 0)
    return RecognisedModel(
        family="ltu-as",
        words=f"LTU-AS {llama_size(width)}, {part} of stage {stage.replace(' or ', '/')}"
        if not complete
        else f"LTU-AS {llama_size(width)}, complete, stage {stage.replace(' or ', '/')}",
        stage=stage + ("" if lora else " (no LoRA)"),
        complete=complete,
        sizes={"hidden_size": width}
        | ({"num_hidden_layers": layers} if layers else {})
        | {"audio_width": inner}
        | lora,
        problems=_missing(wanted, shapes),
    )


def _tagger(shapes: Shapes) -> RecognisedModel | None:
    block = next((n for n in shapes if re.search(r"(^|\.)time_tr\.attn\.query\.weight$", n)), None)
    if block is None or len(shapes[block]) != 2:
        return None
    prefix, width = block.removesuffix("time_tr.attn.query.weight"), shapes[block][0]
    low = any(re.match(rf"{re.escape(prefix)}down_layer\.", name) for name in shapes)
    heads = [
        shape[0]
        for name, shape in shapes.items()
        if re.match(rf"{re.escape(prefix)}mlp_layer\.\d+\.weight$", name) and len(shape) == 2
    ]
    wanted = [f"{prefix}{side}_tr.mlp.{i}.weight" for side in ("time", "layer") for i in (0, 2)]
    variant = f"low-compute variant ({width}-d)" if low else f"full variant ({width}-d)"
    return RecognisedModel(
        family="whisper-at",
        words=f"Whisper-AT TL-TR, {variant}" + (f", {heads[0]} labels" if heads else ", no head"),
        sizes={"d_model": width} | ({"labels": heads[0]} if heads else {}),
        problems=_missing(wanted, shapes),
    )


def _whisper(shapes: Shapes, *, hint: str) -> RecognisedModel | None:
    plain = {name.removeprefix("model."): tuple(shape) for name, shape in shapes.items()}
    for family, (conv, embedding, block) in _WHISPER_SPELLINGS.items():
        layers = [_depth(block.format(side=side), plain) for side in ("encoder", "decoder")]
        if conv not in plain or len(plain[conv]) != 3 or not any(layers):
            continue
        width, mels = plain[conv][:2]
        vocabulary = plain.get(embedding, (0,))[0]
        sizes = {
            "n_audio_state": width, "n_mels": mels, "n_audio_layer": layers[0],
            "n_text_layer": layers[1], "n_vocab": vocabulary,
        }  # fmt: skip
        return RecognisedModel(
            family=family,
            words=whisper_words(width, *layers, mels=mels, vocabulary=vocabulary, hint=hint),
            sizes=sizes,
            problems=() if vocabulary else ("the decoder's embedding is not there",),
        )
    return None


def _lora(shapes: Shapes) -> RecognisedModel | None:
    if not all(".lora_" in name for name in shapes) or not shapes:
        return None
    layers, lora, wanted = _adapted(shapes)
    width = max((shape[-1] for n, shape in shapes.items() if "q_proj.lora_A" in n), default=0)
    return RecognisedModel(
        family="lora",
        words=f"LoRA of a LLaMA {llama_size(width)}, without audio weights",
        complete=False,
        sizes={"hidden_size": width, "num_hidden_layers": layers} | lora,
        problems=_missing(wanted, shapes),
    )


def _llama(shapes: Shapes) -> RecognisedModel | None:
    first = f"{official_ltu_as.ROOT}model.layers.0."
    embedding = shapes.get(f"{official_ltu_as.ROOT}model.embed_tokens.weight")
    gate = shapes.get(f"{first}mlp.gate_proj.weight")
    layers = _depth(
        rf"{re.escape(official_ltu_as.ROOT)}model\.layers\.(\d+)\.self_attn\.q_proj\.", shapes
    )
    if not layers and embedding is None:
        return None
    if embedding is None or gate is None or len(embedding) != 2 or len(gate) != 2:
        return RecognisedModel(
            family="hf-llama",
            words=f"part of a LLaMA-family model ({len(shapes)} tensors)",
            complete=False,
            problems=("incomplete: a shard of a sharded model, or a damaged save",),
        )
    shape = (embedding[1], layers, gate[0], embedding[0])
    return RecognisedModel(
        family="hf-llama",
        words=llama_words(shape, shapes),
        sizes=llama_sizes(shape),
        problems=_missing(_base_names(shapes, layers=layers), shapes),
    )


def _gguf(shapes: Shapes) -> RecognisedModel | None:
    layers = _depth(r"blk\.(\d+)\.", shapes)
    embedding, gate = shapes.get("token_embd.weight"), shapes.get("blk.0.ffn_gate.weight")
    if not layers:
        return None
    if embedding is None or gate is None or len(embedding) != 2 or len(gate) != 2:
        return RecognisedModel(
            family="gguf",
            words=f"part of a model in GGUF names ({len(shapes)} tensors)",
            complete=False,
            problems=("incomplete: a part of a split GGUF, or not of the LLaMA family",),
        )
    shape = (embedding[1], layers, gate[0], embedding[0])
    return RecognisedModel(
        family="gguf", words=llama_words(shape, shapes), sizes=llama_sizes(shape)
    )


def _ours(shapes: Shapes) -> RecognisedModel | None:
    kinds = {
        "audio_proj.kernel": "LTU-AS",
        "llama.embed_tokens.embedding": "language model",
        "encoder.blocks.attn.query.kernel": "Whisper",
        "tltr.time_tr.attn.query.kernel": "TLTR",
    }
    words = [word for name, word in kinds.items() if name in shapes]
    if not words:
        return None
    return RecognisedModel(
        family="ours",
        words=f"{words[0]} parameters under ltu_jax's own names",
        problems=("only a part of a weights directory: give the directory with its config.json",),
    )


def recognise_ours(kind: str, config: Mapping[str, Any], shapes: Shapes) -> RecognisedModel:
    """Return the same words for a weights directory of ours, from its kind and config.

    Args:
        kind: one of `store.KINDS`.
        config: of that kind; what is missing or odd in it counts as 0.
        shapes: of its parameters.
    """

    def of(settings: object, name: str) -> int:
        value = settings.get(name) if isinstance(settings, Mapping) else None
        return value if type(value) is int else 0

    if kind == "whisper":
        names = ("n_audio_state", "n_audio_layer", "n_text_layer", "n_mels", "n_vocab")
        width, encoder, decoder, mels, vocabulary = (of(config, name) for name in names)
        words = whisper_words(width, encoder, decoder, mels=mels, vocabulary=vocabulary, hint="")
        sizes = {name: of(config, name) for name in names}
        return RecognisedModel(family="ours", words=words, sizes=sizes)
    if kind == "tltr":
        sizes = {"d_model": of(config.get("tltr"), "d_model"), "labels": of(config, "labels")}
        return RecognisedModel(family="ours", words="Whisper-AT tagger", sizes=sizes)
    inner = config.get("llama") if kind in ("ltu-as", ADAPTER) else config
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
    width, layers, middle, vocabulary = (of(inner, name) for name in names)
    sizes = {name: of(inner, name) for name in names}
    if kind in ("ltu-as", ADAPTER):
        stage, whole = "2 or 3" if config.get("lora") else "1 (no LoRA)", kind == "ltu-as"
        words = f"LTU-AS {llama_size(width)}, {'complete' if whole else 'trained part'}"
        return RecognisedModel(family="ours", words=words, stage=stage, sizes=sizes, complete=whole)
    return RecognisedModel(
        family="ours", words=llama_words((width, layers, middle, vocabulary), shapes), sizes=sizes
    )


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
# (width, encoder layers, decoder layers)
_WHISPERS = {
    (384, 4, 4): "tiny",
    (512, 6, 6): "base",
    (768, 12, 12): "small",
    (1024, 24, 24): "medium",
    (1280, 32, 32): "large",
    (1280, 32, 4): "large-v3-turbo",
}


def parameter_count(shapes: Shapes) -> int:
    """Count the numbers that are parameters: all but the rotary buffers."""
    return sum(math.prod(shape) for n, shape in shapes.items() if "rotary_emb.inv_freq" not in n)


def llama_size(width: int) -> str:
    """Return 7B and the like, or the width where no LLaMA has it."""
    return LLAMA_WIDTHS.get(width, f"of width {width}")


def whisper_words(
    width: int, encoder: int, decoder: int, *, mels: int, vocabulary: int, hint: str
) -> str:
    """Name the published Whisper of this width, layers, mel bands and vocabulary, if one is.

    `hint` is what people call it: large-v1 and large-v2 have the same sizes.
    """
    name = _WHISPERS.get((width, encoder, decoder))
    if name is None:
        return f"Whisper of no published size ({width} wide, {encoder} + {decoder} layers)"
    if vocabulary == ENGLISH_VOCAB:
        return f"Whisper {name}.en (English only)"
    if name == "large" and mels == 128:
        return "Whisper large-v3"
    if name == "large":
        match = re.search(r"large-?v([12])", hint)
        why = "by its name; " if match else ""
        version = f"-v{match.group(1)}" if match else ""
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
