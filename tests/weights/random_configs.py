"""Seeded random configs of every kind: sizes that nobody publishes, and every optional part."""

from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import PROJECTIONS, LoRAConfig
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.rope import RopeScaling
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.models.whisper import WhisperConfig


def _one(rng, *values):
    return values[int(rng.integers(len(values)))]


def llama(rng) -> LlamaConfig:
    """Any width beside any heads: they need not divide each other."""
    kv = _one(rng, 1, 2, 3)
    scaling = RopeScaling(
        factor=_one(rng, 8.0, 2.5), low_freq_factor=1.0, high_freq_factor=_one(rng, 4.0, 3.0),
        original_max_position_embeddings=_one(rng, 16, 8192),
    )  # fmt: skip
    return LlamaConfig(
        vocab_size=int(rng.integers(5, 60)),
        hidden_size=_one(rng, 7, 12, 20, 30),
        intermediate_size=int(rng.integers(3, 40)),
        num_hidden_layers=_one(rng, 1, 2, 3),
        num_attention_heads=kv * _one(rng, 1, 2, 3),
        num_key_value_heads=kv,
        head_dim=_one(rng, 2, 4, 10),
        rms_norm_eps=_one(rng, 1e-6, 1e-5, 3e-4),
        rope_theta=_one(rng, 10_000.0, 500_000.0, 123.5),
        rope_scaling=_one(rng, None, scaling),
        tie_word_embeddings=_one(rng, False, True),
        attention_bias=_one(rng, False, True),
    )


def lora(rng) -> LoRAConfig | None:
    """Any rank, alpha and targets in any order; None now and then."""
    count = int(rng.integers(0, len(PROJECTIONS) + 1))
    if count == 0:
        return None
    return LoRAConfig(
        rank=int(rng.integers(1, 10)),
        alpha=_one(rng, 16.0, 32.0, 1.0, 12.5, 0.3),
        dropout=_one(rng, 0.0, 0.05, 0.1),
        targets=tuple(str(name) for name in rng.permutation(PROJECTIONS)[:count]),
    )


def ltu_as(rng) -> LTUASConfig:
    """All parts random; the audio layers known or not."""
    times, layers = _one(rng, 1, 2, 3), _one(rng, 8, 1, 4)
    return LTUASConfig(
        tltr=TLTRConfig(
            d_model=times * layers * _one(rng, 1, 2), time_heads=times, layer_heads=layers
        ),
        llama=llama(rng),
        lora=lora(rng),
        audio_layers=_one(rng, None, 2, 7),
        audio_tokens=_one(rng, 25, 10, 1),
    )


def whisper(rng, *, one_width: bool) -> WhisperConfig:
    """Encoder and decoder of any size, of one width or of two."""
    heads, text_heads = _one(rng, 1, 2, 3), _one(rng, 1, 2, 4)
    state = heads * text_heads * _one(rng, 2, 3)
    return WhisperConfig(
        n_mels=_one(rng, 20, 80, 128),
        n_audio_ctx=_one(rng, 10, 50),
        n_audio_state=state,
        n_audio_head=heads,
        n_audio_layer=_one(rng, 1, 2),
        n_vocab=int(rng.integers(9, 99)),
        n_text_ctx=_one(rng, 7, 30),
        n_text_state=state if one_width else text_heads * 4,
        n_text_head=text_heads,
        n_text_layer=_one(rng, 1, 3),
    )
