"""PyTorch state dicts as our flat parameters: an independent, test-only table."""

import re

import numpy as np

_HF_WHISPER = (
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"final_layer_norm", "mlp_ln"),
    (r"self_attn\.", "attn."),
    (r"encoder_attn\.", "cross_attn."),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
    (r"encoder\.layer_norm", "encoder.ln_post"),
    (r"decoder\.layer_norm", "decoder.ln"),
    (r"encoder\.embed_positions\.weight", "encoder.positional_embedding"),
    (r"decoder\.embed_positions\.weight", "decoder.positional_embedding"),
    (r"decoder\.embed_tokens\.weight", "decoder.token_embedding.weight"),
)

_OURS = (
    (r"^base_model\.model\.", ""),
    (r"\.default\.weight$", ""),
    (r"^model\.audio_encoder\.", "tltr."),
    (r"^model\.audio_proj\.1", "audio_proj"),
    (r"^model\.", "llama."),
    (r"^lm_head", "llama.lm_head"),
    (r"lora_A$", "lora_a"),
    (r"lora_B$", "lora_b"),
    (r"(ln|norm|ln_post)\.weight$", r"\1.scale"),
    (r"mlp\.0", "mlp.up"),
    (r"mlp\.2", "mlp.down"),
    (r"positional_embedding$", "positions"),
    (r"decoder\.token_embedding\.weight$", "decoder.embedding"),
    (r"embed_tokens\.weight$", "embed_tokens.embedding"),
    (r"\.weight$", ".kernel"),
)


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in table:
        name = re.sub(pattern, new, name)
    return name


def from_official(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """OpenAI Whisper, LTU-AS or Hugging Face LLaMA names -> ours, layers stacked."""
    params: dict[str, np.ndarray] = {}
    layers: dict[str, dict[int, np.ndarray]] = {}
    for name, value in state.items():
        if name.endswith("rotary_emb.inv_freq"):
            continue
        value = np.asarray(value)
        ours = _rename(name, _OURS)
        if ours.endswith((".kernel", ".lora_a", ".lora_b")):
            value = value.T  # [out, in] -> [in, out]; convs [out, in, width] -> [width, in, out]
        index = re.search(r"\.(layers|blocks)\.(\d+)\.", ours)
        if index:
            stacked = ours.replace(index[0], f".{index[1]}.")
            layers.setdefault(stacked, {})[int(index[2])] = value
        else:
            params[ours] = value
    for name, values in layers.items():
        params[name] = np.stack([values[i] for i in range(len(values))])
    return params


def from_hf_whisper(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hugging Face Whisper names -> ours."""
    return from_official(
        {_rename(n, _HF_WHISPER): v for n, v in state.items() if not n.startswith("proj_out")}
    )


def arrays(module: object) -> dict[str, np.ndarray]:
    """The state dict of a PyTorch module as numpy."""
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}
