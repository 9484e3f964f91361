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
    """A state-dict name with the official prefix and `.default.`, and as old peft named the base.

    peft 0.6 and later call the frozen layer under LoRA `q_proj.base_layer.weight`.
    """
    name = ROOT + name_prefixes.plain(name).removeprefix(ROOT).replace(
        "_proj.base_layer.", "_proj."
    )
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
    what = str(path)
    dicts = (FILE, "model*.safetensors", "pytorch_model*.bin")
    if (path / peft_config.FILE).is_file() and not any(any(path.glob(name)) for name in dicts):
        raise WeightsError(f"{what} is a PEFT adapter directory; import it with `--from peft`")
    file = path / FILE if (path / FILE).is_file() and weights_file is None else path
    found = shards.read_checkpoint(file, chosen=weights_file)
    tensors = canonical_tensors(found, what=what)
    check_audio(tensors, what=what)
    told = export_record.read(file) if file.is_file() else None
    told = told if told is not None and told.kind == "ltu-as" else None
    if told is not None:
        LTUASConfig.from_dict(told.config)  # a record that was changed by hand is told here
    folder = path if path.is_dir() else path.parent
    ours = path.is_dir() or (folder / export_record.FILE).is_file()  # it speaks for what lies in it
    own = ltu_as_base.settings(folder) if ours and (folder / "config.json").is_file() else _NONE
    claims = official_constants.options(audio_layers=audio_layers, lora_alpha=lora_alpha) | {
        f"the record in {file.name}": told.config if told else None,
        f"{folder}/config.json": own[1],
    }
    complete = f"{ROOT}model.embed_tokens.weight" in tensors
    wanted = told.config.get("llama") if told else None
    base = _named_base(base, path=folder, complete=complete, itself=bool(own[1]), wanted=wanted)
    settings, known, files = (
        ltu_as_base.settings(base) if base is not None else (ltu_as_base.ours(wanted), {}, own[2])
    )
    notes: tuple[str, ...] = ()
    held: Tensors = {}
    if complete:
        plain = {name.removeprefix(ROOT): tensor for name, tensor in tensors.items()}
        config = hf_llama.config_from_hf(
            settings, plain, what=f"{base or file} (config for {path.name})"
        )
    else:
        config, held = ltu_as_base.weights(base, what=what)
        notes = lineage.other_base(told.base if told else None, held)
    official_constants.compare_llama(wanted, config, base=base or file, what=what)
    beside = folder / peft_config.FILE
    known = official_constants.agreed(claims | {f"--llama {base}": known}, what=what)
    over = told.source.get(lineage.OVER) if told else None
    source = {"format": "ltu-as", "file": path.name, "complete": complete}
    if base is not None:
        source["base"] = base.name
    return over_base(
        tensors,
        llama_config=config,
        held=held,
        lora=official_constants.lora(
            lora_shape(tensors), known=known.get("lora") or {}, beside=beside, what=what
        ),
        known=known,
        files=files or own[2],
        facts=_facts(told, base, rows=config["vocab_size"]),
        source=source | ({lineage.OVER: over} if over else {}),
        notes=notes,
        what=what,
    )


def _facts(
    told: export_record.ExportRecord | None, base: Path | None, *, rows: int
) -> Mapping[str, Any]:
    """What the record carries of the language model, else what `--llama` says."""
    if told is not None and told.facts:
        return told.facts
    return {} if base is None else ltu_as_base.facts_of(base, rows=rows)


def _named_base(
    base: str | Path | None, *, path: Path, complete: bool, itself: bool, wanted: Any
) -> Path | None:
    """The base as a person names it; None where the export needs none.

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
    llama_config: Mapping[str, Any],
    held: Tensors,
    lora: Mapping[str, Any] | None,
    known: Mapping[str, Any],
    files: Mapping[str, Path],
    facts: Mapping[str, Any],
    source: Mapping[str, Any],
    notes: tuple[str, ...],
    what: str,
) -> Import:
    """The import of canonical tensors and the base parameters that they lack (`held`).

    `known` are LTU-AS settings that shapes do not tell; `facts` those of `facts.FACTS`; `what` is
    how errors call the tensors.

    Raises:
        WeightsError: tensors that were trained over a base of another width, or a TLTR of another
            width than `known` says.
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
    tensors = hf_rope.check_inv_freq(
        tensors, head_dim=llama_config["head_dim"], theta=llama_config["rope_theta"], what=what
    )
    tltr = OFFICIAL_HEADS | {"d_model": d_model} | (known.get("tltr") or {})
    if tltr["d_model"] != d_model:
        raise WeightsError(
            f"{what}: TLTR is {d_model} wide, its config says d_model {tltr['d_model']}"
        )
    audio_layers = known.get("audio_layers", official_constants.WHISPER_DEPTH.get(d_model))
    if audio_layers is None:
        notes += (f"width {d_model} is of no Whisper: any number of audio layers is taken",)
    if not files:
        notes += ("no tokenizer beside the base: give one to answer",)
    return Import(
        config={
            "tltr": tltr,
            "llama": dict(llama_config),
            "lora": None if lora is None else dict(lora),
            "audio_layers": audio_layers,
            "audio_tokens": known.get("audio_tokens", AUDIO_TOKENS),
        },
        rules=RULES,
        tensors=hf_llama.without_tied_output(tensors, llama_config),
        files=files,
        source=source,
        notes=notes + lineage.remarks(source, held or None),
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
    targets = tuple(name for name in peft_config.TARGETS if name in found)
    # a name that is no target of ours is surplus when the table is applied
    return (tensors[found[targets[0]]].shape[0], targets) if targets else None


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
    """The official state dict; a tied output is written out as its copy.

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
