"""LTU-AS: audio tokens from TLTR and a projection, placed before the text of a LLaMA with LoRA.

Gong et al., "Joint Audio and Speech Understanding" (ASRU 2023). The sequence is [audio][text];
logits exist for text positions only. A row may hold several clips and several pairs about each:
[audio 1]..[audio G][text], where positions start again with every clip and behind the audio with
every pair, and a pair sees its own clip and itself. That is what each pair would compute alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.core.config import Config, ConfigError
from ltu_jax.core.errors import UserError
from ltu_jax.models.attention import Backend, backend
from ltu_jax.models.functional import Functional
from ltu_jax.models.kv_cache import KVCache, empty_kv_cache
from ltu_jax.models.layers import Linear, fan_in_uniform
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.norms import LAYER_NORM_EPS, standardise
from ltu_jax.models.precision import in_own_precision
from ltu_jax.models.stacks import check_remat, separate_layers
from ltu_jax.models.text_batch import TextBatch
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
        self.config, self.dtype = config, jnp.dtype(dtype)
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

    @classmethod
    def functional(
        cls,
        config: LTUASConfig,
        *,
        dtype: Any = jnp.float32,
        remat: str = "none",
        with_lora: bool = True,
        attention: str = "xla",
        longest_pair: int | None = None,
        mesh: Mesh | None = None,
        int8_base: bool = False,
        lay_audio: Callable[[Array], Array] | None = None,
    ) -> Functional[Self]:
        """Return the model apart from its parameters.

        Args:
            config: sizes.
            dtype: compute dtype of the products and of the cache; float32 products are float32 on
                every device.
            remat: "none", "full" or a policy name, for the backward pass of each layer.
            with_lora: False leaves the adapters out even where the config has them (stage 1).
            attention: backend of `hidden`, a name of `models.attention.BACKENDS`; prompts and
                cached decoding use "xla".
            longest_pair: most text tokens of a pair, which "blocks" relies on.
            mesh: where it runs, for backends that must be told.
            int8_base: each projection of the language model has an int8 "kernel" and a float32
                "kernel_scale" of its outputs; see `models.int8`.
            lay_audio: called on the audio tokens [B, A, E] before they join the text, to lay them
                on a mesh (see `core.sharding.AudioLayout`); None leaves them.

        Raises:
            UserError: an unknown remat policy or attention backend.
        """
        check_remat(remat)
        chosen = backend(attention, mesh=mesh, longest_pair=longest_pair)
        if not with_lora:
            config = dataclasses.replace(config, lora=None)
        return Functional(
            lambda rngs: cls(
                config,
                dtype=dtype,
                remat=remat,
                attention=chosen,
                quantised=int8_base,
                lay_audio=lay_audio,
                rngs=rngs,
            ),
            config=config,
        )

    @in_own_precision
    def embed_audio(self, features: Float[Array, "B *G W A D"]) -> Float[Array, "B A E"]:
        """Return the audio tokens of Whisper features; clips of a row one after another."""
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
        """Return token embeddings."""
        return self.llama.embed(ids)

    @in_own_precision
    def unembed(self, states: Float[Array, "... E"]) -> Float[Array, "... V"]:
        """Return float32 logits of final-norm states, of targets only where a loss asks for few."""
        return self.llama.unembed(states)

    def join(
        self, text: TextBatch, features: Float[Array, "B *G W A D"] | None
    ) -> tuple[Float[Array, "B A E"], Float[Array, "B T E"], Bool[Array, "B S S"]]:
        """Return embeddings of audio and of text, and which position of [audio][text] sees which.

        Raises:
            UserError: shapes that do not belong together.
        """
        clip_ids = text.clip_ids
        several = features is not None and features.ndim == 5
        if several != (clip_ids is not None):
            raise UserError(
                "features of several clips a row [B, G, W, A, D] and clip_ids [B, T] go together; "
                f"given are {None if features is None else features.shape} and "
                f"{None if clip_ids is None else clip_ids.shape}"
            )
        clips = features.shape[1] if several else 1
        audio_tokens = 0 if features is None else clips * self.config.audio_tokens
        batch, time = text.input_ids.shape
        wanted = {
            "segment_ids": (text.segment_ids, (batch, time)),
            "positions": (text.positions, (batch, audio_tokens + time)),
        }
        if several:
            wanted["clip_ids"] = (clip_ids, (batch, time))
        for name, (array, shape) in wanted.items():
            if array.shape != shape:
                raise UserError(
                    f"{name} has shape {array.shape}; input_ids of shape {(batch, time)} with "
                    f"{audio_tokens} audio tokens need {shape}"
                )
        embedded = self.embed_text(text.input_ids)
        audio = embedded[:, :0]
        if features is not None:
            if features.shape[0] != batch:
                raise UserError(f"{features.shape[0]} clips of features for {batch} rows of ids")
            audio = self.embed_audio(features)
            if self.lay_audio is not None:
                audio = self.lay_audio(audio)
        return audio, embedded, text.visible(audio_tokens=audio_tokens, clips=clips)

    @in_own_precision
    def hidden(
        self,
        text: TextBatch,
        features: Float[Array, "B *G W A D"] | None,
        *,
        dropout_key: Array | None = None,
    ) -> Float[Array, "B T E"]:
        """Return final-norm states of the text positions.

        Args:
            text: rows of tokens.
            features: audio features of each row's clip, or of its G clips with `text.clip_ids`;
                None for text only.
            dropout_key: draws the masks of the adapters; None for no dropout.
        """
        audio, embedded, visible = self.join(text, features)
        positions = text.positions
        audio_tokens, time = audio.shape[1], embedded.shape[1]
        order = [audio, embedded]
        if self.attention.text_first:
            # The order of positions in memory means nothing: RoPE and the mask say what is before
            # what.
            order = [embedded, audio]
            positions = jnp.roll(positions, -audio_tokens, axis=1)
            visible = jnp.roll(visible, -audio_tokens, axis=(1, 2))
        x = self.llama.run(
            jnp.concatenate(order, axis=1),
            positions=positions,
            visible=visible,
            dropout_key=dropout_key,
            attend=self.attention.of(audio_tokens),
        )
        return self.llama.norm(x[:, :time] if self.attention.text_first else x[:, audio_tokens:])

    @in_own_precision
    def __call__(
        self,
        text: TextBatch,
        features: Float[Array, "B *G W A D"] | None,
        *,
        dropout_key: Array | None = None,
    ) -> Float[Array, "B T V"]:
        """Return float32 logits of the text positions; arguments as in `hidden`."""
        return self.unembed(self.hidden(text, features, dropout_key=dropout_key))

    def init_cache(self, batch: int, length: int) -> KVCache:
        """Return an empty cache of `length` positions for each of `batch` rows."""
        llama = self.config.llama
        return empty_kv_cache(
            layers=llama.num_hidden_layers,
            batch=batch,
            kv_heads=llama.num_key_value_heads,
            length=length,
            head_dim=llama.head_dim,
            dtype=self.dtype,
        )

    @in_own_precision
    def prefill(
        self, text: TextBatch, features: Float[Array, "B W A D"] | None, *, cache: KVCache
    ) -> tuple[Float[Array, "B V"], KVCache]:
        """Put a prompt into an empty cache; return logits of the token after its last position."""
        audio, embedded, visible = self.join(text, features)
        x = jnp.concatenate([audio, embedded], axis=1)
        slots = cache.visible.shape
        if slots[0] != x.shape[0] or slots[1] < x.shape[1]:
            raise UserError(
                f"a cache of {slots[0]} rows x {slots[1]} slots for {x.shape[0]} rows x "
                f"{x.shape[1]} positions of audio and prompt; make a larger one with init_cache"
            )
        x, cache = self.llama.fill(x, positions=text.positions, visible=visible, cache=cache)
        return self.llama.unembed(self.llama.norm(x[:, -1])), cache

    @in_own_precision
    def extend(
        self,
        ids: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"],
        cache: KVCache,
        layers: tuple[nnx.State, ...] | None = None,
    ) -> tuple[Float[Array, "B V"], KVCache]:
        """Append tokens to every row; return logits of the token after the last of them.

        `layers` are those of `separate_layers`, which a CPU reads without copying.
        """
        x = self.embed_text(ids)
        x, cache = self.llama.extend(x, positions=positions, cache=cache, layers=layers)
        return self.llama.unembed(self.llama.norm(x[:, -1])), cache

    def separate_layers(self) -> tuple[nnx.State, ...]:
        """Return the parameters of each layer of the language model as arrays of their own."""
        return separate_layers(self.llama.layers)

    @in_own_precision
    def intermediates(self, text: TextBatch, features: Float[Array, "B W A D"]) -> dict[str, Array]:
        """Return every quantity between input and logits, to compare with other implementations."""
        time_tr = self.tltr.over_time(features)
        layer_tr = self.tltr.over_layers(time_tr.swapaxes(1, 2))
        tokens = layer_tr.mean(2)
        audio, embedded, visible = self.join(text, features)
        x = jnp.concatenate([audio, embedded], axis=1)
        layers, _, _ = self.llama.trace(x, positions=text.positions, visible=visible)
        return {
            "time_tr": time_tr,
            "layer_tr": layer_tr,
            "tltr": tokens,
            "audio_ln": standardise(tokens, eps=LAYER_NORM_EPS),
            "audio_embeds": self.audio_proj(tokens),
            "layers": layers,
            "final_norm": self.llama.norm(layers[-1]),
        }
