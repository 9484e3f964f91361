"""Official LTU-AS state dicts, both ways, and the merge of LoRA into a plain language model.

Official (PEFT) names look like `base_model.model.model.layers.0.self_attn.q_proj.weight` and, of
LoRA, `...q_proj.lora_A.default.weight`. Accepted besides: without the `base_model.model.` prefix,
and without `.default.`. Written: exactly the official set, with the persistent
`rotary_emb.inv_freq` of every layer.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.core.files import read_json
from ltu_jax.weights import io, llama, store
from ltu_jax.weights.io import Tensor, Tensors, WeightsError
from ltu_jax.weights.rules import (
    LINEAR,
    Import,
    Rule,
    Shapes,
    dense,
    export,
    foreign_shapes,
    likely_cause,
    norm,
    rule,
)

ROOT = "base_model.model."
FILE = "ltu_as.safetensors"  # the state dict in a directory that we export
AUDIO_TOKENS = 25  # of a 10 s window; fixed in the official model
# Width of a Whisper encoder -> its layers: the state dict does not tell how many layers TLTR sees.
WHISPER_DEPTH = {384: 4, 512: 6, 768: 12, 1024: 24, 1280: 32}
OFFICIAL_ALPHA, OFFICIAL_DROPOUT = 16.0, 0.05
OFFICIAL_HEADS = {"time_heads": 1, "layer_heads": 8}


def _rules() -> tuple[Rule, ...]:
    table = list(llama.rules(root=ROOT))
    for name in (*llama.ATTENTION, *llama.MLP):
        foreign = f"{ROOT}model.layers.{{layer}}.{llama.projection(name)}"
        ours = f"llama.layers.{llama.projection(name)}"
        table.append(rule(f"{foreign}.lora_A.default.weight", f"{ours}.lora_a", LINEAR))
        table.append(rule(f"{foreign}.lora_B.default.weight", f"{ours}.lora_b", LINEAR))
    for block in ("time_tr", "layer_tr"):
        foreign, ours = f"{ROOT}model.audio_encoder.{block}", f"tltr.{block}"
        for part in ("query", "key", "value", "out"):
            table += dense(f"{foreign}.attn.{part}", f"{ours}.attn.{part}", bias=part != "key")
        table += norm(f"{foreign}.attn_ln", f"{ours}.attn_ln")
        table += dense(f"{foreign}.mlp.0", f"{ours}.mlp.up")
        table += dense(f"{foreign}.mlp.2", f"{ours}.mlp.down")
        table += norm(f"{foreign}.mlp_ln", f"{ours}.mlp_ln")
    table += dense(f"{ROOT}model.audio_proj.1", "audio_proj")
    return tuple(table)


RULES = _rules()


def is_adapter(path: str) -> bool:
    """Whether a parameter of LTU-AS is not part of the base LLaMA."""
    return not path.startswith("llama.") or path.endswith((".lora_a", ".lora_b"))


def canonical(name: str) -> str:
    """A state-dict name with the official prefix and `.default.`."""
    name = ROOT + name.removeprefix(ROOT)
    for letter in "AB":
        name = name.replace(f".lora_{letter}.weight", f".lora_{letter}.default.weight")
    return name


def _read(path: Path) -> dict[str, Tensor]:
    found = io.read_checkpoint(path / FILE if (path / FILE).is_file() else path)
    tensors: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if canonical(name) in tensors:
            raise WeightsError(f"{path}: {name} is there twice, with and without its prefix")
        tensors[canonical(name)] = tensor
    return tensors


def from_official(
    path: str | Path,
    *,
    base: str | Path,
    audio_layers: int | None = None,
    lora_alpha: float | None = None,
) -> Import:
    """Open an official LTU-AS state dict: complete, or a trainer checkpoint over a base.

    Args:
        path: .safetensors or .bin file, or a directory with one.
        base: for a complete dict, only where head counts, eps and theta are read: a weights
            directory of ours, a Hugging Face directory, or a config file. For a trainer
            checkpoint (160 names at 7B, 32 from stage 1) the base weights themselves.
        audio_layers: layers of the Whisper encoder; None takes it from `base` where that is LTU-AS,
            else from the TLTR's width, else leaves it open.
        lora_alpha: None takes it from `base` where that is LTU-AS, else from adapter_config.json
            beside the file, else 16.

    The heads of TLTR are those of `base` where that is LTU-AS, else the official 1 and 8.

    Raises:
        WeightsError: another model, missing or surplus names, sizes of another base.
    """
    path, base = Path(path), Path(base)
    tensors = _read(path)
    what = str(path)
    projection = tensors.get(f"{ROOT}model.audio_proj.1.weight")
    if projection is None or not any("time_tr" in name for name in tensors):
        cause = likely_cause(
            wanted={f"{ROOT}model.layers.0.self_attn.q_proj.weight": ()},
            found={name: tensor.shape for name, tensor in tensors.items()},
        )
        raise WeightsError(
            f"{what} is not an LTU-AS state dict: no audio_proj.1.weight or no time_tr among its "
            f"{len(tensors)} names" + (f". Likely cause: {cause}" if cause else "")
        )
    width, d_model = projection.shape
    complete = f"{ROOT}model.embed_tokens.weight" in tensors
    settings, known, files = _settings(base)
    if complete:
        plain = {name.removeprefix(ROOT): tensor for name, tensor in tensors.items()}
        config, notes = llama.config_from_hf(
            settings, plain, what=f"{base} (config for {path.name})"
        )
        held: Mapping[str, np.ndarray] = {}
    else:
        opened = _base_weights(base, what=what)
        config, held, notes = opened.config, opened.params, ()
        if config["hidden_size"] != width:
            embed = "model.embed_tokens.weight"
            raise WeightsError(
                f"{what}: audio_proj.1.weight is {[width, d_model]}, the base {base} has hidden "
                f"size {config['hidden_size']}: "
                + likely_cause(
                    wanted={embed: (0, config["hidden_size"])}, found={embed: (0, width)}
                )
            )
    tensors = llama.check_inv_freq(
        tensors, head_dim=config["head_dim"], theta=config["rope_theta"], what=what
    )
    if audio_layers is None:
        audio_layers = known.get("audio_layers", WHISPER_DEPTH.get(d_model))
    if audio_layers is None:
        notes += (f"width {d_model} is of no Whisper: any number of audio layers is taken",)
    return Import(
        config={
            "tltr": OFFICIAL_HEADS | (known.get("tltr") or {}) | {"d_model": d_model},
            "llama": dict(config),
            "lora": _lora(tensors, path=path, known=known.get("lora") or {}, alpha=lora_alpha),
            "audio_layers": audio_layers,
            "audio_tokens": AUDIO_TOKENS,
        },
        rules=RULES,
        tensors=llama.without_tied_output(tensors, config),
        files=files,
        source={"format": "ltu-as", "file": path.name, "complete": complete, "base": base.name},
        notes=notes if files else (*notes, "no tokenizer beside the base: give one to answer"),
        base=held,
    )


def _lora(
    tensors: Tensors, *, path: Path, known: Mapping[str, Any], alpha: float | None
) -> dict[str, Any] | None:
    """LoRAConfig from the names and shapes; alpha and dropout are not in a state dict."""

    def name(target: str) -> str:
        return f"{ROOT}model.layers.0.{llama.projection(target)}.lora_A.default.weight"

    targets = [t for t in (*llama.ATTENTION, *llama.MLP) if name(t) in tensors]
    if not targets:
        return None
    beside = (path if path.is_dir() else path.parent) / "adapter_config.json"
    settings = read_json(beside) if beside.is_file() else {}
    return {
        "rank": tensors[name(targets[0])].shape[0],
        "alpha": float(alpha or known.get("alpha") or settings.get("lora_alpha", OFFICIAL_ALPHA)),
        "dropout": float(known.get("dropout", settings.get("lora_dropout", OFFICIAL_DROPOUT))),
        "targets": targets,
    }


def _settings(base: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Path]]:
    """What `--llama` names: LLaMA settings, LTU-AS settings it may know, tokenizer files."""
    if not base.exists():
        raise WeightsError(f"--llama {base} does not exist; give a config.json or a directory")
    file = base / "config.json" if base.is_dir() else base
    settings = read_json(file)
    if not isinstance(settings, dict):
        raise WeightsError(f"--llama {file} is not a JSON object")
    folder = base if base.is_dir() else base.parent
    if "ltu_jax" in settings:
        settings = settings["config"]
    known = settings.get("ltu_as", {})  # in a directory that we exported
    if isinstance(settings.get("llama"), dict):  # an LTUASConfig
        settings, known = settings["llama"], settings
    return (
        {key: value for key, value in settings.items() if value is not None},
        {key: value for key, value in known.items() if value is not None},
        llama.tokenizer_files(folder),
    )


def _base_weights(base: Path, *, what: str) -> store.Weights:
    if store.is_weights_dir(base):
        return store.load_weights(base, kind="llama")
    raise WeightsError(
        f"{what} holds only the trained part (TLTR, projection, LoRA), so --llama must be a "
        f"weights directory with the base LLaMA, and {base} is not one; make it with "
        "`python -m ltu_jax.convert --from hf-llama --weights VICUNA_DIR --out DIR`"
    )


def _inv_freq_names(config: Mapping[str, Any]) -> list[str]:
    layers = config["llama"]["num_hidden_layers"]
    return [f"{ROOT}model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(layers)]


def _adapter_name(name: str) -> bool:
    """What the official trainer saves: names with 'lora' or 'audio'."""
    return "lora" in name or "audio" in name


def official_shapes(
    config: Mapping[str, Any], shapes: Shapes, *, adapter_only: bool = False
) -> dict[str, tuple[int, ...]]:
    """Official names and shapes of a model of `config` (LTUASConfig dict) and flat `shapes`."""
    result = foreign_shapes(RULES, shapes)
    for name in _inv_freq_names(config):
        result[name] = (config["llama"]["head_dim"] // 2,)
    if config["llama"]["tie_word_embeddings"]:
        result[f"{ROOT}lm_head.weight"] = result[f"{ROOT}model.embed_tokens.weight"]
    return {n: s for n, s in result.items() if not adapter_only or _adapter_name(n)}


def to_official(
    config: Mapping[str, Any],
    params: Mapping[str, np.ndarray],
    shapes: Shapes,
    *,
    adapter_only: bool = False,
) -> Iterator[tuple[str, np.ndarray]]:
    """The official state dict, tensor by tensor; a tied output is written out as its copy.

    `adapter_only` leaves what the official trainer saves: the names with `lora` or `audio`.
    """
    if adapter_only:
        shapes = {path: shape for path, shape in shapes.items() if is_adapter(path)}
    yield from export(RULES, params, shapes)
    if adapter_only:
        return
    if config["llama"]["tie_word_embeddings"]:
        yield f"{ROOT}lm_head.weight", np.asarray(params["llama.embed_tokens.embedding"])
    inv_freq = llama.inverse_frequencies(
        head_dim=config["llama"]["head_dim"], theta=config["llama"]["rope_theta"]
    )
    for name in _inv_freq_names(config):
        yield name, inv_freq


class Merged(Mapping[str, np.ndarray]):
    """The plain LLaMA inside LTU-AS parameters, LoRA added to its kernels when they are read.

    W + A B * alpha / rank, computed in float32 and returned in the dtype of W.
    """

    def __init__(self, config: Mapping[str, Any], params: Mapping[str, np.ndarray]):
        lora = config.get("lora")
        self._scale = lora["alpha"] / lora["rank"] if lora else 0.0
        self._params = params
        self._paths = [path for path in params if not is_adapter(path)]

    def __getitem__(self, path: str) -> np.ndarray:
        kernel = np.asarray(self._params[path])
        stem = path.removesuffix(".kernel")
        if f"{stem}.lora_a" not in self._params:
            return kernel
        a = np.asarray(self._params[f"{stem}.lora_a"], np.float32)
        b = np.asarray(self._params[f"{stem}.lora_b"], np.float32)
        merged = np.empty(kernel.shape, kernel.dtype)
        for layer in range(kernel.shape[0]):
            merged[layer] = kernel[layer].astype(np.float32) + a[layer] @ b[layer] * self._scale
        return merged

    def __contains__(self, path: object) -> bool:
        return path in self._paths  # the inherited one would merge the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
