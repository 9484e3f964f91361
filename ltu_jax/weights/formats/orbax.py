"""Training checkpoints of ours: joined with their base, and made of an LTU-AS to start from."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ltu_jax import checkpoint
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import absolute, as_path
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.weights import lineage, store
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.name_tables import Import
from ltu_jax.weights.open import base_entry, open_model, open_weights
from ltu_jax.weights.open_whispers import require_width
from ltu_jax.weights.store import Weights
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError

CONVERTED = "converted"  # the stage of a checkpoint that no training wrote


def from_run(path: str | os.PathLike) -> Import:
    """Import a training run or checkpoint of ours: adapter and base become one model.

    Raises:
        UserError: as `open_model`; or `path` is a weights directory already.
    """
    if store.is_weights_dir(path):
        raise WeightsError(f"{path} is a weights directory already; there is nothing to import")
    held = open_model(path)
    return Import(
        config=held.config,
        rules=(),
        tensors={},
        files={} if held.tokenizer_dir is None else hf_llama.tokenizer_files(held.tokenizer_dir),
        source=held.source,
        notes=lineage.remarks(held.source, held.tensors),
        base=held.tensors,
        facts=held.facts,
    )


def to_run(
    held: Weights, *, base: str | os.PathLike, whisper: str | os.PathLike, out: str | os.PathLike
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
    out = as_path(out)
    if checkpoint.steps_in(out):
        raise UserError(f"{out} holds a run already; choose another --out")
    language = open_weights(base, kind="llama", option="--llama")
    listener = open_weights(whisper, kind="whisper", option="--whisper")
    config = LTUASConfig.from_dict(held.config)
    _same_base(held.tensors, language.tensors, path=language.named)
    require_width(listener, config)
    inside = absolute(out) / checkpoint.FOLDER / "0"
    return checkpoint.save_adapter(
        out,
        adapter={path: t.read() for path, t in held.tensors.items() if lineage.is_adapter(path)},
        metadata={
            "kind": checkpoint.KINDS[0],
            "stage": CONVERTED,
            "model": asdict(config),
            "whisper_config": listener.config,
            "labels": [],
            "base": {
                "llama": base_entry(language, relative_to=inside),
                "whisper": base_entry(listener, relative_to=inside),
            },
            "source": held.source,
        },
    )


def _same_base(params: Tensors, base: Mapping[str, Tensor], *, path: str) -> None:
    inside = {name: tensor for name, tensor in params.items() if not lineage.is_adapter(name)}
    store.check_against(
        {name: tensor.shape for name, tensor in inside.items()},
        {name: np.broadcast_to(np.float32(0), tensor.shape) for name, tensor in base.items()},
        subject=path,
    )
    for name, tensor in inside.items():
        pairs = zip(tensor.blocks(), base[name].blocks(), strict=True)
        if not all(np.array_equal(ours, theirs) for ours, theirs in pairs):
            raise UserError(
                f"{path} is not the base of this model: {name} has other numbers there; give the "
                "one that it was trained on"
            )
