"""The LLaMA under an LTU-AS checkpoint, as the person who imports it names it (`--llama`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltu_jax.core.files import read_json
from ltu_jax.weights import facts, store
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.open import is_hf_llama, open_weights
from ltu_jax.weights.tensors import Tensors, WeightsError


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The language model of an LTU-AS import.

    config: LlamaConfig as a dict.
    held: its parameters, where the source has only the trained part; {} where it is complete.
    files: the tokenizer's.
    facts: those of `facts.FACTS` that are known.
    """

    config: Mapping[str, Any]
    held: Tensors
    files: Mapping[str, Path]
    facts: Mapping[str, Any]


def settings(base: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Path]]:
    """Return LLaMA settings, LTU-AS settings and tokenizer files of what `--llama` names."""
    if not base.exists():
        raise WeightsError(f"--llama {base} does not exist; give a config.json or a directory")
    file = base / "config.json" if base.is_dir() else base
    content = read_json(file)
    if not isinstance(content, dict):
        raise WeightsError(f"--llama {file} is not a JSON object")
    folder = base if base.is_dir() else base.parent
    of_us = "ltu_jax" in content
    if of_us:
        content = content.get("config")
        if not isinstance(content, dict):
            raise WeightsError(f"--llama {file} has no config")
    known = content.get("ltu_as", {})  # in a directory that we exported
    if not isinstance(known, dict):
        raise WeightsError(f"--llama {file}: ltu_as is {known!r}; expected an object")
    if isinstance(content.get("llama"), dict):  # an LTUASConfig
        content, known = content["llama"], content
    return (
        ours(content)
        if of_us
        else {key: value for key, value in content.items() if value is not None},
        {key: value for key, value in known.items() if value is not None},
        hf_llama.tokenizer_files(folder),
    )


def ours(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a LlamaConfig dict of ours as the settings of a Hugging Face config.json."""
    settings = {key: value for key, value in config.items() if value is not None}
    if isinstance(settings.get("rope_scaling"), Mapping):  # the only kind that we have
        settings["rope_scaling"] = {"rope_type": "llama3", **settings["rope_scaling"]}
    return settings


def facts_of(base: Path, *, rows: int) -> dict[str, Any]:
    """Return what `--llama` says of the language model beside its config; see `facts`."""
    file = base / "config.json" if base.is_dir() else base
    content = read_json(file)
    if "ltu_jax" in content:
        return {key: content[key] for key in store.FACTS if key in content}
    return facts.of_hf(content, folder=file.parent, rows=rows, subject=f"--llama {file}")


def opened(base: Path, *, subject: str) -> BaseModel:
    """Open the LLaMA that `what` was trained over; its numbers are read when asked.

    Args:
        base: a weights directory of ours or a Hugging Face directory.
        subject: the file with the trained part, for errors.

    Raises:
        WeightsError: neither of them, or one that is damaged or incomplete.
    """
    if not (base.is_dir() and (store.is_weights_dir(base) or is_hf_llama(base))):
        raise WeightsError(
            f"{subject} holds only the trained part (TLTR, projection, LoRA), so --llama must be a "
            f"directory with the base LLaMA's weights, and {base} is not one; give a Hugging Face "
            "directory, or one made with `python -m ltu_jax.convert --from hf-llama`"
        )
    model = open_weights(base, kind="llama")
    return BaseModel(
        config=model.config,
        held=model.tensors,
        files=hf_llama.tokenizer_files(base),
        facts=model.facts,
    )
