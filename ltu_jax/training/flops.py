"""Count what a training step costs: model FLOPs of a batch, MFU, and the peak of the devices."""

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.hardware import find_peak
from ltu_jax.models.int8 import SCALE
from ltu_jax.models.text_batch import TARGET_IDS
from ltu_jax.preprocessing.audio import CLIP_FRAMES
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training.stage_config import StageSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepWork:
    """The work of one optimiser step, counted on the host from the batch itself."""

    clips: int
    pairs: int
    audio_tokens: int
    text_tokens: int
    targets: int

    @property
    def tokens(self) -> int:
        """Positions of the language model that are not padding."""
        return self.audio_tokens + self.text_tokens

    @property
    def context(self) -> float:
        """Mean length of what a pair sees: its clip's audio and its own text."""
        return self.audio_tokens / max(1, self.clips) + self.text_tokens / max(1, self.pairs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSize:
    """The counts that model FLOPs follow from; parameters are numbers of scalars in matrices.

    Attributes:
        llm_layers, lora: summed over layers.
        llm_depth, attention_width: layers, and query heads x head size.
        vocab_head: width x vocabulary.
        tltr_block: of one of the two equal blocks.
        tltr_width: D.
        tltr_trained: whether gradients are made for the TLTR.
        tltr_pooled: the layer block sees the mean over time (tagging), not every time step.
        audio_proj, label_head: of the layer behind the TLTR, 0 where there is none.
        whisper_layers: how many layers of features the TLTR sees.
        encoder, encoder_stem: blocks summed over layers, and FLOPs of both convolutions per clip;
            0 when features are stored.
        encoder_frames, encoder_depth, encoder_width: of the encoder's attention.
    """

    llm_layers: int
    llm_depth: int
    attention_width: int
    vocab_head: int
    lora: int
    tltr_block: int
    tltr_width: int
    tltr_trained: bool
    tltr_pooled: bool
    audio_proj: int
    label_head: int
    whisper_layers: int
    encoder: int
    encoder_stem: int
    encoder_frames: int
    encoder_depth: int
    encoder_width: int


def mfu(flops: float, *, seconds: float, peak: float) -> float:
    """Return model FLOPs utilisation: useful work over what the devices could have done.

    The one definition of trainer and planner. `flops` is `model_flops` of real tokens and of clips
    that are there: padding, empty places of a row, recomputation and what the loss does not ask for
    do not count. `peak` is the dense bfloat16 peak of all devices together, whatever dtype is used
    (on a CPU, what its float32 matrix product reaches).
    """
    return flops / (seconds * peak)


def model_flops(size: ModelSize, work: StepWork) -> float:
    """Count the FLOPs of the maths of one training step; recomputation and padding do not count.

    The one formula of the trainer's MFU, the planner and the benchmarks. A matrix of n scalars
    costs 2n per token forward, 2n for the gradient of its input and 2n for its own gradient:

        frozen LLaMA layers, head   4n   per audio or text token; per target
        LoRA                        6n   per token
        projection                  6n   per audio token; 4n where the TLTR is frozen
        TLTR                        6n   per (layer, step) of features; 2n where it is frozen
        label head                  6n   per clip (tagging)
        frozen Whisper encoder      2n   per frame, with its two convolutions

    Attention scores and values are 4 x length x width per token and layer forward and 12 when
    differentiated, counted dense (as MFU usually is): a token of the language model over its
    clip's audio and its own pair, not over other pairs of the row.
    """
    audio = work.audio_tokens
    llm = work.tokens * (4 * size.llm_layers + 6 * size.lora)
    attention = 12 * work.context * size.attention_width * size.llm_depth * work.tokens
    head = 4 * size.vocab_head * work.targets
    projection = (6 if size.tltr_trained else 4) * size.audio_proj * audio
    labels = 6 * size.label_head * work.clips
    frames = work.clips * size.encoder_frames
    encoder = work.clips * size.encoder_stem + frames * 2 * size.encoder
    if size.encoder:
        encoder += frames * 4 * size.encoder_frames * size.encoder_width * size.encoder_depth
    return float(llm + attention + head + _tltr(size, work) + projection + labels + encoder)


def _tltr(size: ModelSize, work: StepWork) -> float:
    width, layers = size.tltr_width, size.whisper_layers
    steps = work.audio_tokens / max(1, work.clips)
    over_time = work.audio_tokens * layers
    over_layers = work.clips * layers if size.tltr_pooled else over_time
    forward = over_time * (2 * size.tltr_block + 4 * steps * width)
    forward += over_layers * (2 * size.tltr_block + 4 * layers * width)
    # Even the first products need the gradient of their input: it is a trained LayerNorm's output.
    return (3 if size.tltr_trained else 1) * forward


def peak_flops(*, override: float = 0.0) -> tuple[float, str]:
    """Return the peak FLOP/s of all devices together, and where the number comes from.

    Devices that `core.hardware` does not know (CPUs above all) are measured with a float32 matrix
    product: then MFU is relative to what this machine's matrix product reaches.
    """
    devices = jax.devices()
    if override:
        return override * len(devices), "config"
    kind = devices[0].device_kind
    peak = find_peak(kind)
    if peak is not None:
        return peak * len(devices), f"{kind} data sheet, bf16"
    return _measured_matmul() * (len(devices) if devices[0].platform != "cpu" else 1), (
        f"measured float32 matrix product on {kind}"
    )


def _measured_matmul(size: int = 1536, repeats: int = 6) -> float:
    square = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda left, right: left @ right)
    product(square, square).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product(square, square).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def count_work(batch: Mapping[str, np.ndarray], *, audio_tokens: int, parts: int) -> StepWork:
    """Count the work of a host batch, times the number of parts of the global batch."""
    clips = len(next(iter(batch.values())))
    text = pairs = 0
    if "segment_ids" in batch:
        segments = batch["segment_ids"]
        text = int((segments > 0).sum())
        pairs = int(segments.max(axis=1).sum())  # the pairs of a row are numbered from 1
    if "clip_ids" in batch:  # so are its clips, from 0; places that a row leaves empty do not count
        clips = int((batch["clip_ids"].max(axis=1) + 1).sum())
    wanted = batch.get(TARGET_IDS)
    targets = 0 if wanted is None else int((wanted != IGNORE).sum())
    return StepWork(
        clips=clips * parts,
        pairs=pairs * parts,
        audio_tokens=clips * audio_tokens * parts,
        text_tokens=text * parts,
        targets=targets * parts,
    )


def model_size(settings: StageSettings, shapes: Mapping[str, Any]) -> ModelSize:
    """Read the matrix sizes of a stage's model from its shapes."""
    whisper, llama = settings.model.whisper, settings.model.llama

    def scalars(prefix: str, needle: str) -> int:
        return sum(
            math.prod(leaf.shape)
            for path, leaf in shapes.items()
            if path.startswith(prefix) and needle in path and not path.endswith(SCALE)
        )

    on_the_fly = settings.data.features == "on_the_fly"
    state, tagging = whisper.n_audio_state, settings.stage == "tagging"
    trained = [flag for pattern, flag in settings.trainable if pattern.startswith("tltr")]
    stem = 3 * 2 * CLIP_FRAMES * state * whisper.n_mels
    stem += 3 * 2 * (CLIP_FRAMES // 2) * state * state
    return ModelSize(
        llm_layers=scalars("llama.layers.", ".kernel"),
        llm_depth=0 if llama is None else llama.num_hidden_layers,
        attention_width=0 if llama is None else llama.num_attention_heads * llama.head_dim,
        vocab_head=0 if llama is None else llama.vocab_size * llama.hidden_size,
        lora=scalars("llama.layers.", ".lora_"),
        tltr_block=scalars("tltr.time_tr.", "kernel"),
        tltr_width=settings.model.tltr.d_model,
        tltr_trained=trained == [True],
        tltr_pooled=tagging,
        audio_proj=scalars("audio_proj.", "kernel"),
        label_head=scalars("label_head.", "kernel"),
        whisper_layers=whisper.n_audio_layer,
        encoder=12 * state**2 * whisper.n_audio_layer if on_the_fly else 0,
        encoder_stem=stem if on_the_fly else 0,
        encoder_frames=CLIP_FRAMES // 2,
        encoder_depth=whisper.n_audio_layer,
        encoder_width=state,
    )
