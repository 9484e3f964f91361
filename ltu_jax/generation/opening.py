"""From a path to everything that answering needs: functions, parameters, tokenizer, Whisper.

A path is a weights directory (complete model), a training run (its newest checkpoint) or one
checkpoint; a checkpoint holds the trained parameters and names its base weights by path and hash.
"""

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from ltu_jax.core.errors import UserError
from ltu_jax.core.trees import Params, merge
from ltu_jax.generation.transcribe import Transcriber, load_whisper_tokenizer
from ltu_jax.models import build
from ltu_jax.models.build import LTUASFns, WhisperFns
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.whisper import WhisperConfig
from ltu_jax.preprocessing.text import Tokenizer, load_tokenizer
from ltu_jax.training import checkpoint
from ltu_jax.weights import bases, store
from ltu_jax.weights.fingerprint import (
    KEY,
    FeatureWarning,
    Fingerprint,
    Verdict,
    compare,
    of_encoder,
)
from ltu_jax.weights.tensors import Tensors, as_tensors

# Of an encoder about which nothing says otherwise, and of the decoder that transcribes.
_WHISPER_DTYPE = "float32"


@functools.lru_cache(maxsize=4)
def _ltu_as_fns(config: LTUASConfig, dtype: str) -> LTUASFns:
    """The same functions for the same sizes, so that a second model compiles nothing anew."""
    return build.ltu_as(config, dtype=jnp.dtype(dtype))


_whisper_fns = functools.lru_cache(maxsize=4)(build.whisper)


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Whisper as the feature extractor, and as the transcriber when its tokenizer is there."""

    fns: WhisperFns
    params: Params
    transcriber: Transcriber | None


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model in memory; `tokenizer` and `listener` are None when the path has none."""

    path: Path
    fns: LTUASFns
    params: Params
    tokenizer: Tokenizer | None
    listener: Listener | None


def open_model(
    path: str | Path, *, whisper: str | Path | None, llama: str | Path | None, dtype: str
) -> Opened:
    """Open a model for answering.

    Args:
        path: weights directory of kind "ltu-as", run, or checkpoint.
        whisper: Whisper weights directory in place of the one that the checkpoint names; a
            weights directory names none.
        llama: base weights in place of those that the checkpoint names (same hash), or where a
            weights directory without tokenizer finds one.
        dtype: of the language model and TLTR: parameters and products. Whisper hears in the
            precision that the model was trained with (`encoder_dtype`) and writes in float32.

    Raises:
        UserError: nothing loadable there, base weights missing or changed, sizes that differ.
    """
    path = Path(path)
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype {dtype!r}: choose float32 or bfloat16")
    if path.is_dir() and store.is_weights_dir(path):
        return _open_weights(path, whisper=whisper, llama=llama, dtype=dtype)
    return _open_checkpoint(path, whisper=whisper, llama=llama, dtype=dtype)


def _open_weights(
    path: Path, *, whisper: str | Path | None, llama: str | Path | None, dtype: str
) -> Opened:
    weights = store.load_weights(path)
    if weights.kind != "ltu-as":
        raise UserError(
            f"{path} holds {weights.kind!r} weights; answering needs a complete 'ltu-as' directory "
            "or a checkpoint of stage 1 to 3"
        )
    config = LTUASConfig.from_dict(weights.config)
    tokenizer_dir = weights.tokenizer_dir
    if tokenizer_dir is None and llama is not None:
        tokenizer_dir = Path(llama)
    return _opened(
        path,
        config=config,
        params=weights.params.tensors,
        tokenizer_dir=tokenizer_dir,
        whisper=None if whisper is None else store.load_weights(whisper, kind="whisper"),
        hearing=_WHISPER_DTYPE,
        dtype=dtype,
    )


def _open_checkpoint(
    path: Path, *, whisper: str | Path | None, llama: str | Path | None, dtype: str
) -> Opened:
    metadata, adapter = checkpoint.load_adapter(path)
    folder = checkpoint.resolve(path)
    if metadata["kind"] != "ltu-as-checkpoint":
        raise UserError(
            f"{folder} is a {metadata['kind']}, which gives tags, not answers; give a "
            "checkpoint of stage 1 to 3"
        )

    entry = metadata["base"]["llama"]
    if llama is not None:
        entry = {"path": str(Path(llama).resolve()), "sha256": entry["sha256"]}
    language = bases.open_base(entry, relative_to=folder, what="language model")
    return _opened(
        folder,
        config=LTUASConfig.from_dict(metadata["model"]),
        params=merge(language.params.tensors, as_tensors(adapter)),
        tokenizer_dir=language.tokenizer_dir,
        whisper=_heard_with(metadata, folder=folder, given=whisper),
        hearing=encoder_dtype(metadata),
        dtype=dtype,
    )


def encoder_dtype(metadata: Mapping[str, Any]) -> str:
    """The precision of the features that a checkpoint was trained on: that of answering, too."""
    trained = Fingerprint.from_json(metadata.get(KEY))
    if trained is not None:
        return trained.dtype
    compute = metadata.get("config", {}).get("compute", {})
    return compute.get("encoder_dtype", _WHISPER_DTYPE)


def _heard_with(
    metadata: Mapping[str, Any], *, folder: Path, given: str | Path | None
) -> store.Weights:
    """The Whisper of a checkpoint: the one it names, or a given other file of the same encoder.

    Checkpoints know what their encoder made of a fixed clip; older ones do not, and want the file.
    """
    entry = metadata["base"]["whisper"]
    trained = Fingerprint.from_json(metadata.get(KEY))
    if given is None:
        weights = bases.open_base(entry, relative_to=folder, what="Whisper")
    else:
        weights = store.load_weights(given, kind="whisper")
    if weights.sha256 == entry["sha256"]:
        return weights
    apart = ""
    if trained is not None:
        found = compare(trained, of_encoder(weights, dtype=trained.dtype))
        if found.verdict == Verdict.SAME:
            return weights
        if found.verdict == Verdict.PRECISION:
            there = f"those that {folder} was trained on ({trained.dtype})"
            line = found.warning(there=there, here=f"those of {weights.path}")
            warnings.warn(line, FeatureWarning, stacklevel=4)
            return weights
        apart = f", and on a fixed clip the two encoders differ by {found.distance:.1e}"
    raise UserError(
        f"{weights.path} is not the Whisper that {folder} was trained on: its sha256 is "
        f"{weights.sha256}, the checkpoint names {entry['sha256']}{apart}"
    )


def _opened(
    path: Path,
    *,
    config: LTUASConfig,
    params: Tensors,
    tokenizer_dir: Path | None,
    whisper: store.Weights | None,
    hearing: str,
    dtype: str,
) -> Opened:
    fns = _ltu_as_fns(config, dtype)
    store.check_against(fns.shapes, params, what=str(path))
    return Opened(
        path=path,
        fns=fns,
        params={name: jnp.asarray(params[name].read(), jnp.dtype(dtype)) for name in fns.shapes},
        tokenizer=None if tokenizer_dir is None else load_tokenizer(tokenizer_dir),
        listener=None if whisper is None else _listener(whisper, config, dtype=hearing),
    )


def _listener(weights: store.Weights, config: LTUASConfig, *, dtype: str) -> Listener:
    """Whisper of the width and depth that the model was built for; its features in `dtype`."""
    sizes = WhisperConfig.from_dict(weights.config)
    found = (sizes.n_audio_layer, sizes.n_audio_state)
    # Official weights of a width that no Whisper has do not tell the number of layers.
    wanted = (config.audio_layers or found[0], config.tltr.d_model)
    if found != wanted:
        raise UserError(
            f"{weights.path} is a Whisper of {found[0]} layers and width {found[1]}; this model "
            f"was built for {wanted[0]} layers and width {wanted[1]}: give that one"
        )
    fns = _whisper_fns(sizes, dtype=dtype)
    store.check_against(fns.shapes, weights.params, what=str(weights.path))
    params = {name: jnp.asarray(weights.params[name], jnp.float32) for name in fns.shapes}
    transcriber = None
    if weights.tokenizer_dir is not None:
        tokenizer = load_whisper_tokenizer(weights.tokenizer_dir)
        writing = _whisper_fns(sizes, dtype=_WHISPER_DTYPE)
        transcriber = Transcriber.of(writing, params, tokenizer=tokenizer)
    return Listener(fns=fns, params=params, transcriber=transcriber)
