"""What a step costs and how well it runs: model FLOPs, MFU, rates, mean average precision."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.errors import UserError

# Dense bf16 peak of one device in FLOP/s, by a part of jax's device_kind (makers' data sheets).
PEAK_FLOPS = (
    ("v5 lite", 197e12),
    ("v5e", 197e12),
    ("v5p", 459e12),
    ("v5", 459e12),
    ("v6", 918e12),
    ("v4", 275e12),
    ("H200", 989e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("A6000", 154.8e12),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepWork:
    """What one optimiser step has to process, counted on the host from the batch itself."""

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
    """Model FLOPs utilisation: useful work over what the devices could have done meanwhile.

    The one definition of trainer and planner. `flops` is `model_flops` of real tokens and of clips
    that are there: padding, empty places of a row, recomputation and what the loss does not ask for
    do not count. `peak` is the dense bfloat16 peak of all devices together, whatever dtype is used
    (on a CPU, what its float32 matrix product reaches).
    """
    return flops / (seconds * peak)


def model_flops(size: ModelSize, work: StepWork) -> float:
    """FLOPs that the maths of one training step needs; recomputation and padding do not count.

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
    """Peak FLOP/s of all devices together and where the number comes from.

    Devices that are not in `PEAK_FLOPS` (CPUs above all) are measured with a float32 matrix
    product: then MFU is relative to what this machine's matrix product reaches.
    """
    devices = jax.devices()
    if override:
        return override * len(devices), "config"
    kind = devices[0].device_kind
    for part, peak in PEAK_FLOPS:
        if part.lower() in kind.lower():
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


def mean_average_precision(
    scores: np.ndarray, targets: np.ndarray
) -> tuple[float, dict[int, float]]:
    """Macro mean of per-label average precision over the labels that occur, and each of them.

    Args:
        scores: float [N, labels], larger is more likely.
        targets: 0/1 [N, labels].

    Average precision is the sum over ranks of (recall step x precision) without interpolation, ties
    sharing one rank, as in scikit-learn and in the AudioSet literature.

    Raises:
        UserError: no label occurs at all.
    """
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets) > 0
    each = {}
    for index in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-scores[:, index], kind="stable")
        ranked, hits = scores[order, index], targets[order, index]
        last_of_tie = np.append(np.diff(ranked) != 0, True)
        true = np.cumsum(hits)[last_of_tie]
        precision = true / (np.flatnonzero(last_of_tie) + 1)
        recall_step = np.diff(true, prepend=0) / hits.sum()
        each[int(index)] = float(np.sum(recall_step * precision))
    if not each:
        raise UserError("mean average precision: no clip of this split has any label")
    return float(np.mean(list(each.values()))), each
