"""The parts of a stage before anything is trained: base weights, model functions, loss, data."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data_pipelines import mixtures
from data_pipelines.features import fingerprint
from data_pipelines.input_pipeline import DataConfig, InputPipeline
from ltu_jax.core.distributed import batch_share
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import audio_layout, check_rows, make_mesh
from ltu_jax.core.trees import Params
from ltu_jax.models import build
from ltu_jax.preprocessing.text import Tokenizer, load_tokenizer
from ltu_jax.stages.settings import StageSettings, missing_weights
from ltu_jax.training import losses, metrics
from ltu_jax.weights import ltu_as
from ltu_jax.weights.bases import open_weights
from ltu_jax.weights.fingerprint import Fingerprint, of_encoder
from ltu_jax.weights.store import Weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bases:
    """Opened base weights and the tokenizer that comes with the language model."""

    whisper: Weights
    llama: Weights | None
    tokenizer: Tokenizer | None
    encoder_dtype: str

    @property
    def fingerprint(self) -> str:
        """The exact name of the features that a step computes."""
        return fingerprint(whisper_sha256=self.whisper.sha256, dtype=self.encoder_dtype)

    def clip_fingerprint(self) -> Fingerprint:
        """What the encoder makes of the fixed clip; computed when first asked."""
        return of_encoder(self.whisper, dtype=self.encoder_dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything of one stage that depends on settings and files, before anything is trained."""

    settings: StageSettings
    mesh: Mesh
    bases: Bases
    fns: Any
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
    whisper = open_weights(settings.weights.whisper, kind="whisper")
    _same_config(whisper, dataclasses.asdict(settings.model.whisper), key="whisper")
    llama = tokenizer = None
    if settings.model.llama is not None:
        llama = open_weights(settings.weights.llama, kind="llama")
        _same_config(llama, dataclasses.asdict(settings.model.llama), key="llama")
        if llama.tokenizer_dir is None:
            raise UserError(
                f"{llama.path} has no tokenizer.model or tokenizer.json; convert the weights again "
                "from a folder that has one"
            )
        tokenizer = load_tokenizer(llama.tokenizer_dir)
    return Bases(
        whisper=whisper,
        llama=llama,
        tokenizer=tokenizer,
        encoder_dtype=settings.compute.encoder_dtype,
    )


def assemble(settings: StageSettings, bases: Bases) -> Stage:
    """Model functions, loss and data of a stage."""
    dtype = jnp.dtype(settings.compute.dtype)
    mesh = make_mesh(settings.mesh)
    check_rows(
        settings.data.rows_per_batch, mesh=mesh, accumulation=settings.optimizer.accumulation
    )
    pipeline = open_pipeline(settings, bases, mesh=mesh)
    layout = audio_layout(mesh)
    encoder = build.whisper(settings.model.whisper, dtype=settings.compute.encoder_dtype)

    def features(frozen: Params, batch: Mapping[str, Any]) -> Any:
        if "features" in batch:
            return layout.spread(batch["features"])
        heard = layout.spread(batch["log_mel"])
        return layout.spread(encoder.features(losses.under(frozen, "whisper."), heard))

    if settings.stage == "tagging":
        fns: Any = build.tagger(
            settings.model.tltr, len(pipeline.labels), dtype=dtype, remat=settings.compute.remat
        )
        loss_fn = losses.tagging_loss(fns.logits, features=features)
    else:
        fns = build.ltu_as(
            settings.model.ltu_as(),
            dtype=dtype,
            remat=settings.compute.remat,
            lay_audio=layout.gather,
        )
        loss_fn = losses.language_loss(fns.hidden, unembed=fns.unembed, features=features)
    rows = settings.data.epochs * pipeline.rows_per_epoch
    steps = settings.steps or max(1, math.ceil(rows / settings.data.rows_per_batch))
    return Stage(
        settings=settings,
        mesh=mesh,
        bases=bases,
        fns=fns,
        features=features,
        loss_fn=loss_fn,
        pipeline=pipeline,
        steps=steps,
    )


def open_pipeline(
    settings: StageSettings, bases: Bases, *, mesh: Mesh, tokenizer: Any = None, **changes: Any
) -> InputPipeline:
    """The training rows of a stage; `changes` replace fields of the `DataConfig` (validation)."""
    data, share = settings.data, batch_share(mesh)
    mixture = mixtures.mixture(data.tasks)
    values = dict(
        records=data.records,
        split=data.split,
        layout=data.layout,
        cutoff=data.cutoff,
        pairs_per_row=data.pairs_per_row,
        rows_per_batch=data.rows_per_batch,
        train_on=data.train_on,
        features=data.features,
        seed=settings.seed,
        audio_tokens=settings.model.audio_tokens,
        n_mels=settings.model.whisper.n_mels,
        tasks=mixture.tasks,
        datasets=mixture.datasets,
        lengths=data.lengths,
        group_by_length=data.group_by_length,
        feature_fingerprint=bases.fingerprint,
        workers=data.workers,
    )
    return InputPipeline(
        DataConfig(**{**values, **changes}),
        tokenizer=tokenizer or bases.tokenizer,
        process_index=share.index,
        process_count=share.count,
        clip_fingerprint=bases.clip_fingerprint,
    )


def host_batches(stage: Stage, *, start_step: int) -> Iterator[dict[str, np.ndarray]]:
    """This host's training batches from `start_step` on, targets located."""
    for batch in stage.pipeline.batches(start_step=start_step):
        yield located(batch)


def located(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch as the loss wants it; several hosts must agree on shapes without talking."""
    if "labels" not in batch:
        return dict(batch)
    return losses.with_targets(batch, dense=jax.process_count() > 1)


def is_adapter(path: str) -> bool:
    """Whether a parameter belongs to the adapter, which every checkpoint holds."""
    return ltu_as.is_adapter(path) and not path.startswith("whisper.")


def count_work(
    batch: Mapping[str, np.ndarray], *, audio_tokens: int, parts: int
) -> metrics.StepWork:
    """What a host batch asks of the model, times the number of parts of the global batch."""
    clips = len(next(iter(batch.values()))) * parts
    text = int((batch["segment_ids"] > 0).sum()) if "segment_ids" in batch else 0
    wanted = batch.get(losses.TARGETS)
    targets = 0 if wanted is None else int((wanted != losses.IGNORED).sum())
    return metrics.StepWork(
        clips=clips,
        audio_tokens=clips * audio_tokens,
        text_tokens=text * parts,
        targets=targets * parts,
    )


def model_size(stage: Stage) -> metrics.ModelSize:
    """Matrix sizes of a stage's model, read from its shapes."""
    settings, shapes = stage.settings, stage.fns.shapes
    whisper, llama = settings.model.whisper, settings.model.llama

    def scalars(*needles: str, without: tuple[str, ...] = ()) -> int:
        chosen = (
            math.prod(leaf.shape)
            for path, leaf in shapes.items()
            if all(n in path for n in needles) and not any(n in path for n in without)
        )
        return sum(chosen)

    on_the_fly = settings.data.features == "on_the_fly"
    trained = [flag for pattern, flag in settings.trainable if pattern.startswith("tltr")]
    return metrics.ModelSize(
        llm_layers=scalars("llama.layers.", ".kernel"),
        llm_depth=0 if llama is None else llama.num_hidden_layers,
        attention_width=0 if llama is None else llama.num_attention_heads * llama.head_dim,
        vocab_head=0 if llama is None else llama.vocab_size * llama.hidden_size,
        lora=scalars(".lora_"),
        tltr=scalars("tltr.", "kernel"),
        tltr_trained=trained == [True],
        audio_proj=scalars("audio_proj.kernel"),
        whisper_layers=whisper.n_audio_layer,
        encoder=12 * whisper.n_audio_state**2 * whisper.n_audio_layer if on_the_fly else 0,
        encoder_frames=500,
        encoder_depth=whisper.n_audio_layer,
        encoder_width=whisper.n_audio_state,
    )


def _same_config(weights: Weights, expected: Mapping[str, Any], *, key: str) -> None:
    found = leaves(weights.config)
    wanted = leaves(dict(expected))
    differing = [
        f"{name} is {found.get(name)!r} there and {wanted.get(name)!r} here"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise UserError(
            f"{weights.path} is of another architecture than config.model.{key}: "
            f"{'; '.join(differing[:5])}; choose other weights (--config.weights.{key}=DIR) or set "
            f"the sizes (--config.model.{key}.<field>=...)"
        )


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested config to `{"a.b": value}`, tuples as lists, for comparison."""
    if isinstance(tree, Mapping):
        found: dict[str, Any] = {}
        for name, value in tree.items():
            found |= leaves(value, f"{prefix}{name}.")
        return found
    if isinstance(tree, list | tuple):
        tree = [list(item) if isinstance(item, tuple) else item for item in tree]
    return {prefix[:-1]: tree}
