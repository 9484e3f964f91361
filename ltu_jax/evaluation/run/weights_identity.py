"""Identity of the weights of a run: hashes, and their own description."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.records.whisper_features import fingerprint
from ltu_jax import checkpoint
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, sha256_file
from ltu_jax.weights import adapter_folder, places
from ltu_jax.weights.open import open_weights
from ltu_jax.weights.open_whispers import encoder_dtype

BASES = ("whisper", "transcriber", "llama")


def identify(
    path: Path, *, bases: Mapping[str, Path | None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return hashes of the weights (and their path, for people), and their own description.

    Args:
        path: run, checkpoint or weights folder.
        bases: weights that replace those that the checkpoint names, by `BASES`.

    Raises:
        UserError: nothing of that kind is there.
    """
    where = places.find(path, option="--checkpoint", runs=True)
    path, config = where.path, where.path / "config.json"
    if config.is_file() and (listing := read_json(config)).get("kind") == "ltu-as":
        described = {"path": where.named, "sha256": sha256_file(config), "whisper": None}
        hearing = "float32"
    else:
        if adapter_folder.is_adapter_folder(path):
            place, listing = path, adapter_folder.read_metadata(path)
        else:
            place, listing = checkpoint.read_metadata(path, verify=False)
            config = place / checkpoint.METADATA
        used, hearing = listing["base"], encoder_dtype(listing)
        described = {
            "path": str(place),
            "sha256": sha256_file(config),
            **{name: used[name]["sha256"] for name in BASES if name in used},
        }
    for name, given in bases.items():
        if given:
            if not places.is_elsewhere(given) and not (Path(given) / "config.json").is_file():
                raise UserError(f"--{name} {given} has no config.json: give a weights folder")
            described[name] = open_weights(given, option=f"--{name}").sha256
    if whisper := described.get("whisper"):  # what encodes here, in the precision of `ltu_jax.load`
        described["features"] = fingerprint(whisper_sha256=whisper, dtype=hearing)
    return described, listing
