"""Put together a stage before it is trained: base weights, model, loss, data."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.records.bad_records import BadRecordLog
from data_pipelines.records.whisper_features import fingerprint
from ltu_jax.core.distributed import Share, batch_share
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import check_rows, make_mesh
from ltu_jax.preprocessing.tokenizer import Tokenizer, load_tokenizer, require_rows
from ltu_jax.training import losses
from ltu_jax.training.program import data_config, model_functions
from ltu_jax.training.stage_config import StageSettings, missing_weights
from ltu_jax.weights.fingerprint import Fingerprint, of_encoder
from ltu_jax.weights.open import open_weights
from ltu_jax.weights.store import Weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bases:
    """Opened base weights and the tokenizer that comes with the language model."""

    whisper: Weights
    transcriber: Weights | None
    llama: Weights | None
    tokenizer: Tokenizer | None
    encoder_dtype: str

    @property
    def fingerprint(self) -> str:
        """The exact name of the features that a step computes."""
        return fingerprint(whisper_sha256=self.whisper.sha256, dtype=self.encoder_dtype)

    def clip_fingerprint(self) -> Fingerprint:
        """Return the encoder's output for the fixed clip; it takes a forward pass."""
        return of_encoder(self.whisper, dtype=self.encoder_dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything of one stage that depends on settings and files, before anything is trained."""

    settings: StageSettings
    mesh: Mesh
    bases: Bases
    model: Any
    features: losses.Features
    loss_fn: Callable
    pipeline: InputPipeline
    steps: int


def open_bases(settings: StageSettings) -> Bases:
    """Open the base weights and compare their configs with the settings.

    Raises:
        UserError: folders that are not there (all of them in one message), or another architecture.
    """
    problem = missing_weights(settings)
    if problem:
        raise UserError(problem)
    given = settings.weights
    whisper = open_weights(given.whisper, kind="whisper", option="config.weights.whisper")
    _same_config(whisper, dataclasses.asdict(settings.model.whisper), key="whisper")
    transcriber = llama = tokenizer = None
    if given.transcriber and settings.model.llama is not None:
        transcriber = open_weights(
            given.transcriber, kind="whisper", option="config.weights.transcriber"
        )
        if transcriber.tokenizer_dir is None:
            raise UserError(
                f"config.weights.transcriber {transcriber.named} has no tokenizer.json, so it "
                "cannot have written; convert it again from a source that has one"
            )
    if settings.model.llama is not None:
        llama = open_weights(given.llama, kind="llama", option="config.weights.llama")
        _same_config(llama, dataclasses.asdict(settings.model.llama), key="llama")
        if llama.tokenizer_dir is None:
            raise UserError(
                f"{llama.named} has no tokenizer.model or tokenizer.json; convert the weights "
                "again from a folder that has one"
            )
        tokenizer = load_tokenizer(llama.tokenizer_dir)
        require_rows(tokenizer, rows=settings.model.llama.vocab_size, subject=llama.named)
        _enough_positions(settings, llama)
    return Bases(
        whisper=whisper,
        transcriber=transcriber,
        llama=llama,
        tokenizer=tokenizer,
        encoder_dtype=settings.compute.encoder_dtype,
    )


def _enough_positions(settings: StageSettings, llama: Weights) -> None:
    """Require positions for one clip and its text, however many pairs share a row."""
    longest = settings.model.audio_tokens + settings.data.cutoff
    limit = llama.max_position_embeddings
    if limit is not None and longest > limit:
        raise UserError(
            f"data.cutoff {settings.data.cutoff} and {settings.model.audio_tokens} audio tokens "
            f"are {longest} positions; {llama.named} has {limit}: choose a smaller data.cutoff"
        )


def assemble(
    settings: StageSettings, bases: Bases, *, devices: Sequence[jax.Device] | None = None
) -> Stage:
    """Put together model functions, loss and data of a stage on `devices`, None for all."""
    mesh = make_mesh(settings.mesh, devices)
    accumulation = settings.optimizer.accumulation
    check_rows(settings.data.rows_per_batch, mesh=mesh, accumulation=accumulation)
    pipeline = open_pipeline(settings, bases, share=batch_share(mesh), accumulation=accumulation)
    functions = model_functions(settings, labels=len(pipeline.labels), mesh=mesh)
    rows = settings.data.epochs * pipeline.rows_per_epoch
    steps = settings.steps or max(1, math.ceil(rows / settings.data.rows_per_batch))
    return Stage(
        settings=settings,
        mesh=mesh,
        bases=bases,
        model=functions.model,
        features=functions.features,
        loss_fn=functions.loss_fn,
        pipeline=pipeline,
        steps=steps,
    )


def open_pipeline(
    settings: StageSettings,
    bases: Bases,
    *,
    share: Share,
    tokenizer: Any = None,
    **changes: Any,
) -> InputPipeline:
    """Open the training rows of a stage that are `share` of each global batch.

    `changes` replace fields of the `DataConfig` (validation).
    """
    return InputPipeline(
        data_config(settings, feature_fingerprint=bases.fingerprint, **changes),
        tokenizer=tokenizer or bases.tokenizer,
        tokenizer_dir=None if bases.llama is None else bases.llama.path,
        process_index=share.index,
        process_count=share.count,
        clip_fingerprint=bases.clip_fingerprint,
        bad_log=BadRecordLog(settings.run_dir, process=jax.process_index()),
    )


def _same_config(weights: Weights, expected: Mapping[str, Any], *, key: str) -> None:
    theirs = leaves(weights.config)
    wanted = leaves(dict(expected))
    differing = [
        f"{name} is {theirs.get(name)!r} there and {wanted.get(name)!r} here"
        for name in sorted(theirs.keys() | wanted.keys())
        if theirs.get(name) != wanted.get(name)
    ]
    if differing:
        raise UserError(
            f"{weights.named} is of another architecture than config.model.{key}: "
            f"{'; '.join(differing[:5])}; choose other weights (--config.weights.{key}=DIR) or set "
            f"the sizes (--config.model.{key}.<field>=...)"
        )


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested config to `{"a.b": value}`, tuples as lists, for comparison."""
    if isinstance(tree, Mapping):
        flat: dict[str, Any] = {}
        for name, value in tree.items():
            flat |= leaves(value, f"{prefix}{name}.")
        return flat
    if isinstance(tree, list | tuple):
        tree = [list(item) if isinstance(item, tuple) else item for item in tree]
    return {prefix[:-1]: tree}
