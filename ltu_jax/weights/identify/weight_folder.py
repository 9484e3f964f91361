"""What a folder is: ours, a training run, a Hugging Face model, an adapter, or several at once."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.weights import export_record
from ltu_jax.weights.files import shards
from ltu_jax.weights.formats import hf_llama, hf_whisper, official_ltu_as, peft_config
from ltu_jax.weights.identify.identified import (
    HEAD_BYTES,
    Identified,
    dtypes_of,
    export_notes,
    leftover,
    only_problem,
)
from ltu_jax.weights.identify.own_folders import our_records, our_run, our_weights, settings_of
from ltu_jax.weights.identify.recognise import recognise
from ltu_jax.weights.identify.weight_file import identify_ct2, identify_file
from ltu_jax.weights.tensors import WeightsError
from ltu_jax.weights.verify import check_import

_LOOSE = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".ckpt", ".msgpack", ".h5")
_IMPORTERS = {
    "hf-llama": ("llama", hf_llama.from_hf),
    "hf-whisper": ("whisper", hf_whisper.from_hf),
}
_ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "commit_success.txt")
_MANY = 12  # more weight sets than this are not opened one by one


def identify_folder(path: Path) -> Identified:
    """Describe a folder by its settings and the names of its files.

    What cannot be read becomes a problem in the result.
    """
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return only_problem("empty folder", f"there is nothing in {path}")
    settings, problems = settings_of(path / "config.json")
    if "ltu_jax" in settings:
        return our_weights(path)
    if (identified := our_run(path, names)) is not None:
        return identified
    if any(name in _ORBAX for name in names):
        return only_problem(
            "Orbax checkpoint that ltu_jax did not write",
            f"{path} has no metadata.json of ltu_jax beside it: give the folder that holds it (the "
            "run, or checkpoints/STEP), or export it from the program that made it",
        )
    if (identified := our_records(path, names)) is not None:
        return identified
    sets = _weight_sets(path, names, settings)
    if not sets:
        inner = [name for name in names if (path / name).is_dir()]
        hint = f"; perhaps one of its folders is meant: {', '.join(inner[:5])}" if inner else ""
        return only_problem("folder without weights", f"there is no weight file in {path}{hint}")
    sets.sort(key=lambda entry: entry[1].model is None)  # what can be read comes first
    label, identified = sets[0]
    notes = list(_progress(path))
    if len(sets) > 1:
        listed = "; ".join(f"{name}: {_words(other)}" for name, other in sets)
        notes.append(f"several sets of weights lie here ({listed}); {label} is the one read")
        identified = dataclasses.replace(
            identified, format=f"mixed folder; first {identified.format}"
        )
    if identified.model is not None and export_record.FILE in names:
        try:
            of_export, _ = export_notes(path)
            notes += [note for note in of_export if note not in identified.notes]
        except UserError as error:
            problems = (*problems, str(error))
    left = [name for name in names if leftover(path / name) is not None]
    if left:
        notes.append(f"left by Hugging Face's Trainer and not needed: {', '.join(left)}")
    return dataclasses.replace(
        identified,
        problems=(*identified.problems, *problems),
        notes=(*identified.notes, *notes),
    )


def _words(identified: Identified) -> str:
    text = (
        identified.model.words if identified.model is not None else "; ".join(identified.problems)
    )
    return f"{identified.format}, {text}"


def _weight_sets(
    path: Path, names: list[str], settings: Mapping[str, Any]
) -> list[tuple[str, Identified]]:
    """Return (label, description) of every set of weights in the folder, first what is read."""
    sets: list[tuple[str, Identified]] = []
    taken: set[str] = set()
    if peft_config.FILE in names:
        sets.append(("the PEFT adapter", _adapter(path)))
        taken |= {name for name in names if name.startswith("adapter_model")}
        taken |= {name for name in names if "audio" in name or "tltr" in name}
    pieces = [path / name for name in names if re.fullmatch(r"model\.bin(\.part\d+)?", name)]
    if pieces:
        sets.append(("the CTranslate2 model", _ct2(path, pieces)))
        taken |= {piece.name for piece in pieces}
    if official_ltu_as.FILE in names:
        sets.append((official_ltu_as.FILE, _file(path / official_ltu_as.FILE)))
        taken.add(official_ltu_as.FILE)
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        mine = {n for n in names if re.fullmatch(rf"{stem}(-\d+-of-\d+)?{re.escape(suffix)}", n)}
        if mine or f"{stem}{suffix}.index.json" in names:
            label = f"the Hugging Face weights ({stem}{suffix})"
            sets.append((label, _hugging_face(path, settings, stem=stem, suffix=suffix)))
            taken |= mine
    loose = [
        name
        for name in names
        if name not in taken
        and Path(name).suffix in _LOOSE
        and (path / name).is_file()
        and leftover(path / name) is None
    ]
    for name in loose[:_MANY]:
        sets.append((name, _file(path / name)))
    return sets


def _file(path: Path) -> Identified:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        return only_problem("unreadable file", f"{path} cannot be read: {error.strerror}")
    return identify_file(path, head=head)


def _ct2(path: Path, pieces: list[Path]) -> Identified:
    return dataclasses.replace(identify_ct2(pieces), weights=path)


def _adapter(path: Path) -> Identified:
    """Describe a PEFT directory: LoRA, and beside it the audio weights that PEFT leaves out."""
    format = "PEFT adapter directory"
    files = (path / name for name in ("adapter_model.safetensors", "adapter_model.bin"))
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return only_problem(format, f"{path} has {peft_config.FILE} but no adapter_model file")
    identified = _file(file)
    if identified.model is None:
        return dataclasses.replace(identified, format=format)
    tensors, dtypes = dict(identified.tensors), set(identified.dtypes)
    for beside in sorted(path.glob("*.safetensors")):
        if beside != file:
            more = _file(beside)
            tensors |= more.tensors
            dtypes |= set(more.dtypes)
    problems, notes, base = [], [], "BASE_DIR"
    try:
        given = peft_config.read(path / peft_config.FILE)
        notes.append(f"it belongs to the base {given.base_name}")
        base = None if given.base_name and Path(given.base_name).is_dir() else base
    except (UserError, ValueError, TypeError) as error:
        problems.append(str(error))
    model = recognise(tensors)
    if model.family == "lora":
        problems.append(
            "the adapter has no audio weights beside it (TLTR and projection): PEFT saves the "
            "LoRA alone, so training's audio weights must be brought along"
        )
    return Identified(
        format=format,
        key="peft",
        model=model,
        weights=path,
        tensors=tensors,
        dtypes=tuple(sorted(dtypes)),
        problems=(*problems, *model.problems),
        notes=tuple(notes),
        base=base,
    )


def _hugging_face(path: Path, settings: Mapping[str, Any], *, stem: str, suffix: str) -> Identified:
    """Describe weights in Hugging Face's file names: a model of theirs, or official LTU-AS."""
    model_type = settings.get("model_type")
    format = "Hugging Face directory"
    if model_type is not None:
        format += f", model_type {str(model_type)[:40]!r}"
    try:
        tensors = shards.read_checkpoint(_single(path, stem, suffix))
    except UserError as error:
        return only_problem(format, str(error))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    model = recognise(shapes, hint=f"{path.name} {settings.get('_name_or_path', '')}")
    identified = Identified(
        format=format,
        model=model,
        weights=path,
        tensors=shapes,
        dtypes=dtypes_of(tensors),
        problems=model.problems,
    )
    if model.family == "ltu-as":
        return dataclasses.replace(identified, key="ltu-as", format="official LTU-AS state dict")
    keys = {"hf-llama": hf_llama.MODEL_TYPES, "hf-whisper": ("whisper",)}
    if model_type in keys.get(model.family or "", ()):
        identified = dataclasses.replace(identified, key=model.family)
        if not model.problems:
            # what the import itself would say, but for the numbers
            kind, opened = _IMPORTERS[model.family]
            try:
                check_import(opened(path, numbers=False), kind, subject=str(path))
            except UserError as error:
                return dataclasses.replace(identified, problems=(str(error),))
        return identified
    if model_type is None:
        why = f"{path} has no config.json with a model_type, which says what the shapes do not"
    elif model_type in (*hf_llama.MODEL_TYPES, "whisper"):
        why = f"config.json says model_type {model_type!r}, the tensors are of {model.words}"
    else:
        why = f"model_type {model_type!r} is not supported; supported are " + ", ".join(
            (*hf_llama.MODEL_TYPES, "whisper")
        )
    return dataclasses.replace(identified, problems=(*identified.problems, why))


def _single(path: Path, stem: str, suffix: str) -> Path:
    """Return the one file, or the folder when it is sharded (by its index)."""
    whole = path / f"{stem}{suffix}"
    if whole.is_file():
        return whole
    if not (path / f"{stem}{suffix}.index.json").is_file():
        raise WeightsError(
            f"{path} has shards of {stem}{suffix} without {stem}{suffix}.index.json; download the "
            "index too"
        )
    return path


def _progress(path: Path) -> tuple[str, ...]:
    state, _ = settings_of(path / "trainer_state.json")
    step = state.get("global_step")
    if type(step) is not int:
        return ()
    whole = f" of {state['max_steps']}" if type(state.get("max_steps")) is int else ""
    return (f"saved by Hugging Face's Trainer at step {step}{whole}",)
