"""What the train-step benchmark compares: sizes, random weights, and our step as stages use it."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import alternate
from benchmarks.batches import CUTOFF, Work, make_work, with_true_positions
from benchmarks.joined import require_equal_losses
from benchmarks.model_sizes import ltu_as
from benchmarks.random_weights import draw
from configs.common import PROJECTION_TLTR_LORA
from ltu_jax.core.sharding import MeshConfig, batch_sharding, make_mesh, param_shardings
from ltu_jax.models.attention import require_platform
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import with_targets
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import flops, losses, optimizer, state, step

TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
LEARNING_RATE, CLIP_NORM = 2e-4, 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """Sizes and dtypes of a run."""

    config: LTUASConfig
    dtype: str
    torch_checkpointing: bool
    batches: int
    pairs_per_batch: int
    pairs_per_clip: int


def setup(size: str, *, pairs_per_batch: int | None, pairs_per_clip: int, batches: int) -> Setup:
    """Return the setup of one of `model_sizes.SIZES`."""
    return Setup(
        config=ltu_as(size),
        dtype="bfloat16" if alternate.on_gpu() else "float32",
        torch_checkpointing=size == "7b",
        batches=batches,
        pairs_per_batch=pairs_per_batch or (64 if size == "7b" else 8),
        pairs_per_clip=pairs_per_clip,
    )


def random_params(setup: Setup, *, seed: int, int8_base: bool = False) -> dict[str, jax.Array]:
    """Draw our weights where JAX computes, the base in the run's dtype or its kernels in int8."""
    model = LTUAS.functional(setup.config, dtype=setup.dtype, int8_base=int8_base)
    return draw(model.shapes, dtype=setup.dtype, seed=seed)


def draw_work(setup: Setup, *, seed: int) -> Work:
    """Draw batches of the setup's sizes for its model."""
    config = setup.config
    return make_work(
        vocab=config.llama.vocab_size,
        feature_shape=(config.audio_layers, config.audio_tokens, config.tltr.d_model),
        batches=setup.batches,
        pairs_per_batch=setup.pairs_per_batch,
        pairs_per_clip=setup.pairs_per_clip,
        seed=seed,
    )


class Ours:
    """The train step as stages put it together, over the benchmark's batches."""

    def __init__(
        self,
        setup: Setup,
        params: Mapping[str, Any],
        *,
        attention: str = "blocks",
        int8_base: bool = False,
    ):
        # PyTorch runs on one device as well.
        mesh = make_mesh(MeshConfig(data=1, fsdp=1, tensor=1), jax.devices()[:1])
        require_platform(attention, mesh)
        self._sharding = batch_sharding(mesh)
        # As full-size stages are configured. To compute the cheap parts again is faster than to
        # keep them, on a CPU too.
        model = LTUAS.functional(
            setup.config,
            dtype=setup.dtype,
            remat="lora",
            attention=attention,
            longest_pair=CUTOFF,
            int8_base=int8_base,
        )
        loss_fn = losses.language_loss(model, features=lambda _, batch: batch["features"])
        trainable, frozen = state.split_trainable(params, PROJECTION_TLTR_LORA)
        # steps donate them, and others may be made of the same parameters
        trainable = jax.tree.map(jnp.copy, trainable)
        settings = optimizer.OptimizerConfig(
            learning_rate=LEARNING_RATE,
            group_multipliers=(),
            schedule="constant",
            warmup_steps=0,
            b1=0.9,
            b2=0.999,
            eps=1e-8,
            weight_decay=0.0,
            clip_norm=CLIP_NORM,
            accumulation=1,
            loss_mean="micro",
        )
        tx = optimizer.make_optimizer(settings, paths=trainable, steps=1_000_000)
        self.state = state.create_state(trainable, tx, mesh=mesh)
        self._frozen = jax.device_put(frozen, param_shardings(mesh, frozen))
        state_shardings = state.state_shardings(self.state, mesh=mesh)
        frozen_shardings = param_shardings(mesh, frozen)
        self._step = step.make_train_step(
            loss_fn, tx, mesh=mesh, shardings=(state_shardings, frozen_shardings), accumulation=1
        )
        self._evaluate = step.make_eval_step(
            loss_fn, mesh=mesh, shardings=(state_shardings.trainable, frozen_shardings)
        )
        self._key = jax.random.key(0)

    def _place(self, batch: Mapping[str, np.ndarray]) -> Any:
        return jax.device_put(with_targets(batch), self._sharding)

    def run(self, batches: Sequence[Mapping[str, np.ndarray]]) -> float:
        """Make one optimiser step for each batch; return the last loss."""
        last: Mapping[str, Any] = {}
        for batch in batches:
            placed = self._place(batch)
            self.state, last = self._step(self.state, self._frozen, placed, self._key)
        jax.block_until_ready(self.state)
        return float(last["loss"])

    def loss(self, batch: Mapping[str, np.ndarray]) -> float:
        """Return the loss without dropout and gradient."""
        placed = self._place(batch)
        return float(self._evaluate(self.state.trainable, self._frozen, placed)["loss"])


LAYOUTS = ("random", "sorted", "grouped")


def check_losses(
    models: Mapping[str, Any],
    work: Work,
    *,
    tolerance: float,
    layouts: Mapping[str, Collection[str]] | None = None,
) -> dict[str, dict[str, float]]:
    """Return the loss of every model on the first batch of every layout, by layout and model.

    A grouped batch is compared with PyTorch's mean over the same pairs, one a row.

    Args:
        models: those of PyTorch have a name without "jax", and the others are compared with them.
        work: the batches.
        tolerance: as in `require_equal_losses`, which is asked.
        layouts: those that a model of ours takes; None: all.
    """
    found: dict[str, dict[str, float]] = {}
    for kind in sorted(models, key=lambda kind: ("jax" in kind, kind)):
        model, pytorch = models[kind], "jax" not in kind
        for layout in LAYOUTS if pytorch or layouts is None else sorted(layouts[kind]):
            if layout != "grouped":
                loss = model.loss(getattr(work, layout)[0])
            elif pytorch:
                loss = _mean_loss(model, [with_true_positions(batch) for batch in work.sorted])
            else:
                loss = _mean_loss(model, work.grouped)
            found.setdefault(layout, {})[kind] = loss
    require_equal_losses(found, tolerance=tolerance)
    return found


def _mean_loss(model: Any, batches: Sequence[Mapping[str, np.ndarray]]) -> float:
    """Return the mean over all targets of several batches."""
    counts = [int((batch["labels"] != IGNORE).sum()) for batch in batches]
    return float(np.average([model.loss(batch) for batch in batches], weights=counts))


def model_flops(setup: Setup, work: Work) -> float:
    """Return the FLOPs of the pairs when each clip is heard once: real tokens, no padding."""
    config, clips = setup.config, sum(len(batch["input_ids"]) for batch in work.grouped)
    shapes = LTUAS.functional(config, dtype=setup.dtype).shapes

    def scalars(start: str, *ends: str) -> int:
        return sum(
            leaf.size
            for path, leaf in shapes.items()
            if path.startswith(start) and path.endswith(ends)
        )

    size = flops.ModelSize(
        llm_layers=scalars("llama.layers.", ".kernel"),
        llm_depth=config.llama.num_hidden_layers,
        attention_width=config.llama.num_attention_heads * config.llama.head_dim,
        vocab_head=config.llama.vocab_size * config.llama.hidden_size,
        lora=scalars("llama.layers.", ".lora_a", ".lora_b"),
        tltr_block=scalars("tltr.time_tr.", ".kernel"),
        tltr_width=config.tltr.d_model,
        tltr_trained=True,
        tltr_pooled=False,
        audio_proj=scalars("audio_proj.", ".kernel"),
        label_head=0,
        whisper_layers=config.audio_layers,
        encoder=0,
        encoder_stem=0,
        encoder_frames=0,
        encoder_depth=0,
        encoder_width=0,
    )
    pairs = flops.StepWork(
        clips=clips,
        pairs=work.pairs,
        audio_tokens=clips * config.audio_tokens,
        text_tokens=work.text_tokens,
        targets=work.text_tokens - work.pairs,
    )
    return flops.model_flops(size, pairs)
