"""Official LTU-AS state dicts, both ways.

Official (PEFT) names look like `base_model.model.model.layers.0.self_attn.q_proj.weight` and, of
LoRA, `...q_proj.lora_A.default.weight`. Accepted besides: without the `base_model.model.` prefix,
without `.default.`, and with the `.base_layer.` of later peft. Written: exactly the official set,
with the persistent `rotary_emb.inv_freq` of every layer.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.weights import diagnosis, export_record, lineage
from ltu_jax.weights.files import shards
from ltu_jax.weights.formats import (
    hf_llama,
    hf_rope,
    ltu_as_base,
    name_prefixes,
    official_constants,
    peft_config,
)
from ltu_jax.weights.formats.ltu_as_base import BaseModel
from ltu_jax.weights.formats.official_constants import AUDIO_TOKENS, OFFICIAL_HEADS
from ltu_jax.weights.name_tables import (
    LINEAR,
    Import,
    NameRule,
    attention_block,
    dense,
    export,
    rule,
)
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError, array_tensor

ROOT = "base_model.model."
FILE = "ltu_as.safetensors"  # the state dict in a directory that we export
# How LoRA is spelt: as in the model and the official trainer's files, or as peft saves adapters.
Spelling = Literal["default", "peft"]


def _rules() -> tuple[NameRule, ...]:
    table = list(hf_llama.rules(root=ROOT))
    for name in peft_config.TARGETS:
        foreign = f"{ROOT}model.layers.{{layer}}.{hf_llama.projection(name)}"
        ours = f"llama.layers.{hf_llama.projection(name)}"
        table.append(rule(f"{foreign}.lora_A.default.weight", f"{ours}.lora_a", LINEAR))
        table.append(rule(f"{foreign}.lora_B.default.weight", f"{ours}.lora_b", LINEAR))
    for block in ("time_tr", "layer_tr"):
        table += attention_block(f"{ROOT}model.audio_encoder.{block}", f"tltr.{block}")
    table += dense(f"{ROOT}model.audio_proj.1", "audio_proj")
    return tuple(table)


RULES = _rules()
_NONE: tuple[dict[str, Any], dict[str, Any], dict[str, Path]] = ({}, {}, {})


def canonical(name: str) -> str:
    """Return a name with the official prefix and `.default.`, the base named as by old peft.

    peft 0.6 and later call the frozen layer under LoRA `q_proj.base_layer.weight`.
    """
    name = ROOT + name_prefixes.plain(name).removeprefix(ROOT).replace(
        "_proj.base_layer.", "_proj."
    )
    for letter in "AB":
        name = name.replace(f".lora_{letter}.weight", f".lora_{letter}.default.weight")
    return name


def canonical_tensors(given: Tensors, *, subject: str) -> dict[str, Tensor]:
    """Return tensors under their `canonical` names.

    Raises:
        WeightsError: one name in two spellings.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in given.items():
        if canonical(name) in tensors:
            raise WeightsError(f"{subject}: {name} is there twice, in two spellings")
        tensors[canonical(name)] = tensor
    return tensors


def from_official(
    path: str | Path,
    *,
    base: str | Path | None = None,
    audio_layers: int | None = None,
    lora_alpha: float | None = None,
    weights_file: str | None = None,
) -> Import:
    """Open an official LTU-AS state dict: complete, or a trainer checkpoint over a base.

    Args:
        path: .safetensors or .bin file, or a directory with one.
        base: for a complete dict, only where head counts, eps and theta are read: a weights
            directory of ours, a Hugging Face directory, or a config file; an export of ours tells
            them itself. For a trainer checkpoint (160 names at 7B, 32 from stage 1) the base
            weights themselves: a weights directory of ours or a Hugging Face directory.
        audio_layers: layers of the Whisper encoder; None takes it from the record of our export,
            from `base` where that is LTU-AS, else from the TLTR's width, else leaves it open.
        lora_alpha: None takes it from the record, from `base` where that is LTU-AS, from
            adapter_config.json beside the file, else 16 for the official LoRA and no other.
        weights_file: which weights of a directory to read, see `shards.checkpoint_files`.

    The heads of TLTR are told in the same way, else the official 1 and 8. Whoever speaks must agree
    with the others (see `official_constants`).

    Raises:
        WeightsError: another model, missing or surplus names, sizes of another base, settings that
            contradict each other.
    """
    path = Path(path)
    subject, folder = str(path), path if path.is_dir() else path.parent
    _refuse_peft(path)
    file = path / FILE if (path / FILE).is_file() and weights_file is None else path
    tensors = canonical_tensors(shards.read_checkpoint(file, chosen=weights_file), subject=subject)
    check_audio(tensors, subject=subject)
    told = _record(file)
    ours = path.is_dir() or (folder / export_record.FILE).is_file()  # it speaks for what lies in it
    own = ltu_as_base.settings(folder) if ours and (folder / "config.json").is_file() else _NONE
    complete = f"{ROOT}model.embed_tokens.weight" in tensors
    wanted = told.config.get("llama") if told else None
    named = _named_base(base, path=folder, complete=complete, itself=bool(own[1]), wanted=wanted)
    settings, known, files = (
        (ltu_as_base.ours(wanted), {}, own[2]) if named is None else ltu_as_base.settings(named)
    )
    if complete:
        config_of = f"{named or file} (config for {path.name})"
        language = _inside(
            tensors, settings, named=named, facts=told.facts if told else None, subject=config_of
        )
        notes: tuple[str, ...] = ()
    else:
        language = ltu_as_base.opened(named, subject=subject)
        if told is not None and told.facts:
            language = replace(language, facts=told.facts)
        notes = lineage.other_base(told.base if told else None, language.held)
    official_constants.compare_llama(wanted, language.config, base=named or file, subject=subject)
    claims = official_constants.options(audio_layers=audio_layers, lora_alpha=lora_alpha) | {
        f"the record in {file.name}": told.config if told else None,
        f"{folder}/config.json": own[1],
        f"--llama {named}": known,
    }
    known = official_constants.agreed(claims, subject=subject)
    source = {"format": "ltu-as", "file": path.name, "complete": complete}
    if named is not None:
        source["base"] = named.name
    return over_base(
        tensors,
        base=replace(language, files=files or own[2]),
        lora=official_constants.lora(
            lora_shape(tensors),
            known=known.get("lora") or {},
            beside=folder / peft_config.FILE,
            subject=subject,
        ),
        known=known,
        source=source
        | ({} if named is None else {"base": named.name})
        | lineage.carried(told.source if told else None),
        notes=notes,
        subject=subject,
    )


def _refuse_peft(path: Path) -> None:
    dicts = (FILE, "model*.safetensors", "pytorch_model*.bin")
    if (path / peft_config.FILE).is_file() and not any(any(path.glob(name)) for name in dicts):
        raise WeightsError(f"{path} is a PEFT adapter directory; import it with `--from peft`")


def _record(file: Path) -> export_record.ExportRecord | None:
    """Return what the file says of itself as an export of ours."""
    told = export_record.read(file) if file.is_file() else None
    if told is None or told.kind != "ltu-as":
        return None
    LTUASConfig.from_dict(told.config)  # a record that was changed by hand is told here
    return told


def _inside(
    tensors: Tensors,
    settings: Mapping[str, Any],
    *,
    named: Path | None,
    facts: Mapping[str, Any] | None,
    subject: str,
) -> BaseModel:
    """Return the language model inside a complete state dict; `facts` are what its record says."""
    plain = {name.removeprefix(ROOT): tensor for name, tensor in tensors.items()}
    config = hf_llama.config_from_hf(settings, plain, subject=subject)
    if not facts and named is not None:
        facts = ltu_as_base.facts_of(named, rows=config["vocab_size"])
    return BaseModel(config=config, held={}, files={}, facts=facts or {})


def _named_base(
    base: str | Path | None, *, path: Path, complete: bool, itself: bool, wanted: Any
) -> Path | None:
    """Return the base that a person names; None where the export needs none.

    Raises:
        WeightsError: none was named and one is needed.
    """
    if base is not None:
        return Path(base)
    if not complete:
        raise WeightsError(
            f"{path} holds only the trained part (TLTR, projection, LoRA) and needs --llama: a "
            "directory with the weights of the base LLaMA"
        )
    if isinstance(wanted, Mapping):
        return None
    if itself:
        return path  # a folder that we exported before records were written
    raise WeightsError(
        f"{path} needs --llama: no state dict says head counts, eps and theta of its language "
        "model; give the config.json or the directory of the base LLaMA"
    )


def over_base(
    tensors: Tensors,
    *,
    base: BaseModel,
    lora: Mapping[str, Any] | None,
    known: Mapping[str, Any],
    source: Mapping[str, Any],
    notes: tuple[str, ...],
    subject: str,
) -> Import:
    """Return the import of canonical tensors and the base parameters that they lack.

    Args:
        tensors: under canonical names.
        base: the language model.
        lora: LoRAConfig as a dict, None where there is none.
        known: LTU-AS settings that shapes do not tell.
        source: what the weights directory keeps of where they come from.
        notes: lines for the summary.
        subject: how errors call the tensors.

    Raises:
        WeightsError: tensors that were trained over a base of another width, or a TLTR of another
            width than `known` says.
    """
    width, d_model = tensors[f"{ROOT}model.audio_proj.1.weight"].shape
    hidden = base.config["hidden_size"]
    if hidden != width:
        embed = "model.embed_tokens.weight"
        cause = diagnosis.likely_cause(wanted={embed: (0, hidden)}, found={embed: (0, width)})
        raise WeightsError(
            f"{subject}: audio_proj.1.weight is {[width, d_model]}, the base has hidden size "
            f"{hidden}: {cause}"
        )
    tensors = hf_rope.check_inv_freq(
        tensors, head_dim=base.config["head_dim"], theta=base.config["rope_theta"], subject=subject
    )
    tltr = OFFICIAL_HEADS | {"d_model": d_model} | (known.get("tltr") or {})
    if tltr["d_model"] != d_model:
        raise WeightsError(
            f"{subject}: TLTR is {d_model} wide, its config says d_model {tltr['d_model']}"
        )
    audio_layers = known.get("audio_layers", official_constants.WHISPER_DEPTH.get(d_model))
    if audio_layers is None:
        notes += (f"width {d_model} is of no Whisper: any number of audio layers is taken",)
    if not base.files:
        notes += ("no tokenizer beside the base: give one to answer",)
    return Import(
        config={
            "tltr": tltr,
            "llama": dict(base.config),
            "lora": None if lora is None else dict(lora),
            "audio_layers": audio_layers,
            "audio_tokens": known.get("audio_tokens", AUDIO_TOKENS),
        },
        rules=RULES,
        tensors=hf_llama.without_tied_output(tensors, base.config),
        files=base.files,
        source=source,
        notes=notes + lineage.remarks(source, base.held or None),
        base=base.held,
        facts=base.facts,
    )


def check_audio(tensors: Tensors, *, subject: str) -> None:
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
                raise WeightsError(
                    f"{subject}: {name} is {list(tensors[name].shape)}, not a matrix"
                )
        return
    cause = diagnosis.likely_cause(
        wanted={f"{ROOT}model.layers.0.self_attn.q_proj.weight": (), projection: (), block: ()},
        found={name: tensor.shape for name, tensor in tensors.items()},
    )
    raise WeightsError(
        f"{subject} is not an LTU-AS state dict: no audio_proj.1.weight or no time_tr among its "
        f"{len(tensors)} names" + (f". Likely cause: {cause}" if cause else "")
    )


def lora_shape(tensors: Tensors) -> tuple[int, tuple[str, ...]] | None:
    """Return rank and targets of the LoRA among canonical tensors, None where there is none."""
    pattern = re.compile(r".*\.(\w+)\.lora_A\.default\.weight")
    by_layer = {match.group(1): name for name in tensors if (match := pattern.fullmatch(name))}
    targets = tuple(name for name in peft_config.TARGETS if name in by_layer)
    # a name that is no target of ours is surplus when the table is applied
    return (tensors[by_layer[targets[0]]].shape[0], targets) if targets else None


def _inv_freq_names(config: Mapping[str, Any]) -> list[str]:
    layers = config["llama"]["num_hidden_layers"]
    return [f"{ROOT}model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(layers)]


def _spelt(name: str, spelling: Spelling) -> str:
    return name if spelling == "default" else re.sub(r"(\.lora_[AB])\.default\.", r"\1.", name)


def to_official(
    config: Mapping[str, Any],
    params: Tensors,
    *,
    adapter_only: bool = False,
    spelling: Spelling = "default",
) -> dict[str, Tensor]:
    """Return the official state dict; a tied output is written out as its copy.

    `adapter_only` leaves what the official trainer saves: the names with `lora` or `audio`.
    """
    if adapter_only:
        result = export(RULES, {path: t for path, t in params.items() if lineage.is_adapter(path)})
    else:
        result = export(RULES, params)
        if config["llama"]["tie_word_embeddings"]:
            result[f"{ROOT}lm_head.weight"] = params["llama.embed_tokens.embedding"]
        inv_freq = hf_rope.inverse_frequencies(
            head_dim=config["llama"]["head_dim"], theta=config["llama"]["rope_theta"]
        )
        result |= dict.fromkeys(_inv_freq_names(config), array_tensor(inv_freq))
    return {_spelt(name, spelling): tensor for name, tensor in result.items()}


def merge_lora(config: Mapping[str, Any], params: Tensors) -> dict[str, Tensor]:
    """Return the plain LLaMA inside LTU-AS parameters, LoRA added to its kernels when read.

    W + A B * alpha / rank, computed in float32, layer by layer, and rounded to the dtype of W.
    """
    lora = config.get("lora")
    scale = lora["alpha"] / lora["rank"] if lora else 0.0
    result = {path: tensor for path, tensor in params.items() if not lineage.is_adapter(path)}
    for path, kernel in result.items():
        stem = path.removesuffix(".kernel")
        if f"{stem}.lora_a" in params:
            result[path] = _with_lora(
                kernel, a=params[f"{stem}.lora_a"], b=params[f"{stem}.lora_b"], scale=scale
            )
    return result


def _with_lora(kernel: Tensor, *, a: Tensor, b: Tensor, scale: float) -> Tensor:
    def rows(start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *kernel.shape[1:]), kernel.dtype)
        for layer in range(start, stop):
            low, high = a.layer(layer).astype(np.float32), b.layer(layer).astype(np.float32)
            out[layer - start] = kernel.layer(layer).astype(np.float32) + low @ high * scale
        return out

    return Tensor(
        shape=kernel.shape,
        dtype=kernel.dtype,
        read=lambda: rows(0, kernel.shape[0]),
        rows=rows,
    )
