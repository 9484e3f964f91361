"""LTU-AS: audio tokens from TLTR and a projection, placed before the text of a LLaMA with LoRA.

Gong et al., "Joint Audio and Speech Understanding" (ASRU 2023). The sequence is [audio][text];
logits exist for text positions only. A row may hold several clips and several pairs about each:
[audio 1]..[audio G][text], where positions start again with every clip and behind the audio with
every pair, and a pair sees its own clip and itself. That is what each pair would compute alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.core.config import Config, ConfigError
from ltu_jax.core.errors import UserError
from ltu_jax.models.attention import Backend, backend
from ltu_jax.models.kv_cache import KVCache
from ltu_jax.models.layers import Linear, fan_in_uniform
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.norms import LAYER_NORM_EPS, standardise
from ltu_jax.models.tltr import TLTR, TLTRConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LTUASConfig(Config):
    """The parts, and the shape of the audio features: layers of the encoder, tokens per clip.

    `audio_layers` is None where an official state dict is all that is known: TLTR averages over
    layers, so no weight tells how many there are.
    """

    tltr: TLTRConfig
    llama: LlamaConfig
    lora: LoRAConfig | None
    audio_layers: int | None
    audio_tokens: int

    def __post_init__(self) -> None:
        sizes = {"audio_tokens": self.audio_tokens, "audio_layers": self.audio_layers}
        if self.audio_layers is None:
            del sizes["audio_layers"]
        for name, size in sizes.items():
            if size < 1:
                raise ConfigError(f"LTUASConfig.{name} is {size}; give 1 or more")


def visibility(
    segment_ids: Int[Array, "B T"],
    *,
    audio_tokens: int,
    clip_ids: Int[Array, "B T"] | None = None,
    clips: int = 1,
) -> Bool[Array, "B S S"]:
    """Which position of [audio][text] sees which.

    Audio is causal and seen by every text position, pads included. Text sees earlier text of its
    own segment; a pad (segment 0) is seen by nobody, so several pairs about one clip share a row.
    With several clips the audio of one is seen by itself and by the text with its number only.

    Args:
        segment_ids: pair of each text position, 0 for padding.
        audio_tokens: of all clips together.
        clip_ids: clip 0..`clips`-1 of each text position; None when there is one.
        clips: clips in a row, their audio one after another.
    """
    batch, time = segment_ids.shape
    total = audio_tokens + time
    causal = jnp.tril(jnp.ones((total, total), bool))
    padded = jnp.pad(segment_ids, ((0, 0), (audio_tokens, 0)), constant_values=-1)
    same = (padded[:, :, None] == padded[:, None, :]) & (padded != 0)[:, None, :]
    audio_key = (jnp.arange(total) < audio_tokens)[None, None, :]
    seen = causal[None] & (same | audio_key)
    if clip_ids is None:
        return seen
    ahead = jnp.repeat(jnp.arange(clips, dtype=clip_ids.dtype), audio_tokens // clips)
    ahead = jnp.broadcast_to(ahead, (batch, audio_tokens))
    clip = jnp.concatenate([ahead, clip_ids], axis=1)
    return seen & (~audio_key | (clip[:, :, None] == clip[:, None, :]))


class AudioProjection(Linear):
    """LayerNorm without affine and a linear layer to the width of the language model."""

    def __init__(self, size_in: int, size_out: int, *, dtype: Any, rngs: nnx.Rngs):
        super().__init__(size_in, size_out, bias=True, init=fan_in_uniform, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B A D"]) -> Float[Array, "B A E"]:
        return super().__call__(standardise(x, eps=LAYER_NORM_EPS)).astype(jnp.float32)


class LTUAS(nnx.Module):
    """The assembled model over precomputed Whisper features."""

    def __init__(
        self,
        config: LTUASConfig,
        *,
        dtype: Any,
        remat: str,
        rngs: nnx.Rngs,
        attention: Backend | None = None,
        quantised: bool = False,
        lay_audio: Callable[[Array], Array] | None = None,
    ):
        self.config = config
        self.attention = attention or backend("xla")
        self.lay_audio = lay_audio  # where audio tokens lie before they join the text
        width = config.llama.hidden_size
        self.tltr = TLTR(config.tltr, dtype=dtype, remat=remat, rngs=rngs)
        self.audio_proj = AudioProjection(config.tltr.d_model, width, dtype=dtype, rngs=rngs)
        self.llama = Llama(
            config.llama,
            lora=config.lora,
            dtype=dtype,
            remat=remat,
            rngs=rngs,
            quantised=quantised,
        )

    def embed_audio(self, features: Float[Array, "B *G W A D"]) -> Float[Array, "B A E"]:
        """Audio tokens of Whisper features; several clips of a row one after another."""
        config = self.config
        layers = config.audio_layers or features.shape[-3]
        wanted = (layers, config.audio_tokens, config.tltr.d_model)
        if features.shape[-3:] != wanted:
            raise UserError(
                f"audio features of shape {features.shape[1:]} (layers, tokens, width); this model "
                f"takes {wanted}: use the Whisper size it was built for"
            )
        tokens = self.audio_proj(self.tltr(features.reshape(-1, *wanted)))
        return tokens.reshape(len(features), -1, tokens.shape[-1])

    def embed_text(self, ids: Int[Array, "B T"]) -> Float[Array, "B T E"]:
        """Token embeddings."""
        return self.llama.embed(ids)

    def join(
        self,
        input_ids: Int[Array, "B T"],
        features: Float[Array, "B *G W A D"] | None,
        *,
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B S"],
        clip_ids: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B A E"], Float[Array, "B T E"], Bool[Array, "B S S"]]:
        """Embeddings of audio and of text, and who sees whom in [audio][text].

        Raises:
            UserError: shapes that do not belong together.
        """
        several = features is not None and features.ndim == 5
        if several != (clip_ids is not None):
            raise UserError(
                "features of several clips a row [B, G, W, A, D] and clip_ids [B, T] go together; "
                f"given are {None if features is None else features.shape} and "
                f"{None if clip_ids is None else clip_ids.shape}"
            )
        clips = features.shape[1] if several else 1
        audio_tokens = 0 if features is None else clips * self.config.audio_tokens
        batch, time = input_ids.shape
        wanted = {
            "segment_ids": (segment_ids, (batch, time)),
            "positions": (positions, (batch, audio_tokens + time)),
        }
        if several:
            wanted["clip_ids"] = (clip_ids, (batch, time))
        for name, (array, shape) in wanted.items():
            if array.shape != shape:
                raise UserError(
                    f"{name} has shape {array.shape}; input_ids of shape {input_ids.shape} with "
                    f"{audio_tokens} audio tokens need {shape}"
                )
        text = self.embed_text(input_ids)
        audio = text[:, :0]
        if features is not None:
            if features.shape[0] != batch:
                raise UserError(f"{features.shape[0]} clips of features for {batch} rows of ids")
            audio = self.embed_audio(features)
            if self.lay_audio is not None:
                audio = self.lay_audio(audio)
        seen = visibility(segment_ids, audio_tokens=audio_tokens, clip_ids=clip_ids, clips=clips)
        return audio, text, seen

    def hidden(
        self,
        input_ids: Int[Array, "B T"],
        features: Float[Array, "B *G W A D"] | None,
        *,
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B S"],
        dropout_key: Array | None,
        clip_ids: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T E"]:
        """Final-norm states of the text positions."""
        audio, text, visible = self.join(
            input_ids,
            features,
            segment_ids=segment_ids,
            positions=positions,
            clip_ids=clip_ids,
        )
        heard, told = audio.shape[1], text.shape[1]
        parts = [audio, text]
        if self.attention.text_first:
            # The order of positions in memory means nothing: RoPE and the mask say what is before
            # what.
            parts = [text, audio]
            positions = jnp.roll(positions, -heard, axis=1)
            visible = jnp.roll(visible, -heard, axis=(1, 2))
        x = self.llama.run(
            jnp.concatenate(parts, axis=1),
            positions=positions,
            visible=visible,
            dropout_key=dropout_key,
            attend=self.attention.of(heard),
        )
        return self.llama.norm(x[:, :told] if self.attention.text_first else x[:, heard:])

    def __call__(
        self,
        input_ids: Int[Array, "B T"],
        features: Float[Array, "B *G W A D"] | None,
        *,
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B S"],
        dropout_key: Array | None = None,
        clip_ids: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T V"]:
        """Float32 logits of the text positions."""
        states = self.hidden(
            input_ids,
            features,
            segment_ids=segment_ids,
            positions=positions,
            dropout_key=dropout_key,
            clip_ids=clip_ids,
        )
        return self.llama.unembed(states)

    def prefill(
        self,
        input_ids: Int[Array, "B T"],
        features: Float[Array, "B W A D"] | None,
        *,
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B S"],
        cache: KVCache,
    ) -> tuple[Float[Array, "B V"], KVCache]:
        """Put a prompt into an empty cache; logits of the token after its last position."""
        audio, text, visible = self.join(
            input_ids, features, segment_ids=segment_ids, positions=positions
        )
        x = jnp.concatenate([audio, text], axis=1)
        slots = cache.visible.shape
        if slots[0] != x.shape[0] or slots[1] < x.shape[1]:
            raise UserError(
                f"a cache of {slots[0]} rows x {slots[1]} slots for {x.shape[0]} rows x "
                f"{x.shape[1]} positions of audio and prompt; make a larger one with init_cache"
            )
        x, cache = self.llama.fill(x, positions=positions, visible=visible, cache=cache)
        return self.llama.unembed(self.llama.norm(x[:, -1])), cache

    def extend(
        self,
        ids: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"],
        cache: KVCache,
        layers: tuple[nnx.State, ...] | None = None,
    ) -> tuple[Float[Array, "B V"], KVCache]:
        """Append tokens to every row; logits of the token after the last of them.

        `layers` are those of the language model apart (`separate_layers`), for a CPU.
        """
        x = self.embed_text(ids)
        x, cache = self.llama.extend(x, positions=positions, cache=cache, layers=layers)
        return self.llama.unembed(self.llama.norm(x[:, -1])), cache

    def intermediates(
        self,
        input_ids: Int[Array, "B T"],
        features: Float[Array, "B W A D"],
        *,
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B S"],
    ) -> dict[str, Array]:
        """Every quantity between input and logits, for comparison with other implementations."""
        time_tr = self.tltr.over_time(features)
        layer_tr = self.tltr.over_layers(time_tr.swapaxes(1, 2))
        tokens = layer_tr.mean(2)
        audio, text, visible = self.join(
            input_ids, features, segment_ids=segment_ids, positions=positions
        )
        x = jnp.concatenate([audio, text], axis=1)
        layers, _, _ = self.llama.trace(x, positions=positions, visible=visible)
        return {
            "time_tr": time_tr,
            "layer_tr": layer_tr,
            "tltr": tokens,
            "audio_ln": standardise(tokens, eps=LAYER_NORM_EPS),
            "audio_embeds": self.audio_proj(tokens),
            "layers": layers,
            "final_norm": self.llama.norm(layers[-1]),
        }
