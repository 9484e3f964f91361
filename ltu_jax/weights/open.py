"""Open a model by its path: a weights directory, a Hugging Face model, a run, or a checkpoint.

Every path may be one of this machine, a name on the Hugging Face Hub, or of a bucket (`places`).

A checkpoint holds the trained parameters and names its base weights by path and hash; `open_model`
joins them. Headers are read and files hashed; numbers are read when they are asked for.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ltu_jax import checkpoint
from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.paths import absolute, as_path, is_remote
from ltu_jax.core.trees import merge
from ltu_jax.weights import adapter_folder, hub, lineage, places, store
from ltu_jax.weights.files import known_hashes, shards
from ltu_jax.weights.files.config_json import read_settings
from ltu_jax.weights.formats import hf_llama, hf_whisper
from ltu_jax.weights.formats.whisper_at import LABELS, read_labels
from ltu_jax.weights.pinned_weights import PINNED, PinnedWeights
from ltu_jax.weights.same_base import CONTENT, difference
from ltu_jax.weights.shapes import model_shapes
from ltu_jax.weights.store import ADAPTER, LazyParams, Weights, load_weights
from ltu_jax.weights.tensors import WeightsError, as_tensors

_BIG = 2 << 30  # bytes; hashing more than this shows a bar


# --- base weights ---------------------------------------------------------------------------------


def open_weights(
    path: str | os.PathLike, *, kind: str | None = None, option: str = "the weights directory"
) -> Weights:
    """Open a weights directory, or a Hugging Face directory of a LLaMA or Whisper as it lies.

    Args:
        path: the directory: local, hf:OWNER/NAME[@REVISION] or gs://BUCKET/NAME.
        kind: refuse any other kind.
        option: what messages call the path.

    Raises:
        WeightsError: missing, of another kind, incomplete or changed.
    """
    place = places.find(path, option=option)
    with place.explained():
        lying = _huggingface_kind(place.path)
        if lying is None:
            return dataclasses.replace(load_weights(place.path, kind=kind), address=place.address)
        if kind not in (None, lying):
            raise WeightsError(f"{place.named} holds {lying!r} weights, expected {kind!r}")
        return _as_it_lies(place, kind=lying)


def _as_it_lies(place: places.Place, *, kind: str) -> Weights:
    """Open a Hugging Face directory that was not imported."""
    path = place.path
    imported = (hf_llama if kind == "llama" else hf_whisper).from_hf(path)
    config, shapes = model_shapes(kind, imported.config)
    params = imported.params(shapes, subject=place.named)
    has_tokenizer = any(name.startswith("tokenizer.") for name in imported.files)
    return Weights(
        kind=kind,
        config=config,
        params=LazyParams(params),
        path=path,
        sha256=store.identity(kind, config, _hashes(shards.checkpoint_files(path).files)),
        tokenizer_dir=path if has_tokenizer else None,
        source={**imported.source, **({"name": place.address} if place.address else {})},
        facts=dict(imported.facts),
        address=place.address,
    )


def is_hf_llama(path: Path) -> bool:
    """Return whether a folder is a Hugging Face directory of a LLaMA-family model."""
    return _huggingface_kind(path) == "llama"


def _huggingface_kind(path: Path) -> str | None:
    """Return the kind of weights in a Hugging Face directory that can be read as it lies."""
    settings = read_settings(path / "config.json") if (path / "config.json").is_file() else {}
    if "ltu_jax" in settings:
        return None
    kinds = {**dict.fromkeys(hf_llama.MODEL_TYPES, "llama"), "whisper": "whisper"}
    return kinds.get(str(settings.get("model_type")))


def _hashes(files: tuple[Path, ...]) -> dict[str, str]:
    big = sum(file.stat().st_size for file in files) > _BIG
    bar = tqdm(files, desc="hashing", disable=not big)
    return {file.name: known_hashes.sha256(file) for file in bar}


def base_entry(weights: Weights, *, relative_to: str | os.PathLike) -> dict[str, Any]:
    """Return how a checkpoint names a base that it does not copy: paths, sha256 and source."""
    entry = {"sha256": weights.sha256, "source": dict(weights.source)}
    if weights.address is not None:
        return {"path": weights.address, "absolute_path": weights.address, **entry}
    whole, start = absolute(weights.path), absolute(relative_to)
    path = str(whole) if is_remote(start) else os.path.relpath(whole, start)
    return {"path": path, "absolute_path": str(whole), **entry}


def open_base(entry: Mapping[str, Any], *, relative_to: str | os.PathLike, subject: str) -> Weights:
    """Open the base weights that a checkpoint names with `base_entry`.

    Args:
        entry: {"sha256"}, "path" or a source that is pinned, and perhaps "absolute_path".
        relative_to: the checkpoint folder that a relative path starts from.
        subject: how the error calls the base, e.g. "language model".

    Raises:
        WeightsError: it is nowhere (the message says how to get it), or it is not the one that was
            trained on.
    """
    path = _base_path(entry, relative_to=relative_to, subject=subject)
    weights = open_weights(path, option=f"the {subject} of {relative_to},")
    if weights.sha256 != entry["sha256"]:
        raise WeightsError(
            f"{path} is not the {subject} that {relative_to} was trained on: its sha256 is "
            f"{weights.sha256}, the checkpoint names {entry['sha256']}"
        )
    return weights


def _base_path(
    entry: Mapping[str, Any], *, relative_to: str | os.PathLike, subject: str
) -> str | os.PathLike:
    """Return where a base is, by the first of its paths where something is; fetch a pinned one."""
    named = [entry[key] for key in ("path", "absolute_path") if key in entry]
    if named and places.is_elsewhere(named[0]):
        return named[0]
    tried = [as_path(named[0]), *map(as_path, named[1:])] if named else []
    if named and not os.path.isabs(named[0]):
        tried[0] = as_path(relative_to) / named[0]
    path = next((path for path in tried if (path / "config.json").is_file()), None)
    source = entry.get("source") or {}
    if path is None and source.get(PINNED) is not None:
        # Here: what reads formats opens models itself.
        from ltu_jax.weights.fetched_weights import fetched

        where = f"the {subject} of {relative_to}"
        return fetched(PinnedWeights.from_json(source[PINNED], where=where))
    if path is None:
        shown = " and ".join(str(absolute(place)) for place in dict.fromkeys(tried))
        raise WeightsError(
            f"the {subject} of {relative_to} is missing: looked for a weights directory at {shown}"
            f"; put it back or make it again{_recipe(source)}"
        )
    return path


def _recipe(source: Mapping[str, Any]) -> str:
    """Return the command that makes a base again, as far as its source is known."""
    if not isinstance(source.get("format"), str):
        return " with `python -m ltu_jax.convert --from ... --out DIR`"
    name = source.get("name") or source.get("file") or "PATH"
    return f": `python -m ltu_jax.convert --from {source['format']} --weights {name} --out DIR`"


# --- models ---------------------------------------------------------------------------------------


def open_model(path: str | os.PathLike, *, llama: str | os.PathLike | None = None) -> Weights:
    """Open a weights directory, a run, or a checkpoint joined with its base language model.

    Args:
        path: the weights directory, the run (its newest checkpoint counts) or the checkpoint;
            local, of the Hub or of a bucket.
        llama: base weights in place of those that the checkpoint names, of the same hash; where a
            weights directory has no tokenizer, the folder that has one.

    Raises:
        UserError: none of them, a tagger's checkpoint, or a base that is missing or changed.
    """
    place = places.find(path, option="the model", runs=True)
    path, weights = place.path, None
    with place.explained():
        if path.is_dir() and adapter_folder.is_adapter_folder(path):
            metadata, shipped = adapter_folder.read(path)
            folder, adapter, name = path, shipped.tensors, path.name
        elif path.is_dir() and store.is_weights_dir(path):
            weights = dataclasses.replace(load_weights(path), address=place.address)
        else:
            metadata, adapter = checkpoint.load_adapter(path)
            folder = checkpoint.resolve(path)
            name = folder.parent.parent.name
    if weights is not None:
        if llama is not None and weights.tokenizer_dir is None:
            tokenizer = places.find(llama, option=spell("llama"), numbers=False).path
            return dataclasses.replace(weights, tokenizer_dir=tokenizer)
        return weights
    if metadata["kind"] != "ltu-as-checkpoint":
        raise UserError(
            f"{folder} is a {metadata['kind']}, which gives tags and has no language model; give a "
            "checkpoint of stage 1 to 3"
        )
    base = _open_language_model(metadata, llama, folder=folder)
    return Weights(
        kind="ltu-as",
        config=metadata["model"],
        params=LazyParams(merge(base.params.tensors, as_tensors(adapter))),
        path=folder,
        sha256=checkpoint.identity(metadata),
        tokenizer_dir=base.tokenizer_dir,
        source={
            "format": "orbax",
            "name": name,
            "stage": metadata["stage"],
            "step": metadata["step"],
            lineage.OVER: lineage.trained_over(metadata, base.params.tensors),
        },
        facts=base.facts,
        checkpoint=metadata,
        base_name=_base_name(base),
    )


def _open_language_model(
    metadata: Mapping[str, Any], given: str | os.PathLike | None, *, folder: Path
) -> Weights:
    """Open the base of an adapter: the one it names, or a given one that is the same.

    Raises:
        WeightsError: as `open_base`; the given one is another model, and how it differs.
    """
    entry, subject = metadata["base"]["llama"], "language model"
    if given is None or CONTENT not in entry:
        if given is not None:
            entry = {"path": places.lasting(given), "sha256": entry["sha256"]}
        return open_base(entry, relative_to=folder, subject=subject)
    base = open_weights(given, kind="llama", option=spell("llama"))
    if base.sha256 == entry["sha256"]:
        return base
    problem = difference(entry[CONTENT], metadata["model"]["llama"], base)
    if problem is not None:
        raise WeightsError(
            f"{base.named} is not the {subject} that {folder} was trained on: {problem}; leave "
            f"{spell('llama')} out, and the right one is fetched"
        )
    return base


def _base_name(base: Weights) -> str | None:
    """Return what PEFT and people call a plain language model."""
    if base.source.get("format") != "hf-llama":
        return None
    if base.address is not None and hub.is_name(base.address):
        return hub.parse(base.address, option="the language model").repo
    return base.address or str(base.path)


def open_adapter(path: str | os.PathLike) -> Weights:
    """Open what training can start from: the parameters outside the base, in float32.

    Args:
        path: a run, a checkpoint, or a weights directory of kind "ltu-as" or "tltr".

    Raises:
        UserError: none of them, damaged, or weights of another kind.
    """
    place = places.find(path, option="the start", runs=True)
    path = place.path
    with place.explained():
        if path.is_dir() and store.is_weights_dir(path):
            kind = store.read_header(path)["kind"]
            if kind not in ("ltu-as", "tltr", ADAPTER):
                raise UserError(
                    f"{path} holds {kind!r} weights, which have no TLTR; a stage starts from a "
                    "run, or from 'tltr' or 'ltu-as' weights (python -m ltu_jax.convert --from "
                    "whisper-at)"
                )
            weights = load_weights(path, kind=kind, dtype=np.float32)
            adapter = {name: t for name, t in weights.tensors.items() if lineage.is_adapter(name)}
            return dataclasses.replace(
                weights,
                kind="ltu-as" if kind == ADAPTER else kind,
                params=LazyParams(adapter),
                address=place.address,
            )
        metadata, adapter = checkpoint.load_adapter(path)
    return Weights(
        kind="tltr" if metadata["kind"] == "tagger-checkpoint" else "ltu-as",
        config=metadata["model"],
        params=LazyParams(as_tensors(adapter)),
        path=path,
        sha256=checkpoint.identity(metadata),
        tokenizer_dir=None,
        source={"format": "orbax"},
        checkpoint=metadata,
    )


def label_names(weights: Weights) -> tuple[str, ...] | None:
    """Return the labels of a tagger, in the order of its outputs; None where none are named."""
    if weights.checkpoint is not None:
        return tuple(weights.checkpoint.get("labels", ())) or None
    if weights.kind == "tltr" and (weights.path / LABELS).is_file():
        return read_labels(weights.path / LABELS, count=weights.config["labels"])
    return None
