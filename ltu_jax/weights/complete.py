"""A complete model from a folder of ours, and an LTU-AS as a checkpoint that training starts from.

A folder is a weights directory, a training run, or one of its (Orbax) checkpoints over the base
weights that it names.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax import checkpoint
from ltu_jax.core.errors import UserError
from ltu_jax.core.trees import merge
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.weights import bases, lineage, store
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.formats.official_ltu_as import is_adapter
from ltu_jax.weights.name_tables import Import
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError, as_tensors

CONVERTED = "converted"  # the stage of a checkpoint that no training wrote


@dataclass(frozen=True, kw_only=True)
class Complete:
    """A model with every parameter, read when asked.

    `sha256` names the numbers; `base_name` is what a person would call the language model below
    the adapter, None where the folder does not tell. `facts` is what the source of the language
    model (or of the Whisper) said besides.
    """

    kind: str
    config: dict[str, Any]
    params: Tensors
    tokenizer_dir: Path | None
    source: dict[str, Any]
    sha256: str
    base_name: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)  # see facts.FACTS


def open_complete(path: str | os.PathLike) -> Complete:
    """Open a weights directory, a run, or a checkpoint with its base.

    Raises:
        UserError: none of them, a tagger's checkpoint, or a base that is missing or changed.
    """
    path = Path(path)
    if path.is_dir() and store.is_weights_dir(path):
        held = store.load_weights(path)
        return Complete(
            kind=held.kind,
            config=held.config,
            params=held.params.tensors,
            tokenizer_dir=held.tokenizer_dir,
            source=held.source,
            sha256=held.sha256,
            # an official import knows its base as a folder that may be gone; PEFT names a model
            base_name=held.source.get("base") if held.source.get("format") == "peft" else None,
            facts=held.facts,
        )
    metadata, adapter = checkpoint.load_adapter(path)
    if metadata["kind"] != "ltu-as-checkpoint":
        raise UserError(f"{path} is a {metadata['kind']}; only LTU-AS checkpoints are converted")
    folder = checkpoint.resolve(path)
    base = bases.open_base(metadata["base"]["llama"], relative_to=folder, what="language model")
    return Complete(
        kind="ltu-as",
        config=metadata["model"],
        params=merge(base.params.tensors, as_tensors(adapter)),
        tokenizer_dir=base.tokenizer_dir,
        source={
            "format": "orbax",
            "name": folder.parent.parent.name,
            "stage": metadata["stage"],
            "step": metadata["step"],
            lineage.OVER: lineage.trained_over(metadata, base.params.tensors),
        },
        sha256=checkpoint.identity(metadata),
        base_name=str(base.path if base.source.get("format") == "hf-llama" else "") or None,
        facts=base.facts,
    )


def from_run(path: str | os.PathLike) -> Import:
    """A training run or checkpoint of ours as an import: adapter and base become one model.

    Raises:
        UserError: as `open_complete`; or `path` is a weights directory already.
    """
    if Path(path).is_dir() and store.is_weights_dir(path):
        raise WeightsError(f"{path} is a weights directory already; there is nothing to import")
    held = open_complete(path)
    return Import(
        config=held.config,
        rules=(),
        tensors={},
        files={} if held.tokenizer_dir is None else hf_llama.tokenizer_files(held.tokenizer_dir),
        source=held.source,
        notes=lineage.remarks(held.source, held.params),
        base=held.params,
        facts=held.facts,
    )


def to_run(
    held: Complete, *, base: str | os.PathLike, whisper: str | os.PathLike, out: str | os.PathLike
) -> Path:
    """Write OUT/checkpoints/0: an adapter that training starts from and `ltu_jax.load` opens.

    Args:
        held: a model of kind "ltu-as".
        base: folder of the plain language model; its numbers must be those inside `held`.
        whisper: weights directory of the encoder the model listens with.
        out: the run folder to make.

    Raises:
        UserError: another base or Whisper than the model's, or `out` has checkpoints already.
    """
    out = Path(out)
    if checkpoint.steps_in(out):
        raise UserError(f"{out} holds a run already; choose another --out")
    language = bases.open_weights(base, kind="llama")
    listener = bases.open_weights(whisper, kind="whisper")
    config = LTUASConfig.from_dict(held.config)
    _same_base(held.params, language.params.tensors, path=Path(base))
    found = (listener.config["n_audio_layer"], listener.config["n_audio_state"])
    wanted = (config.audio_layers or found[0], config.tltr.d_model)
    if found != wanted:
        raise UserError(
            f"{whisper} is a Whisper of {found[0]} layers and width {found[1]}; this model was "
            f"built for {wanted[0]} layers and width {wanted[1]}"
        )
    inside = out.resolve() / checkpoint.FOLDER / "0"
    return checkpoint.save_adapter(
        out,
        adapter={path: t.read() for path, t in held.params.items() if is_adapter(path)},
        metadata={
            "kind": checkpoint.KINDS[0],
            "stage": CONVERTED,
            "model": asdict(config),
            "whisper_config": listener.config,
            "labels": [],
            "base": {
                "llama": bases.base_entry(language, relative_to=inside),
                "whisper": bases.base_entry(listener, relative_to=inside),
            },
            "source": held.source,
        },
    )


def _same_base(params: Tensors, base: Mapping[str, Tensor], *, path: Path) -> None:
    inside = {name: tensor for name, tensor in params.items() if not is_adapter(name)}
    store.check_against(
        {name: tensor.shape for name, tensor in inside.items()},
        {name: np.broadcast_to(np.float32(0), tensor.shape) for name, tensor in base.items()},
        what=str(path),
    )
    for name, tensor in inside.items():
        pairs = zip(tensor.parts(), base[name].parts(), strict=True)
        if not all(np.array_equal(ours, theirs) for ours, theirs in pairs):
            raise UserError(
                f"{path} is not the base of this model: {name} has other numbers there; give the "
                "one that it was trained on"
            )
