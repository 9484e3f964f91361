"""Open the two Whispers of a model: the one that hears, and the one that writes what is said."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError, spell
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.weights.fingerprint import (
    KEY,
    FeatureWarning,
    Fingerprint,
    Likeness,
    compare,
    of_encoder,
)
from ltu_jax.weights.open import open_base, open_weights
from ltu_jax.weights.store import Weights

# Of an encoder about which nothing says otherwise, and of the decoder that transcribes.
WHISPER_DTYPE = "float32"


def require_width(whisper: Weights, config: LTUASConfig) -> None:
    """Require a Whisper of the width and depth that a model was built for.

    Raises:
        UserError: it has another size; the message names both.
    """
    size = (whisper.config["n_audio_layer"], whisper.config["n_audio_state"])
    # Official weights of a width that no Whisper has do not tell the number of layers.
    wanted = (config.audio_layers or size[0], config.tltr.d_model)
    if size != wanted:
        raise UserError(
            f"{whisper.named} is a Whisper of {size[0]} layers and width {size[1]}; this model "
            f"was built for {wanted[0]} layers and width {wanted[1]}: give that one"
        )


def encoder_dtype(metadata: Mapping[str, Any] | None) -> str:
    """Return the precision of the features that a checkpoint was trained on, and answers with."""
    if metadata is None:
        return WHISPER_DTYPE
    trained = Fingerprint.from_json(metadata.get(KEY))
    if trained is not None:
        return trained.dtype
    compute = metadata.get("config", {}).get("compute", {})
    return compute.get("encoder_dtype", WHISPER_DTYPE)


def open_listener(model: Weights, given: str | os.PathLike | None) -> Weights | None:
    """Open the Whisper that hears for a model; None where it names none and none is given.

    Args:
        model: as `open_model` returns it.
        given: another file of the same encoder. Checkpoints know what their encoder made of a
            fixed clip; older ones do not, and want the file.

    Raises:
        UserError: missing, of another size, or another encoder.
    """
    metadata = model.checkpoint
    if given is not None:
        weights = open_weights(given, kind="whisper", option=spell("whisper"))
    elif metadata is not None:
        entry = metadata["base"]["whisper"]
        weights = open_base(entry, relative_to=model.path, subject="Whisper")
    else:
        return None
    if metadata is not None and given is not None:
        _require_same_encoder(weights, model.path, metadata)
    require_width(weights, LTUASConfig.from_dict(model.config))
    return weights


def _require_same_encoder(weights: Weights, folder: Path, metadata: Mapping[str, Any]) -> None:
    entry = metadata["base"]["whisper"]
    if weights.sha256 == entry["sha256"]:
        return
    trained, apart = Fingerprint.from_json(metadata.get(KEY)), ""
    if trained is not None:
        difference = compare(trained, of_encoder(weights, dtype=trained.dtype))
        if difference.verdict == Likeness.SAME:
            return
        if difference.verdict == Likeness.PRECISION:
            there = f"those that {folder} was trained on ({trained.dtype})"
            line = difference.warning(there=there, here=f"those of {weights.named}")
            warnings.warn(line, FeatureWarning, stacklevel=5)
            return
        apart = f", and on a fixed clip the two encoders differ by {difference.distance:.1e}"
    raise UserError(
        f"{weights.named} is not the Whisper that {folder} was trained on: its sha256 is "
        f"{weights.sha256}, the checkpoint names {entry['sha256']}{apart}"
    )


def open_transcriber(model: Weights, given: str | os.PathLike | None) -> Weights | None:
    """Open the Whisper that writes: the given one, or that of the training data.

    Returns:
        None where the one that hears also writes.

    Raises:
        UserError: missing or changed, or a given one that has no tokenizer.
    """
    if given is not None:
        weights = open_weights(given, kind="whisper", option=spell("transcriber"))
        if weights.tokenizer_dir is None:
            raise UserError(
                f"{spell('transcriber', given)} has no tokenizer.json, so it cannot write; "
                "convert it again from a source that has one"
            )
        return weights
    entry = (model.checkpoint or {"base": {}})["base"].get("transcriber")
    if entry is None:
        return None
    return open_base(entry, relative_to=model.path, subject="transcribing Whisper")
