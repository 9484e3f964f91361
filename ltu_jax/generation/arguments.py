"""Check what callers hand over before any work: each error names the argument and its value."""

import numbers
import os
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError, brief, spell
from ltu_jax.core.paths import as_path
from ltu_jax.core.values import text
from ltu_jax.generation.request import AnswerMode, EncodedClip, Request
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.preprocessing import audio as audio_lib

# A file, the bytes of one, a decoded clip, or float32 samples at 16 kHz mono.
AudioSource = str | os.PathLike | bytes | audio_lib.Audio | np.ndarray


def question(name: str, value: Any) -> str:
    """Require text that asks something."""
    if not text(name, value).strip():
        raise UserError(f"{_the(name)} is empty; ask something about the clip")
    return value


def _the(name: str) -> str:
    """ "the question", but "requests[2].question" and "question 3"."""
    plain = spell(name)
    return f"the {plain}" if plain == "question" else plain


def one_of(kind: type[StrEnum], value: Any, name: str) -> Any:
    """Return a member of `kind` by its value."""
    if not isinstance(value, str) or value not in list(kind):
        raise UserError(f"{spell(name)} {value!r} is unknown; known are {', '.join(kind)}")
    return kind(value)


def folder(name: str, value: Any) -> Path:
    """Require a path that names something."""
    if not isinstance(value, str | os.PathLike) or isinstance(value, bytes):
        raise UserError(f"{spell(name)} is {type(value).__name__} {brief(value)}: give a folder")
    plain = os.fspath(value)
    if not isinstance(plain, str) or not plain or "\0" in plain:
        raise UserError(f"{spell(name)} is {plain!r}: give a folder")
    return as_path(plain, option=spell(name))


def one_config(value: Any, *, name: str = "sampling") -> SamplingConfig | None:
    """Require a sampling config, or None for greedy decoding."""
    if value is not None and not isinstance(value, SamplingConfig):
        raise UserError(
            f"{spell(name)} is {type(value).__name__} {brief(value)}: give a SamplingConfig, or "
            "None for greedy decoding"
        )
    return value


def configs(value: Any) -> Any:
    """Require one sampling config, several, or None."""
    if value is None or isinstance(value, SamplingConfig):
        return value
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        return one_config(value)
    several = list(value)
    for number, config in enumerate(several):
        if not isinstance(config, SamplingConfig):
            raise UserError(f"sampling[{number}] is {brief(config)}: give a SamplingConfig")
    return several


# --- audio ----------------------------------------------------------------------------------------


def clip(name: str, source: Any) -> audio_lib.Audio:
    """Return the 16 kHz mono samples of one clip.

    Raises:
        UserError: what is no clip, by `name`; a file that cannot be used, by its path.
    """
    if isinstance(source, audio_lib.Audio):
        samples = np.asarray(source.samples)
        if samples.ndim != 1 or len(samples) < audio_lib.HOP:
            raise UserError(f"{spell(name)}: an Audio of samples {brief(samples)}; give 10 ms [C]")
        return source if np.isfinite(samples).all() else _samples(name, samples)
    if isinstance(source, bytes | bytearray | memoryview):
        return audio_lib.load_audio(bytes(source))
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if not isinstance(path, str) or not path or "\0" in path:
            raise UserError(f"{spell(name)} is {path!r}: name an audio file")
        return audio_lib.load_audio(Path(path))
    if isinstance(source, list | tuple) and source:
        plain = all(isinstance(sample, numbers.Real) for sample in source)
        if plain and not isinstance(source[0], bool):
            return _samples(name, np.asarray(source, np.float64))
    elif hasattr(source, "__array__"):
        return _samples(name, np.asarray(source))
    raise UserError(
        f"{spell(name)} is {type(source).__name__} {brief(source)}: give one file, its bytes, an "
        "Audio, or float samples [C] at 16 kHz"
    )


def _samples(name: str, samples: np.ndarray) -> audio_lib.Audio:
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        raise UserError(
            f"{spell(name)} has samples of shape {list(samples.shape)}, which is "
            f"{samples.shape[1]} channels; give [samples, channels]: its transpose, .T"
        )
    return audio_lib.from_samples(samples, rate=audio_lib.SAMPLE_RATE, name=spell(name))


def clips(source: Any, *, name: str = "clips") -> Iterator[tuple[str, Any]]:
    """Return (name, clip) for each of several clips, still undecoded.

    Raises:
        UserError: at once, for one clip where several belong; a file's name is no list of clips.
    """
    single = isinstance(source, str | os.PathLike | bytes | bytearray | audio_lib.Audio)
    if single or hasattr(source, "__array__") or not isinstance(source, Iterable):
        raise UserError(
            f"{spell(name)} is {type(source).__name__} {brief(source)}: give a list of clips, "
            "[clip] for one"
        )
    return ((f"{name}[{number}]", item) for number, item in enumerate(source))


def features(name: str, value: Any, *, config: LTUASConfig) -> Float[np.ndarray, "W A D"]:
    """Require audio features of one clip, as the model reads them."""
    return _features(name, value, config=config, rows=())


def _features(name: str, value: Any, *, config: LTUASConfig, rows: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{spell(name)} are {array.dtype} {list(array.shape)}: give floats")
    wanted = (*rows, config.audio_layers, config.audio_tokens, config.tltr.d_model)
    fits = array.ndim == len(wanted) and array.size > 0
    if not fits or any(
        want not in (None, size) for want, size in zip(wanted, array.shape, strict=True)
    ):
        sizes = ", ".join("layers" if size is None else str(size) for size in wanted)
        raise UserError(
            f"{spell(name)} have the shape {list(array.shape)}; this model hears [{sizes}] "
            "(layers, audio tokens, width)"
        )
    finite = np.isfinite(array)
    if not finite.all():
        place = np.argwhere(~finite)[0].tolist()
        raise UserError(f"{spell(name)} hold {array[tuple(place)]} at {place}: encode it again")
    return array


# --- what was heard and asked ---------------------------------------------------------------------


def encoded_clip(value: Any, *, config: LTUASConfig) -> EncodedClip:
    """Require what `listen` gives."""
    if not isinstance(value, EncodedClip):
        raise UserError(
            f"clip is {type(value).__name__} {brief(value)}: give what model.listen(clip) returns"
        )
    text("clip.spoken_text", value.spoken_text)
    if value.features is not None:
        features("clip.features", value.features, config=config)
    return value


def requests(value: Any, *, config: LTUASConfig) -> list[Request]:
    """Require a list of requests, each with what its fields should be."""
    if isinstance(value, Request | str | bytes) or not isinstance(value, Iterable):
        raise UserError(
            f"requests is {type(value).__name__} {brief(value)}: give a list of Request"
        )
    items = list(value)
    for number, request in enumerate(items):
        name = f"requests[{number}]"
        if not isinstance(request, Request):
            raise UserError(f"{name} is {type(request).__name__} {brief(request)}: give a Request")
        question(f"{name}.question", request.question)
        text(f"{name}.spoken_text", request.spoken_text)
        if request.audio_features is not None:
            features(f"{name}.audio_features", request.audio_features, config=config)
    return items


def transcript_of(spoken_text: Any, *, audio: Any, mode: Any) -> tuple[AnswerMode, str | None]:
    """AnswerMode and given transcript, which say whether a clip is needed."""
    mode = one_of(AnswerMode, mode, "mode")
    if spoken_text is not None:
        text("spoken_text", spoken_text)
    if audio is None and (mode is not AnswerMode.TEXT or spoken_text is None):
        raise UserError(
            f"{spell('mode')} {mode.value!r} needs audio; only mode 'text' with a "
            f"{spell('spoken_text')} does not"
        )
    return mode, spoken_text


def devices(value: Any) -> Sequence[jax.Device]:
    """Require at least one device, each once."""
    single = isinstance(value, jax.Device | str) or not isinstance(value, Iterable)
    listed = [] if single else list(value)
    if not listed or not all(isinstance(device, jax.Device) for device in listed):
        raise UserError(f"devices is {brief(value)}: give a list of them, such as jax.devices()")
    if len(set(listed)) < len(listed):
        raise UserError(f"devices is {brief(value)}: give each once")
    return listed


# --- numbers --------------------------------------------------------------------------------------


def logits_inputs(
    input_ids: Any, attention_mask: Any, audio_features: Any | None, *, config: LTUASConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return ids [B, L], their mask [B, L] of booleans, and features or None."""
    ids, mask = np.asarray(input_ids), np.asarray(attention_mask)
    shape, audio = ids.shape, config.audio_tokens
    if len(shape) != 2 or mask.shape not in (shape, (shape[0], audio + shape[-1])):
        raise UserError(
            f"input_ids {list(shape)} and attention_mask {list(mask.shape)} do not agree; the "
            f"mask must be [B, L] or [B, {audio} + L]"
        )
    if 0 in shape:
        raise UserError(f"input_ids {list(shape)} are empty; give at least one id")
    vocabulary = config.llama.vocab_size
    if not np.issubdtype(ids.dtype, np.integer):
        raise UserError(f"input_ids are {ids.dtype}; give integers, ids of the tokenizer")
    outside = (ids < 0) | (ids >= vocabulary)
    if outside.any():
        place = np.argwhere(outside)[0].tolist()
        raise UserError(
            f"input_ids{place} is {ids[tuple(place)]}: the vocabulary has the ids 0 to "
            f"{vocabulary - 1}"
        )
    if mask.dtype == object or not np.isin(mask, (0, 1)).all():
        raise UserError(f"attention_mask {brief(mask)} holds other than 0 and 1")
    if mask.shape != shape and not mask[:, : -shape[1]].all():
        raise UserError("attention_mask hides audio tokens; the model always attends to them")
    if audio_features is not None:
        audio_features = _features(
            "audio_features", audio_features, config=config, rows=(shape[0],)
        )
    return ids, mask[:, -shape[1] :] != 0, audio_features
