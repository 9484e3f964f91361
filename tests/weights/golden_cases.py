"""How the golden cases of the package are cut out of tests/golden; run it to write them again:

python tests/weights/golden_cases.py
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ltu_jax.weights.parity import golden

GOLDEN = Path(__file__).parents[1] / "golden"
ROW = 1  # of the batch: "Describe the music genre with a sentence?", left-padded
ROOT = "base_model.model."


def ltu_as() -> tuple[dict, dict[str, np.ndarray]]:
    """One row of the tiny official LTU-AS, with the part of the vocabulary that it uses."""
    info = json.loads((GOLDEN / "ltu_as_tiny_a" / "config.json").read_text())
    weights = load_file(GOLDEN / "ltu_as_tiny_a" / "weights.safetensors")
    data, dims = np.load(GOLDEN / "ltu_as_tiny_a" / "forward.npz"), info["dims"]
    row = slice(ROW, ROW + 1)
    used, ids = np.unique(data["in.input_ids"][row], return_inverse=True)
    found = {f"weights/{n}": w for n, w in weights.items() if not n.endswith("inv_freq")}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        found[f"weights/{ROOT}{name}"] = weights[ROOT + name][used]
    found |= {
        "in/input_ids": ids.reshape(1, -1).astype(np.int32),
        "in/attention_mask": data["in.attention_mask"][row].astype(np.int32),
        "in/audio_input": data["in.audio_input"][row],
        "out/tltr": data["mid.tltr_out"][row],
        "out/audio_proj": data["mid.audio_embeds"][row],
        "out/llama.norm": data["mid.final_norm_full_seq"][row],
        "out/logits": data["out.logits"][row][..., used],
    }
    for layer in range(dims["num_hidden_layers"]):
        found[f"out/llama.layers.{layer}"] = data[f"mid.decoder_layer{layer}_out"][row]
    heads = dims["num_attention_heads"]
    llama = {key: dims[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers",
                                        "rms_norm_eps")}  # fmt: skip
    llama |= {
        "vocab_size": len(used), "num_attention_heads": heads, "num_key_value_heads": heads,
        "head_dim": info["head_dim"], "rope_theta": float(info["rope_theta"]),
        "rope_scaling": None, "tie_word_embeddings": False, "attention_bias": False,
    }  # fmt: skip
    config = {
        "tltr": {"d_model": dims["rep_dim"], "time_heads": dims["tltr_time_heads"],
                 "layer_heads": dims["tltr_layer_heads"]},
        "llama": llama,
        "lora": {"rank": dims["lora_r"], "alpha": float(dims["lora_alpha"]), "dropout": 0.0,
                 "targets": ["q_proj", "v_proj"]},
        "audio_layers": dims["tltr_layers"],
        "audio_tokens": dims["audio_len"],
    }  # fmt: skip
    return {"kind": "ltu-as", "config": config, "origin": info["description"]}, found


def tltr(variant: str) -> tuple[dict, dict[str, np.ndarray]]:
    """The first clip of a tiny TL-TR tagger."""
    folder = GOLDEN / f"whisper_at_{variant}"
    info = json.loads((folder / "config.json").read_text())
    weights, data = load_file(folder / "weights.safetensors"), np.load(folder / "forward.npz")
    found = {f"weights/{name.removeprefix('at_model.')}": w for name, w in weights.items()}
    found |= {"in/features": data["features"][:1], "out/logits": data["logits"][:1]}
    width = len(found["weights/layer_tr.attn_ln.bias"])
    config = {
        "tltr": {"d_model": width, "time_heads": 1, "layer_heads": 8},
        "labels": info["label_dim"],
        "d_input": None if variant == "full" else info["rep_dim"],
        "audio_layers": info["n_layer"],
    }
    return {"kind": "tltr", "config": config, "origin": info["description"]}, found


def derive() -> dict[str, tuple[dict, dict[str, np.ndarray]]]:
    """Every case by name."""
    return {"ltu_as": ltu_as(), "tltr_full": tltr("full"), "tltr_low": tltr("low")}


if __name__ == "__main__":
    golden.FOLDER.mkdir(exist_ok=True)
    cases = derive()
    for name, (_, tensors) in cases.items():
        tensors = {key: np.ascontiguousarray(array) for key, array in tensors.items()}
        save_file(tensors, golden.FOLDER / f"{name}.safetensors")
    text = json.dumps({name: case for name, (case, _) in cases.items()}, indent=1, sort_keys=True)
    (golden.FOLDER / "cases.json").write_text(text + "\n")
