"""Load a model for answering: functions, parameters, tokenizer and the Whispers, by its path."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.core.trees import Params
from ltu_jax.generation import limits
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.generate import LONG_ANSWER
from ltu_jax.generation.limits import Prompts
from ltu_jax.generation.transcribe import Transcriber, load_whisper_tokenizer
from ltu_jax.generation.transcription import TranscribeOptions, rule
from ltu_jax.generation.whispers import Listener, Whispers, give
from ltu_jax.models.functional import Functional
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.preprocessing.tokenizer import Tokenizer, load_tokenizer, require_rows
from ltu_jax.weights.open import open_model, open_weights
from ltu_jax.weights.open_whispers import (
    WHISPER_DTYPE,
    encoder_dtype,
    open_listener,
    open_transcriber,
)
from ltu_jax.weights.placement import place_language_model
from ltu_jax.weights.store import Weights, check_against

# What `dtype` may be. Of "int8" the kernels of the language model alone are int8; what is left, and
# products, are in the dtype that it was trained in beside such a base.
DTYPES = ("float32", "bfloat16", "int8")
WHOLE = {"int8": "bfloat16"}


@functools.lru_cache(maxsize=4)
def _model(config: LTUASConfig, dtype: str) -> Functional[LTUAS]:
    """Return the same object for the same sizes, so that a second model compiles nothing."""
    compute, quantised = WHOLE.get(dtype, dtype), dtype == "int8"
    return LTUAS.functional(config, dtype=jnp.dtype(compute), int8_base=quantised)


_whisper = functools.lru_cache(maxsize=4)(Whisper)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A model in memory; what the path has none of is None.

    `transcriber` is the Whisper that writes, with the `rule` it writes by; `positions` says how
    long audio, prompt and answer together may be (None where the weights do not say);
    `weights_sha256` are the hashes of its weights: its own, of the Whisper that hears, of another
    that writes.
    """

    path: Path
    weights_sha256: tuple[str | None, ...]
    model: Functional[LTUAS]
    params: Params
    tokenizer: Tokenizer | None
    listener: Listener | None
    transcriber: Transcriber | None
    rule: TranscribeOptions
    positions: int | None
    data_parallel: DataParallel = field(default_factory=DataParallel)

    @property
    def config(self) -> LTUASConfig:
        """Return the sizes of the language model, the TLTR and the audio features."""
        return self.model.config

    @functools.cached_property
    def whispers(self) -> Whispers:
        """Return what hears clips and writes what is said in them."""
        shared = ("path", "config", "listener", "transcriber", "rule", "data_parallel")
        return Whispers(**{name: getattr(self, name) for name in shared})

    @functools.cached_property
    def _limits(self) -> limits.Limits:
        return limits.of_model(
            self.config.llama,
            self.params,
            positions=self.positions,
            apart_from=LONG_ANSWER,
            cpu=jax.default_backend() == "cpu",
        )

    @functools.cached_property
    def _prompts(self) -> Prompts:
        tokenizer, audio = self._need_tokenizer(), self.config.audio_tokens
        return Prompts(tokenizer=tokenizer, limits=self._limits, audio=audio)

    def _need_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError(
                f"{self.path} has no tokenizer, so it cannot read a question; put tokenizer.model "
                "or tokenizer.json there, or give the language model's weights directory: "
                f"{give(self.path, 'llama')}"
            )
        return self.tokenizer


def load_model(
    path: str | Path,
    *,
    whisper: str | Path | None,
    llama: str | Path | None,
    dtype: str,
    transcriber: str | Path | None = None,
    transcription: str | None = None,
    mesh: MeshConfig | None = None,
) -> LoadedModel:
    """Load a model for answering.

    Args:
        path: weights directory of kind "ltu-as", run, or checkpoint.
        whisper: a Whisper's weights in place of the one that the checkpoint names; a
            weights directory names none.
        llama: base weights in place of those that the checkpoint names (same hash), or where a
            weights directory without tokenizer finds one.
        dtype: of the language model and TLTR: parameters and products; a name of `DTYPES`. Whisper
            hears in the precision that the model was trained with (`encoder_dtype`) and writes in
            float32.
        transcriber: the Whisper that writes, of any size, in place of the one that the checkpoint
            names, else of the one that hears.
        transcription: a name of `transcription.RULES`; None is the rule of the training data.
        mesh: how the devices of this process hold the model; None is one device. The parameters
            are read from the file part by part, as each device needs them.

    Raises:
        UserError: nothing loadable there, base weights missing or changed, sizes that differ.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(f"{spell('dtype')} {dtype!r}: choose {', '.join(DTYPES)}")
    if transcription is not None:
        rule(transcription)  # known before anything is read
    devices = jax.local_devices()
    layout = DataParallel() if mesh is None else DataParallel(mesh=make_mesh(mesh, devices))
    opened = open_model(path, llama=llama)
    if opened.kind != "ltu-as":
        raise UserError(
            f"{opened.path} holds {opened.kind!r} weights; answering needs a complete 'ltu-as' "
            "directory or a checkpoint of stage 1 to 3"
        )
    config = LTUASConfig.from_dict(opened.config)
    hears = open_listener(opened, whisper)
    writes = open_transcriber(opened, transcriber)
    model = _model(config, dtype)
    params = place_language_model(
        opened.tensors,
        model.shapes,
        base_dtype=dtype,
        dtype=WHOLE.get(dtype, dtype),
        mesh=layout.mesh or make_mesh(MeshConfig(data=1, fsdp=1, tensor=1), devices[:1]),
        subject=str(opened.path),
    )
    hearing = encoder_dtype(opened.checkpoint)
    listener = None if hears is None else _listener(hears, dtype=hearing, layout=layout)
    if writes is None and hears is not None:
        writer = _transcriber(hears, params=listener.params)
    else:
        writer = None if writes is None else _transcriber(writes)
    if writer is not None:
        writer = writer.over(layout)
    return LoadedModel(
        path=opened.path,
        weights_sha256=tuple(
            None if one is None else one.sha256 for one in (opened, hears, writes)
        ),
        model=model,
        params=params,
        tokenizer=_tokenizer(opened.tokenizer_dir, rows=config.llama.vocab_size),
        listener=listener,
        transcriber=writer,
        rule=rule(transcription or (opened.checkpoint or {}).get("transcription")),
        positions=opened.max_position_embeddings,
        data_parallel=layout,
    )


def _tokenizer(folder: Path | None, *, rows: int) -> Tokenizer | None:
    if folder is None:
        return None
    tokenizer = load_tokenizer(folder)
    require_rows(tokenizer, rows=rows, subject=str(folder))
    return tokenizer


def _arrays(weights: Weights, shapes: Any, *, dtype: str) -> Params:
    return {name: jnp.asarray(weights.params[name], jnp.dtype(dtype)) for name in shapes}


def _listener(weights: Weights, *, dtype: str, layout: DataParallel) -> Listener:
    """Make a Whisper that hears: parameters in float32, features in `dtype`."""
    whisper = _whisper(WhisperConfig.from_dict(weights.config), dtype=dtype)
    check_against(whisper.shapes, weights.params, subject=str(weights.path))
    params = _arrays(weights, whisper.shapes, dtype="float32")
    return Listener(whisper=whisper, params=layout.copies(params))


def _transcriber(weights: Weights, *, params: Params | None = None) -> Transcriber | None:
    """Make a Whisper that writes, in float32, of `params` where they are in memory already.

    None without its tokenizer.
    """
    if weights.tokenizer_dir is None:
        return None
    whisper = _whisper(WhisperConfig.from_dict(weights.config), dtype=WHISPER_DTYPE)
    if params is None:
        check_against(whisper.shapes, weights.params, subject=str(weights.path))
        params = _arrays(weights, whisper.shapes, dtype="float32")
    return Transcriber.of(whisper, params, tokenizer=load_whisper_tokenizer(weights.tokenizer_dir))


def load_transcriber(path: str | Path) -> Transcriber:
    """Load a transcriber from a Whisper weights directory, in float32.

    Raises:
        UserError: not Whisper weights, damaged, or without tokenizer.json.
    """
    weights = open_weights(path, kind="whisper", option=spell("transcriber"))
    load_whisper_tokenizer(weights.path)  # its error says what to do without one
    return _transcriber(weights)
