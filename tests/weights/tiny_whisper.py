"""Random small Whispers of transformers, and OpenAI's names for them by a table of the tests."""

import re

import numpy as np
import torch
import transformers

from ltu_jax.models.whisper import Whisper, WhisperConfig


def hf_config(**changes) -> transformers.WhisperConfig:
    """The real architecture, narrow and short, over the real multilingual vocabulary."""
    values = dict(
        vocab_size=51865, num_mel_bins=20, d_model=24, encoder_layers=2, decoder_layers=3,
        encoder_attention_heads=3, decoder_attention_heads=4, encoder_ffn_dim=96,
        decoder_ffn_dim=96, max_source_positions=50, max_target_positions=30, dropout=0.0,
    )  # fmt: skip
    return transformers.WhisperConfig(**(values | changes))


def full_config(ours: WhisperConfig, **changes) -> transformers.WhisperConfig:
    """transformers' config of one of our sizes."""
    return hf_config(
        vocab_size=ours.n_vocab, num_mel_bins=ours.n_mels, d_model=ours.n_audio_state,
        encoder_layers=ours.n_audio_layer, decoder_layers=ours.n_text_layer,
        encoder_attention_heads=ours.n_audio_head, decoder_attention_heads=ours.n_text_head,
        encoder_ffn_dim=4 * ours.n_audio_state, decoder_ffn_dim=4 * ours.n_text_state,
        max_source_positions=ours.n_audio_ctx, max_target_positions=ours.n_text_ctx, **changes,
    )  # fmt: skip


def hf_model(**changes) -> transformers.WhisperForConditionalGeneration:
    """Weights of a size that shows every error."""
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(hf_config(**changes)).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.1)
    return model


_OPENAI_NAMES = (
    (r"^model\.", ""),
    (r"embed_positions\.weight", "positional_embedding"),
    (r"embed_tokens", "token_embedding"),
    (r"\.layers\.", ".blocks."),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"final_layer_norm", "mlp_ln"),
    (r"encoder\.layer_norm", "encoder.ln_post"),
    (r"decoder\.layer_norm", "decoder.ln"),
    (r"self_attn", "attn"),
    (r"encoder_attn", "cross_attn"),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
)


def openai_checkpoint(model: transformers.WhisperForConditionalGeneration) -> dict:
    """What OpenAI's code would have saved of this model."""
    state = {}
    for name, value in model.state_dict().items():
        if name == "proj_out.weight":
            continue
        for pattern, new in _OPENAI_NAMES:
            name = re.sub(pattern, new, name)
        state[name] = value.clone()
    settings = model.config
    dims = {
        "n_mels": settings.num_mel_bins,
        "n_audio_ctx": settings.max_source_positions,
        "n_audio_state": settings.d_model,
        "n_audio_head": settings.encoder_attention_heads,
        "n_audio_layer": settings.encoder_layers,
        "n_vocab": settings.vocab_size,
        "n_text_ctx": settings.max_target_positions,
        "n_text_state": settings.d_model,
        "n_text_head": settings.decoder_attention_heads,
        "n_text_layer": settings.decoder_layers,
    }
    return {"dims": dims, "model_state_dict": state}


def compute(config: dict, params: dict, mel: np.ndarray, ids: np.ndarray):
    """(encoder output, decoder logits) of ours; mel [B, F, M], ids [B, T]."""
    fns = Whisper(WhisperConfig.from_dict(config))
    params = dict(params)
    encoded, decoder = fns.encoder.bind(params).encode(mel), fns.decoder.bind(params)
    logits, _ = decoder.decode(ids, decoder.init_cache(encoded, length=ids.shape[1]))
    return np.asarray(encoded), np.asarray(logits)


def reference(model, mel: np.ndarray, ids: np.ndarray):
    """(encoder output, decoder logits) of transformers, in the model's dtype."""
    inputs = torch.from_numpy(mel.transpose(0, 2, 1).copy()).to(model.dtype)
    with torch.no_grad():
        found = model(input_features=inputs, decoder_input_ids=torch.from_numpy(ids).long())
    return found.encoder_last_hidden_state.numpy(), found.logits.numpy()
