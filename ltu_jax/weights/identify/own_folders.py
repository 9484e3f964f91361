"""Folders of ours: weights directories, training runs and checkpoints, records."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json
from ltu_jax.weights import store
from ltu_jax.weights.identify.identified import Identified, dtypes_of, only_problem
from ltu_jax.weights.identify.recognise import RecognisedModel, recognise_ours

_CHECKPOINT_KINDS = {
    "ltu-as-checkpoint": "LTU-AS checkpoint of ltu_jax (Orbax)",
    "tagger-checkpoint": "tagger checkpoint of ltu_jax (Orbax)",
}


def settings_of(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a JSON object and no problem, or {} and the problem; {} and none without a file."""
    if not path.is_file():
        return {}, ()
    try:
        content = read_json(path)
    except UserError as error:
        return {}, (str(error),)
    return (content, ()) if isinstance(content, dict) else ({}, (f"{path} is no JSON object",))


def our_weights(path: Path) -> Identified:
    """Describe a weights directory of ours."""
    format = "weights directory of ltu_jax"
    try:
        weights = store.load_weights(path, verify=False)
    except (UserError, KeyError, TypeError, AttributeError) as error:
        return only_problem(format, f"{path} cannot be read: {error}")
    origin = weights.source if isinstance(weights.source, Mapping) else {}
    text = ", ".join(
        f"{key} {origin[key]}" for key in ("format", "name", "file") if origin.get(key)
    )
    return Identified(
        format=f"{format}, kind {weights.kind}",
        model=recognise_ours(weights.kind, weights.config, weights.params.shapes),
        weights=path,
        tensors=weights.params.shapes,
        dtypes=dtypes_of(weights.params.tensors),
        licence=str(origin.get("license", "")),
        notes=(f"imported from {text}",) if text else (),
    )


def our_run(path: Path, names: list[str]) -> Identified | None:
    """Describe a run, its checkpoints folder, or one checkpoint."""
    from ltu_jax import checkpoint

    if checkpoint.METADATA not in names and not checkpoint.steps_in(
        path.parent if path.name == checkpoint.FOLDER else path
    ):
        if checkpoint.FOLDER in names:
            return only_problem(
                "training run without a complete checkpoint",
                f"{path / checkpoint.FOLDER} has no finished step; resume the training",
            )
        return None
    try:
        folder, metadata = checkpoint.read_metadata(path, verify=False)
    except (UserError, AttributeError) as error:
        return only_problem("checkpoint of ltu_jax (Orbax)", str(error))
    shapes = metadata.get("parameters")
    if not isinstance(shapes, dict) or not all(isinstance(s, list) for s in shapes.values()):
        return only_problem("checkpoint of ltu_jax (Orbax)", f"{folder}: no list of parameters")
    kind, stage = metadata["kind"], str(metadata.get("stage")).removeprefix("stage")
    base = metadata.get("base") if isinstance(metadata.get("base"), dict) else {}
    lost = [
        f"its base weights ({name}) are not at {entry.get('absolute_path') or entry.get('path')}"
        for name, entry in base.items()
        if isinstance(entry, dict) and not _base_is_there(folder, entry)
    ]
    tagger = kind == "tagger-checkpoint"
    if tagger:
        lost.append(
            "a tagger's checkpoint is not converted: stage 1 starts from it as it is "
            f"(--config.init_from={path})"
        )
    return Identified(
        format=_CHECKPOINT_KINDS[kind],
        key=None if tagger else "orbax",
        model=RecognisedModel(
            family="orbax",
            words=f"{'tagger' if tagger else 'LTU-AS, trained part'} of stage {stage}, "
            f"step {metadata.get('step')}",
            stage=stage,
            complete=False,
        ),
        weights=path,
        tensors={name: tuple(shape) for name, shape in shapes.items()},
        dtypes=("float32",),
        problems=tuple(lost),
        notes=(f"newest step of the run: {folder.name}",) if folder != path.absolute() else (),
    )


def _base_is_there(folder: Path, entry: Mapping[str, Any]) -> bool:
    places = (folder / str(entry.get("path")), Path(str(entry.get("absolute_path"))))
    return any((place / "config.json").is_file() for place in places)


def our_records(path: Path, names: list[str]) -> Identified | None:
    manifest, _ = settings_of(path / "manifest.json")
    if manifest.get("kind") == "records":
        clips = manifest.get("splits") or manifest.get("clips") or ""
        text = f" ({json.dumps(clips)[:120]})" if clips else ""
        return only_problem(
            "records directory of ltu_jax",
            f"training data{text}, not weights; give it to `python -m ltu_jax.train`",
        )
    if any(".tfrecord" in name for name in names):
        return only_problem("TFRecord data", f"{path} holds training data, not weights")
    return None
