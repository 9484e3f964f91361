"""What the tagging stage does to a training batch, as Whisper-AT's recipe does on AudioSet.

Its data loader draws for each clip, on features that Whisper has made: half of the clips are mixed
with another one, their targets in the same shares; some positions of the 25 in a row are masked;
and targets are smoothed (whisper_at_train/dataloader_feat.py and run_as_full_train.sh). Here the
draws are of the step's key, and the other clip is the one before in the batch, whose order is a
random one.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ltu_jax.core.axes import Array, Float
from ltu_jax.core.errors import UserError

_BETA = 10.0  # both parameters of the distribution of shares: mostly near one half


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """The keys of `config.augmentation`.

    Attributes:
        mixup: share of clips that are mixed with another.
        time_mask: fewer than so many positions in a row are zero; 0 for none.
        label_smoothing: what positive targets lose, and all targets share.
    """

    mixup: float
    time_mask: int
    label_smoothing: float

    def __post_init__(self) -> None:
        for name, most in (("mixup", 1.0), ("time_mask", 25), ("label_smoothing", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(
                    f"config.augmentation.{name} is {getattr(self, name)!r}; use 0 to {most}"
                )

    @property
    def is_on(self) -> bool:
        """Return whether anything is done."""
        return bool(self.mixup or self.time_mask or self.label_smoothing)


def augment(
    config: AugmentationConfig,
    audio: Float[Array, "B W A D"],
    targets: Float[Array, "B N"],
    *,
    key: Array,
) -> tuple[Float[Array, "B W A D"], Float[Array, "B N"]]:
    """Mix, mask and smooth a training batch; returns features, their dtype kept, and targets."""
    whether, share_key, width_key, place_key = jax.random.split(key, 4)
    rows = targets.shape[0]
    mixed = jax.random.uniform(whether, (rows,)) < config.mixup
    share = jnp.where(mixed, jax.random.beta(share_key, _BETA, _BETA, (rows,)), 1.0)
    targets = _mix(targets.astype(jnp.float32), share)
    if config.mixup:
        audio = _mix(audio, share)
    if config.time_mask:
        kept = ~_time_mask(
            *(jax.random.uniform(each, (rows, 1)) for each in (width_key, place_key)),
            most=config.time_mask,
            positions=audio.shape[2],
        )
        audio = jnp.where(kept[:, None, :, None], audio, 0)
    return audio, _smooth(targets, mixed, by=config.label_smoothing)


def _mix(x: Float[Array, "B ..."], share: Float[Array, "B"]) -> Float[Array, "B ..."]:
    share = share.reshape(-1, *(1,) * (x.ndim - 1))
    mixed = share * x.astype(jnp.float32) + (1 - share) * jnp.roll(x, 1, axis=0)
    return mixed.astype(x.dtype)


def _time_mask(
    width: Float[Array, "B 1"], place: Float[Array, "B 1"], *, most: int, positions: int
) -> Float[Array, "B A"]:
    """Return which positions are masked, by two draws a row: torchaudio's arithmetic."""
    width = width * most
    start = jnp.floor(place * (positions - width))
    at = jnp.arange(positions)
    return (at >= start) & (at < start + jnp.floor(width))


def _smooth(
    targets: Float[Array, "B N"], mixed: Float[Array, "B"], *, by: float
) -> Float[Array, "B N"]:
    """Smooth as Whisper-AT does: by / N is added to mixed targets, and the least of the others."""
    floor = by / targets.shape[1]
    lowered = (1 - by) * targets
    return jnp.where(mixed[:, None], lowered + floor, jnp.maximum(lowered, floor))
