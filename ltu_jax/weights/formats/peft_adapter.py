"""LTU-AS as a PEFT adapter directory over a plain language model, both ways.

DIR/adapter_config.json           what peft reads; rank, alpha, dropout, targets
DIR/adapter_model.safetensors     LoRA, `base_model.model.model.layers.N....lora_A.weight`
DIR/ltu_as_audio.safetensors      TLTR and projection under their official names
DIR/ltu_as.json                   our config: heads, audio layers, the sizes of the base
DIR/ltu_jax_export.json           where it comes from, what base it is over, hashes

`peft.PeftModel.from_pretrained` takes the first two and passes over the others. Directories that
peft itself has saved are read too where the audio part is beside them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltu_jax.core.files import read_json, write_json
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.weights import export_record, lineage
from ltu_jax.weights.files import shards
from ltu_jax.weights.formats import ltu_as_base, official_constants, official_ltu_as, peft_config
from ltu_jax.weights.name_tables import Import
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError

AUDIO_FILE = "ltu_as_audio.safetensors"
SETTINGS_FILE = "ltu_as.json"
_STEM = "adapter_model"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class PeftAdapter:
    """What a PEFT adapter directory consists of: {file: JSON object}, {file: lazy tensors}."""

    settings: dict[str, dict[str, Any]]
    tensors: dict[str, dict[str, Tensor]]

    def write(self, folder: Path, *, desc: str | None = None) -> int:
        """Write the files into an existing folder; returns the number of tensors."""
        for name, tensors in self.tensors.items():
            shards.write_shards(
                folder,
                tensors,
                stem=name.removesuffix(".safetensors"),
                metadata={"format": "pt"},
                max_bytes=1 << 62,  # peft reads one file
                desc=desc,
            )
        for name, value in self.settings.items():
            write_json(folder / name, value)
        return sum(map(len, self.tensors.values()))


def to_peft(config: Mapping[str, Any], params: Tensors, *, base_name: str) -> PeftAdapter:
    """Return the PEFT adapter directory of LTU-AS parameters; the base is named, not copied.

    Args:
        config: LTUASConfig as a dict.
        params: every parameter, or at least those outside the base.
        base_name: for `base_model_name_or_path`: the directory or hub name of the plain base.

    Raises:
        WeightsError: the model has no LoRA, as after stage 1.
    """
    if config.get("lora") is None:
        raise WeightsError(
            "this model has no LoRA (stage 1 trains none), so there is no PEFT adapter to write; "
            "export it with `--to ltu-as --adapter-only`"
        )
    official = official_ltu_as.to_official(config, params, adapter_only=True, spelling="peft")
    lora = {name: tensor for name, tensor in official.items() if ".lora_" in name}
    audio = {name: tensor for name, tensor in official.items() if name not in lora}
    return PeftAdapter(
        settings={
            peft_config.FILE: peft_config.to_json(config["lora"], base_name=base_name),
            SETTINGS_FILE: {
                "ltu_jax_peft": _FORMAT,
                "audio": AUDIO_FILE,
                "config": json.loads(json.dumps(dict(config))),
            },
        },
        tensors={f"{_STEM}.safetensors": lora, AUDIO_FILE: audio},
    )


def from_peft(
    path: str | Path, *, base: str | Path | None = None, audio_layers: int | None = None
) -> Import:
    """Open a PEFT adapter directory with its audio part, over its base.

    Args:
        path: the directory. The LoRA is in adapter_model.safetensors or .bin, the audio weights in
            ltu_as_audio.safetensors or with the LoRA. Without ltu_as.json the heads of TLTR are
            the official 1 and 8.
        base: weights directory of ours or Hugging Face directory of the plain base; None takes
            `base_model_name_or_path` where that is a directory here.
        audio_layers: layers of the Whisper encoder; None takes it from ltu_as.json, else from the
            TLTR's width, else leaves it open.

    Raises:
        WeightsError: a file missing, the audio weights above all; a setting of PEFT that our LoRA
            does not compute; another base; names or shapes that do not fit.
    """
    path = Path(path)
    if not (path / peft_config.FILE).is_file():
        raise WeightsError(f"{path} is not a PEFT adapter directory: no {peft_config.FILE}")
    given = peft_config.read(path / peft_config.FILE)
    known, told = _known(path), export_record.read(path)
    tensors = _tensors(path)
    base = _base(base, given, subject=str(path))
    language = ltu_as_base.opened(base, subject=str(path))
    official_constants.compare_llama(
        known.get("llama"), language.config, base=base, subject=str(path)
    )
    claims = {SETTINGS_FILE: {key: value for key, value in known.items() if key != "lora"}}
    claims |= official_constants.options(audio_layers=audio_layers)
    return official_ltu_as.over_base(
        tensors,
        base=language,
        lora=_lora(given, tensors, known=known.get("lora"), subject=str(path)),
        known=official_constants.agreed(claims, subject=str(path)),
        source={"format": "peft", "name": path.name, "base": given.base_name or base.name}
        | lineage.carried(told.source if told else None),
        notes=lineage.other_base(told.base if told else None, language.held),
        subject=str(path),
    )


def _known(path: Path) -> dict[str, Any]:
    """Return our config beside the adapter; {} where peft alone has written the directory."""
    file = path / SETTINGS_FILE
    if not file.is_file():
        return {}
    settings = read_json(file)
    if not isinstance(settings, dict) or settings.get("ltu_jax_peft") != _FORMAT:
        raise WeightsError(f"{file} is not of format {_FORMAT}; this version reads no other")
    if not isinstance(settings.get("config"), dict):
        raise WeightsError(f"{file} has no config")
    LTUASConfig.from_dict(settings["config"])  # a key that is unknown or missing is told here
    return settings["config"]


def _tensors(path: Path) -> dict[str, Tensor]:
    """Return LoRA and audio weights under canonical names.

    Raises:
        WeightsError: one of the two is not there.
    """
    files = [path / f"{_STEM}{suffix}" for suffix in (".safetensors", ".bin")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise WeightsError(
            f"{path} has no {_STEM}.safetensors and no {_STEM}.bin: the LoRA weights are missing"
        )
    tensors = official_ltu_as.canonical_tensors(shards.read_file(file), subject=str(file))
    if not any(".lora_A." in name for name in tensors):
        raise WeightsError(f"{file} has no lora_A among its {len(tensors)} names")
    if (path / AUDIO_FILE).is_file():
        audio = official_ltu_as.canonical_tensors(
            shards.read_file(path / AUDIO_FILE), subject=str(path / AUDIO_FILE)
        )
        twice = sorted(set(audio) & set(tensors))
        if twice:
            raise WeightsError(f"{path}: {twice[0]} is in {file.name} and in {AUDIO_FILE}")
        tensors |= audio
    elif not any("audio_" in name for name in tensors):
        raise WeightsError(
            f"{path}: {AUDIO_FILE} is missing, and {file.name} holds LoRA only: an adapter saved "
            "without the audio weights (TLTR and projection), as peft's save_pretrained and the "
            "official finetune.py leave it. They are in the trainer's "
            "checkpoint-N/pytorch_model.bin: import that with `--from ltu-as`"
        )
    official_ltu_as.check_audio(tensors, subject=str(path))
    return tensors


def _base(base: str | Path | None, given: peft_config.AdapterConfig, *, subject: str) -> Path:
    if base is not None:
        return Path(base)
    if given.base_name is None or not Path(given.base_name).is_dir():
        raise WeightsError(
            f"{subject} names its base {given.base_name!r}, which is no directory here; "
            "give the base with --llama DIR"
        )
    return Path(given.base_name)


def _lora(
    given: peft_config.AdapterConfig,
    tensors: Tensors,
    *,
    known: Mapping[str, Any] | None,
    subject: str,
) -> dict[str, Any]:
    """Return the LoRAConfig on which adapter_config.json, ltu_as.json and the tensors agree."""
    rank, targets = official_ltu_as.lora_shape(tensors) or (0, ())
    if given.rank != rank:
        raise WeightsError(f"{subject}: {peft_config.FILE} has r {given.rank}, lora_A {rank} rows")
    if given.targets is not None and set(given.targets) != set(targets):
        raise WeightsError(
            f"{subject}: {peft_config.FILE} has target_modules {', '.join(given.targets)}; the "
            f"weights have LoRA on {', '.join(targets)}"
        )
    lora = {
        "rank": rank,
        "alpha": given.alpha,
        "dropout": given.dropout,
        "targets": list(targets),
    }
    if known is None:
        return lora
    if set(known["targets"]) == set(targets):
        lora["targets"] = list(known["targets"])  # in its own order
    for key, value in lora.items():
        if known[key] != value:
            raise WeightsError(
                f"{subject}: LoRA {key} is {value} in {peft_config.FILE} and {known[key]} in "
                f"{SETTINGS_FILE}; they must agree"
            )
    return lora
