"""Official LTU-AS state dicts, both ways.

Official (PEFT) names look like `base_model.model.model.layers.0.self_attn.q_proj.weight` and, of
LoRA, `...q_proj.lora_A.default.weight`. Accepted besides: without the `base_model.model.` prefix,
without `.default.`, and with the `.base_layer.` of later peft. Written: exactly the official set,
with the persistent `rotary_emb.inv_freq` of every layer.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ltu_jax.weights import (
    adapter_config,
    diagnosis,
    llama,
    ltu_as_base,
    rope,
    shards,
    wrappers,
)
from ltu_jax.weights.rules import (
    LINEAR,
    Import,
    Rule,
    Shapes,
    attention_block,
    dense,
    export,
    foreign_shapes,
    rule,
)
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError, array_tensor

ROOT = "base_model.model."
FILE = "ltu_as.safetensors"  # the state dict in a directory that we export
AUDIO_TOKENS = 25  # of a 10 s window; fixed in the official model
# Width of a Whisper encoder -> its layers: the state dict does not tell how many layers TLTR sees.
WHISPER_DEPTH = {384: 4, 512: 6, 768: 12, 1024: 24, 1280: 32}
OFFICIAL_ALPHA, OFFICIAL_DROPOUT = 16.0, 0.05
OFFICIAL_HEADS = {"time_heads": 1, "layer_heads": 8}
# How LoRA is spelt: as in the model and the official trainer's files, or as peft saves adapters.
Spelling = Literal["default", "peft"]


def _rules() -> tuple[Rule, ...]:
    table = list(llama.rules(root=ROOT))
    for name in adapter_config.TARGETS:
        foreign = f"{ROOT}model.layers.{{layer}}.{llama.projection(name)}"
        ours = f"llama.layers.{llama.projection(name)}"
        table.append(rule(f"{foreign}.lora_A.default.weight", f"{ours}.lora_a", LINEAR))
        table.append(rule(f"{foreign}.lora_B.default.weight", f"{ours}.lora_b", LINEAR))
    for block in ("time_tr", "layer_tr"):
        table += attention_block(f"{ROOT}model.audio_encoder.{block}", f"tltr.{block}")
    table += dense(f"{ROOT}model.audio_proj.1", "audio_proj")
    return tuple(table)


RULES = _rules()


def is_adapter(path: str) -> bool:
    """Whether a parameter of LTU-AS is not part of the base LLaMA."""
    return not path.startswith("llama.") or path.endswith((".lora_a", ".lora_b"))


def canonical(name: str) -> str:
    """A state-dict name with the official prefix and `.default.`, and as old peft named the base.

    peft 0.6 and later call the frozen layer under LoRA `q_proj.base_layer.weight`.
    """
    name = ROOT + wrappers.plain(name).removeprefix(ROOT).replace("_proj.base_layer.", "_proj.")
    for letter in "AB":
        name = name.replace(f".lora_{letter}.weight", f".lora_{letter}.default.weight")
    return name


def canonical_tensors(found: Tensors, *, what: str) -> dict[str, Tensor]:
    """Tensors under their `canonical` names.

    Raises:
        WeightsError: one name in two spellings.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if canonical(name) in tensors:
            raise WeightsError(f"{what}: {name} is there twice, in two spellings")
        tensors[canonical(name)] = tensor
    return tensors


def from_official(
    path: str | Path,
    *,
    base: str | Path,
    audio_layers: int | None = None,
    lora_alpha: float | None = None,
    weights_file: str | None = None,
) -> Import:
    """Open an official LTU-AS state dict: complete, or a trainer checkpoint over a base.

    Args:
        path: .safetensors or .bin file, or a directory with one.
        base: for a complete dict, only where head counts, eps and theta are read: a weights
            directory of ours, a Hugging Face directory, or a config file. For a trainer
            checkpoint (160 names at 7B, 32 from stage 1) the base weights themselves: a weights
            directory of ours or a Hugging Face directory.
        audio_layers: layers of the Whisper encoder; None takes it from `base` where that is LTU-AS,
            else from the TLTR's width, else leaves it open.
        lora_alpha: None takes it from `base` where that is LTU-AS, else from adapter_config.json
            beside the file, else 16.
        weights_file: which weights of a directory to read, see `shards.checkpoint_files`.

    The heads of TLTR are those of `base` where that is LTU-AS, else the official 1 and 8.

    Raises:
        WeightsError: another model, missing or surplus names, sizes of another base.
    """
    path, base = Path(path), Path(base)
    what = str(path)
    dicts = (FILE, "model*.safetensors", "pytorch_model*.bin")
    if (path / adapter_config.FILE).is_file() and not any(any(path.glob(name)) for name in dicts):
        raise WeightsError(f"{what} is a PEFT adapter directory; import it with `--from peft`")
    source = path / FILE if (path / FILE).is_file() and weights_file is None else path
    found = shards.read_checkpoint(source, chosen=weights_file)
    tensors = canonical_tensors(found, what=what)
    check_audio(tensors, what=what)
    settings, known, files = ltu_as_base.settings(base)
    complete = f"{ROOT}model.embed_tokens.weight" in tensors
    held: Tensors = {}
    if complete:
        plain = {name.removeprefix(ROOT): tensor for name, tensor in tensors.items()}
        config = llama.config_from_hf(settings, plain, what=f"{base} (config for {path.name})")
    else:
        config, held = ltu_as_base.weights(base, what=what)
    beside = (path if path.is_dir() else path.parent) / adapter_config.FILE
    return over_base(
        tensors,
        llama_config=config,
        held=held,
        lora=_lora(tensors, beside=beside, known=known.get("lora") or {}, alpha=lora_alpha),
        known=known,
        audio_layers=audio_layers,
        files=files,
        facts=ltu_as_base.facts_of(base, rows=config["vocab_size"]),
        source={"format": "ltu-as", "file": path.name, "complete": complete, "base": base.name},
        notes=(),
        what=what,
    )


def over_base(
    tensors: Tensors,
    *,
    llama_config: Mapping[str, Any],
    held: Tensors,
    lora: Mapping[str, Any] | None,
    known: Mapping[str, Any],
    audio_layers: int | None,
    files: Mapping[str, Path],
    facts: Mapping[str, Any],
    source: Mapping[str, Any],
    notes: tuple[str, ...],
    what: str,
) -> Import:
    """The import of canonical tensors and the base parameters that they lack (`held`).

    `known` are LTU-AS settings that shapes do not tell; `facts` those of `store.FACTS`; `what` is
    how errors call the tensors.

    Raises:
        WeightsError: tensors that were trained over a base of another width.
    """
    width, d_model = tensors[f"{ROOT}model.audio_proj.1.weight"].shape
    hidden = llama_config["hidden_size"]
    if hidden != width:
        embed = "model.embed_tokens.weight"
        cause = diagnosis.likely_cause(wanted={embed: (0, hidden)}, found={embed: (0, width)})
        raise WeightsError(
            f"{what}: audio_proj.1.weight is {[width, d_model]}, the base has hidden size "
            f"{hidden}: {cause}"
        )
    tensors = rope.check_inv_freq(
        tensors, head_dim=llama_config["head_dim"], theta=llama_config["rope_theta"], what=what
    )
    if audio_layers is None:
        audio_layers = known.get("audio_layers", WHISPER_DEPTH.get(d_model))
    if audio_layers is None:
        notes += (f"width {d_model} is of no Whisper: any number of audio layers is taken",)
    if not files:
        notes += ("no tokenizer beside the base: give one to answer",)
    return Import(
        config={
            "tltr": OFFICIAL_HEADS | (known.get("tltr") or {}) | {"d_model": d_model},
            "llama": dict(llama_config),
            "lora": None if lora is None else dict(lora),
            "audio_layers": audio_layers,
            "audio_tokens": known.get("audio_tokens", AUDIO_TOKENS),
        },
        rules=RULES,
        tensors=llama.without_tied_output(tensors, llama_config),
        files=files,
        source=source,
        notes=notes,
        base=held,
        facts=facts,
    )


def check_audio(tensors: Tensors, *, what: str) -> None:
    """Require the projection and TLTR among canonical names.

    Raises:
        WeightsError: they are not there; the message says what the file probably is.
    """
    projection = f"{ROOT}model.audio_proj.1.weight"
    block = f"{ROOT}model.audio_encoder.time_tr.attn.query.weight"
    if projection in tensors and any("time_tr" in name for name in tensors):
        matrices = [projection, *(name for name in tensors if ".lora_" in name)]
        for name in matrices:
            if len(tensors[name].shape) != 2 or 0 in tensors[name].shape:
                raise WeightsError(f"{what}: {name} is {list(tensors[name].shape)}, not a matrix")
        return
    cause = diagnosis.likely_cause(
        wanted={f"{ROOT}model.layers.0.self_attn.q_proj.weight": (), projection: (), block: ()},
        found={name: tensor.shape for name, tensor in tensors.items()},
    )
    raise WeightsError(
        f"{what} is not an LTU-AS state dict: no audio_proj.1.weight or no time_tr among its "
        f"{len(tensors)} names" + (f". Likely cause: {cause}" if cause else "")
    )


def lora_shape(tensors: Tensors) -> tuple[int, tuple[str, ...]] | None:
    """Rank and targets of the LoRA among canonical tensors, None where there is none."""
    pattern = re.compile(r".*\.(\w+)\.lora_A\.default\.weight")
    found = {match.group(1): name for name in tensors if (match := pattern.fullmatch(name))}
    targets = tuple(name for name in adapter_config.TARGETS if name in found)
    # a name that is no target of ours is surplus when the table is applied
    return (tensors[found[targets[0]]].shape[0], targets) if targets else None


def _lora(
    tensors: Tensors, *, beside: Path, known: Mapping[str, Any], alpha: float | None
) -> dict[str, Any] | None:
    """LoRAConfig from the names and shapes; alpha and dropout are not in a state dict."""
    shape = lora_shape(tensors)
    if shape is None:
        return None
    given = adapter_config.read(beside) if beside.is_file() else None
    return {
        "rank": shape[0],
        "alpha": float(alpha or known.get("alpha") or (given.alpha if given else OFFICIAL_ALPHA)),
        "dropout": float(known.get("dropout", given.dropout if given else OFFICIAL_DROPOUT)),
        "targets": list(shape[1]),
    }


def _inv_freq_names(config: Mapping[str, Any]) -> list[str]:
    layers = config["llama"]["num_hidden_layers"]
    return [f"{ROOT}model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(layers)]


def _saved(name: str, *, adapter_only: bool) -> bool:
    """What the official trainer saves: names with 'lora' or 'audio'."""
    return not adapter_only or "lora" in name or "audio" in name


def _spelt(name: str, spelling: Spelling) -> str:
    return name if spelling == "default" else re.sub(r"(\.lora_[AB])\.default\.", r"\1.", name)


def official_shapes(
    config: Mapping[str, Any],
    shapes: Shapes,
    *,
    adapter_only: bool = False,
    spelling: Spelling = "default",
) -> dict[str, tuple[int, ...]]:
    """Official names and shapes of a model of `config` (LTUASConfig dict) and flat `shapes`."""
    result = foreign_shapes(RULES, shapes)
    for name in _inv_freq_names(config):
        result[name] = (config["llama"]["head_dim"] // 2,)
    if config["llama"]["tie_word_embeddings"]:
        result[f"{ROOT}lm_head.weight"] = result[f"{ROOT}model.embed_tokens.weight"]
    return {
        _spelt(name, spelling): shape
        for name, shape in result.items()
        if _saved(name, adapter_only=adapter_only)
    }


def to_official(
    config: Mapping[str, Any],
    params: Tensors,
    *,
    adapter_only: bool = False,
    spelling: Spelling = "default",
) -> dict[str, Tensor]:
    """The official state dict; a tied output is written out as its copy.

    `adapter_only` leaves what the official trainer saves: the names with `lora` or `audio`.
    """
    if adapter_only:
        result = export(RULES, {path: t for path, t in params.items() if is_adapter(path)})
    else:
        result = export(RULES, params)
        if config["llama"]["tie_word_embeddings"]:
            result[f"{ROOT}lm_head.weight"] = params["llama.embed_tokens.embedding"]
        inv_freq = rope.inverse_frequencies(
            head_dim=config["llama"]["head_dim"], theta=config["llama"]["rope_theta"]
        )
        result |= dict.fromkeys(_inv_freq_names(config), array_tensor(inv_freq))
    return {_spelt(name, spelling): tensor for name, tensor in result.items()}
