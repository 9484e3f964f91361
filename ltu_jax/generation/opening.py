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

from ltu_jax import checkpoint
from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.trees import Params, merge
from ltu_jax.generation.transcribe import Transcriber, load_whisper_tokenizer
from ltu_jax.generation.transcription import TranscribeOptions, rule
from ltu_jax.models import build
from ltu_jax.models.build import LTUASFns, WhisperFns
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.whisper import WhisperConfig
from ltu_jax.preprocessing.tokenizer import Tokenizer, load_tokenizer, require_rows
from ltu_jax.weights import bases, store
from ltu_jax.weights.fingerprint import (
    KEY,
    FeatureWarning,
    Fingerprint,
    Likeness,
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
    """Whisper as the feature extractor: the one that hears."""

    fns: WhisperFns
    params: Params


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model in memory; what the path has none of is None.

    `transcriber` is the Whisper that writes, with the `rule` it writes by; `positions` says how
    long audio, prompt and answer together may be (None where the weights do not say).
    """

    path: Path
    fns: LTUASFns
    params: Params
    tokenizer: Tokenizer | None
    listener: Listener | None
    transcriber: Transcriber | None
    rule: TranscribeOptions
    positions: int | None


def open_model(
    path: str | Path,
    *,
    whisper: str | Path | None,
    llama: str | Path | None,
    dtype: str,
    transcriber: str | Path | None = None,
    transcription: str | None = None,
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
        transcriber: the Whisper that writes, of any size, in place of the one that the checkpoint
            names, else of the one that hears.
        transcription: a name of `transcription.RULES`; None is the rule of the training data.

    Raises:
        UserError: nothing loadable there, base weights missing or changed, sizes that differ.
    """
    path = Path(path)
    if not isinstance(dtype, str) or dtype not in ("float32", "bfloat16"):
        raise UserError(f"{spell('dtype')} {dtype!r}: choose float32 or bfloat16")
    if transcription is not None:
        rule(transcription)  # known before anything is read
    how = _How(
        whisper=whisper,
        llama=llama,
        dtype=dtype,
        transcriber=transcriber,
        transcription=transcription,
    )
    if path.is_dir() and store.is_weights_dir(path):
        return _open_weights(path, how)
    return _open_checkpoint(path, how)


@dataclass(frozen=True, kw_only=True)
class _How:
    """The options of `open_model`."""

    whisper: str | Path | None
    llama: str | Path | None
    dtype: str
    transcriber: str | Path | None
    transcription: str | None


def _open_weights(path: Path, how: _How) -> Opened:
    weights = store.load_weights(path)
    if weights.kind != "ltu-as":
        raise UserError(
            f"{path} holds {weights.kind!r} weights; answering needs a complete 'ltu-as' directory "
            "or a checkpoint of stage 1 to 3"
        )
    config = LTUASConfig.from_dict(weights.config)
    tokenizer_dir = weights.tokenizer_dir
    if how.llama is not None:
        tokenizer_dir = Path(how.llama) if tokenizer_dir is None else tokenizer_dir
    whisper = None if how.whisper is None else store.load_weights(how.whisper, kind="whisper")
    return _opened(
        path,
        config=config,
        params=weights.params.tensors,
        tokenizer_dir=tokenizer_dir,
        whisper=whisper,
        hearing=_WHISPER_DTYPE,
        writer=None if how.transcriber is None else _given_writer(how.transcriber),
        rule=rule(how.transcription),
        positions=weights.max_position_embeddings,
        dtype=how.dtype,
    )


def _given_writer(path: str | Path) -> store.Weights:
    """The Whisper that the caller wants the words from."""
    weights = store.load_weights(path, kind="whisper")
    if weights.tokenizer_dir is None:
        raise UserError(
            f"{spell('transcriber', path)} has no tokenizer.json, so it cannot write; convert it "
            "again from a source that has one"
        )
    return weights


def _open_checkpoint(path: Path, how: _How) -> Opened:
    metadata, adapter = checkpoint.load_adapter(path)
    folder = checkpoint.resolve(path)
    if metadata["kind"] != "ltu-as-checkpoint":
        raise UserError(
            f"{folder} is a {metadata['kind']}, which gives tags, not answers; give a "
            "checkpoint of stage 1 to 3"
        )

    entry = metadata["base"]["llama"]
    if how.llama is not None:
        entry = {"path": str(Path(how.llama).resolve()), "sha256": entry["sha256"]}
    language = bases.open_base(entry, relative_to=folder, what="language model")
    return _opened(
        folder,
        config=LTUASConfig.from_dict(metadata["model"]),
        params=merge(language.params.tensors, as_tensors(adapter)),
        tokenizer_dir=language.tokenizer_dir,
        whisper=_heard_with(metadata, folder=folder, given=how.whisper),
        hearing=encoder_dtype(metadata),
        writer=_written_with(metadata, folder=folder, given=how.transcriber),
        rule=rule(how.transcription or metadata.get("transcription")),
        positions=language.max_position_embeddings,
        dtype=how.dtype,
    )


def _written_with(
    metadata: Mapping[str, Any], *, folder: Path, given: str | Path | None
) -> store.Weights | None:
    """The Whisper that writes: the given one, that of the training data, or None: who hears."""
    if given is not None:
        return _given_writer(given)
    entry = metadata["base"].get("transcriber")
    if entry is None:
        return None
    return bases.open_base(entry, relative_to=folder, what="transcribing Whisper")


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
        if found.verdict == Likeness.SAME:
            return weights
        if found.verdict == Likeness.PRECISION:
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
    writer: store.Weights | None,
    rule: TranscribeOptions,
    positions: int | None,
    dtype: str,
) -> Opened:
    fns = _ltu_as_fns(config, dtype)
    store.check_against(fns.shapes, params, what=str(path))
    listener = None if whisper is None else _listener(whisper, config, dtype=hearing)
    if writer is not None:
        transcriber = _transcriber(writer, None)
    else:
        transcriber = None if whisper is None else _transcriber(whisper, listener)
    tokenizer = None
    if tokenizer_dir is not None:
        tokenizer = load_tokenizer(tokenizer_dir)
        require_rows(tokenizer, rows=config.llama.vocab_size, what=str(tokenizer_dir))
    return Opened(
        path=path,
        fns=fns,
        params={name: jnp.asarray(params[name].read(), jnp.dtype(dtype)) for name in fns.shapes},
        tokenizer=tokenizer,
        listener=listener,
        transcriber=transcriber,
        rule=rule,
        positions=positions,
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
    return Listener(fns=fns, params=params)


def _transcriber(weights: store.Weights, listener: Listener | None) -> Transcriber | None:
    """A Whisper that writes, in float32, with the parameters of `listener` where that is given.

    None without its tokenizer.
    """
    if weights.tokenizer_dir is None:
        return None
    fns = _whisper_fns(WhisperConfig.from_dict(weights.config), dtype=_WHISPER_DTYPE)
    if listener is None:
        store.check_against(fns.shapes, weights.params, what=str(weights.path))
        params = {name: jnp.asarray(weights.params[name], jnp.float32) for name in fns.shapes}
    else:
        params = listener.params
    tokenizer = load_whisper_tokenizer(weights.tokenizer_dir)
    return Transcriber.of(fns, params, tokenizer=tokenizer)
