"""Golden cases that travel with the package: numbers of the authors' code, checked without PyTorch.

golden_cases/cases.json            {name: {"kind", "config", "origin"}}
golden_cases/NAME.safetensors      "weights/..." under official names, "in/...", "out/..."

    ltu_as      official LTU-AS at tiny sizes, one left-padded clip with its question and answer;
                of the vocabulary only the tokens that occur
    tltr_full   the TL-TR tagger of the package whisper-at, full variant
    tltr_low    the same, low variant
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.files import read_json
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.models.tltr import Tagger, TaggerConfig
from ltu_jax.weights import name_tables
from ltu_jax.weights.files.safetensors_file import read_safetensors
from ltu_jax.weights.formats import official_ltu_as, whisper_at

FOLDER = Path(__file__).with_name("golden_cases")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldenPair:
    """A module's numbers, and the authors' for the same input."""

    module: str
    ours: np.ndarray
    wanted: np.ndarray


def names(kind: str) -> tuple[str, ...]:
    """Return the cases that concern weights of `kind`."""
    return tuple(n for n, case in read_json(FOLDER / "cases.json").items() if case["kind"] == kind)


def compute(name: str, *, dtype: str) -> list[GoldenPair]:
    """Run a case through the table of names and the build functions that real weights take.

    Args:
        name: of the case.
        dtype: of parameters and products.
    """
    case = read_json(FOLDER / "cases.json")[name]
    stored = read_safetensors(FOLDER / f"{name}.safetensors")
    parts: dict[str, dict[str, Any]] = {"weights": {}, "in": {}, "out": {}}
    for key, tensor in stored.items():
        part, _, short = key.partition("/")
        parts[part][short] = tensor
    given = {key: jnp.asarray(tensor.read()) for key, tensor in parts["in"].items()}
    if case["kind"] == "ltu-as":
        ours = _ltu_as(case["config"], parts["weights"], given, dtype=dtype)
    else:
        ours = _tagger(case["config"], parts["weights"], given, dtype=dtype)
    return [
        GoldenPair(module=key, ours=np.asarray(ours[key], np.float32), wanted=tensor.read())
        for key, tensor in parts["out"].items()
    ]


def _ltu_as(
    config: Mapping[str, Any], weights: Any, given: Mapping[str, Any], *, dtype: str
) -> dict[str, Any]:
    typed = LTUASConfig.from_dict(config)
    model = LTUAS.functional(typed, dtype=dtype)
    params = _params(official_ltu_as.RULES, weights, model.shapes, dtype=dtype)
    mask, audio = given["attention_mask"], typed.audio_tokens
    text = TextBatch(
        input_ids=given["input_ids"],
        segment_ids=mask[:, audio:].astype(jnp.int32),
        positions=jnp.broadcast_to(jnp.arange(mask.shape[1]), mask.shape),
    )
    outputs = jax.jit(model.pure(LTUAS.intermediates))(params, text, given["audio_input"])
    logits = model.bind(params).unembed(outputs["final_norm"][:, audio:])
    layers = {f"llama.layers.{number}": layer for number, layer in enumerate(outputs["layers"])}
    return layers | {
        "tltr": outputs["tltr"],
        "audio_proj": outputs["audio_embeds"],
        "llama.norm": outputs["final_norm"],
        "logits": logits,
    }


def _tagger(
    config: Mapping[str, Any], weights: Any, given: Mapping[str, Any], *, dtype: str
) -> dict[str, Any]:
    typed = TaggerConfig.from_dict(config)
    model = Tagger.functional(typed, dtype=dtype)
    params = _params(whisper_at.RULES, weights, model.shapes, dtype=dtype)
    return {"logits": jax.jit(model.pure(Tagger.__call__))(params, given["features"])}


def _params(table: Any, weights: Any, shapes: Mapping[str, Any], *, dtype: str) -> dict[str, Any]:
    wanted = {path: leaf.shape for path, leaf in shapes.items()}
    params = name_tables.assemble(table, weights, wanted, subject="golden case")
    return {path: jnp.asarray(tensor.read(), dtype) for path, tensor in params.items()}
