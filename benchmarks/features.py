"""Whisper features in ltu_jax and in `transformers`' Whisper encoder: same weights, same log-mel.

    python -m benchmarks.features [--models tiny.en base] [--seconds 10 30] [--out DIR]

Features are what LTU-AS reads: the output of every encoder block, mean over 20 frames. PyTorch
asks its encoder for all hidden states and averages them; SDPA, float32 on a CPU, bfloat16 on a
GPU. `transformers` takes 30 s only, so for 10 s its position table is cut to 500 rows, which is
what LTU-AS does. On a CPU PyTorch takes part twice, the second time with its linear layers through
oneDNN, and the ratio is that against the faster one. All must agree within the tolerance before
anything is timed. A round is a few batches; contenders take turns, medians are compared.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from benchmarks import alternate, torch_reference
from ltu_jax.core import errors
from ltu_jax.models.sizes import WHISPER_SIZES
from ltu_jax.models.whisper import POOL, Encoder, Whisper, WhisperConfig
from ltu_jax.weights import name_tables
from ltu_jax.weights.formats import hf_whisper
from ltu_jax.weights.store import load_weights
from ltu_jax.weights.tensors import as_tensors

FRAMES_PER_SECOND = 100
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}  # of the largest feature
WEIGHTS = Path("assets/weights")


def open_encoder(name: str) -> tuple[WhisperConfig, dict[str, np.ndarray], str]:
    """Return config, parameters and origin of an encoder: stored weights, else random ones."""
    folder = WEIGHTS / f"whisper-{name}"
    if (folder / "config.json").is_file():
        weights = load_weights(folder)
        config, origin = WhisperConfig.from_dict(weights.config), "real"
        params = {p: np.asarray(leaf, np.float32) for p, leaf in weights.params.items()}
    else:
        config, origin = WHISPER_SIZES[name], "random"
        params = jax.device_get(jax.jit(Whisper(config).init)(jax.random.key(0)))
    return config, {p: a for p, a in params.items() if p.startswith("encoder.")}, origin


class Theirs:
    """`transformers`' encoder with all hidden states."""

    def __init__(
        self,
        config: WhisperConfig,
        params: dict[str, np.ndarray],
        *,
        frames: int,
        dtype: str,
        onednn: bool,
    ):
        settings = transformers.WhisperConfig(
            num_mel_bins=config.n_mels,
            d_model=config.n_audio_state,
            encoder_layers=config.n_audio_layer,
            encoder_attention_heads=config.n_audio_head,
            encoder_ffn_dim=4 * config.n_audio_state,
            max_source_positions=frames // 2,
        )
        settings._attn_implementation = "sdpa"
        encoder = transformers.models.whisper.modeling_whisper.WhisperEncoder(settings).eval()
        cut = params | {"encoder.positions": params["encoder.positions"][: frames // 2]}
        tensors = name_tables.export(hf_whisper.HF_RULES, as_tensors(cut))
        state = {
            name.removeprefix("encoder."): torch.from_numpy(np.array(tensor.read(), np.float32))
            for name, tensor in tensors.items()
        }
        encoder.load_state_dict(state, strict=True)
        if onednn:
            torch_reference.use_onednn(encoder)
        self._device = "cuda" if alternate.on_gpu() else "cpu"
        self._dtype = getattr(torch, dtype)
        self._encoder = encoder.to(self._device, self._dtype)

    def run(self, log_mel: np.ndarray) -> np.ndarray:
        """Return the features [B, W, A, D] of log-mel [B, F, M]."""
        heard = torch.from_numpy(np.ascontiguousarray(log_mel.swapaxes(1, 2)))
        kept: list[torch.Tensor] = []

        def keep(_: Any, __: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            kept.append(states.unflatten(1, (-1, POOL)).mean(2))

        hooks = [layer.register_forward_hook(keep) for layer in self._encoder.layers]
        with torch.inference_mode():
            self._encoder(heard.to(self._device, self._dtype))
            found = torch.stack(kept, dim=1).float().cpu().numpy()
        for hook in hooks:
            hook.remove()
        return found


class Ours:
    """The encoder as the train step and the records use it."""

    def __init__(self, config: WhisperConfig, params: dict[str, np.ndarray], *, dtype: str):
        encoder = Whisper(config, dtype=dtype).encoder
        self._params = jax.device_put({p: jnp.asarray(a, dtype) for p, a in params.items()})
        self._features = jax.jit(encoder.pure(Encoder.features))

    def run(self, log_mel: np.ndarray) -> np.ndarray:
        """Return the features [B, W, A, D] of log-mel [B, F, M]."""
        return np.asarray(self._features(self._params, log_mel), np.float32)


def measure(name: str, *, seconds: int, batch: int, repeats: int, rounds: int) -> list[dict]:
    """Check and time one encoder on one length; one row for each contender."""
    dtype = "bfloat16" if alternate.on_gpu() else "float32"
    config, params, origin = open_encoder(name)
    frames = seconds * FRAMES_PER_SECOND
    rng = np.random.default_rng(0)
    log_mel = rng.normal(0, 0.5, (batch, frames, config.n_mels)).astype(np.float32)
    ours = Ours(config, params, dtype=dtype)
    kinds = {"transformers": False} | ({} if alternate.on_gpu() else {"transformers oneDNN": True})
    theirs = {
        label: Theirs(config, params, frames=frames, dtype=dtype, onednn=onednn)
        for label, onednn in kinds.items()
    }
    made, apart = ours.run(log_mel), {}
    for label, model in theirs.items():
        truth = model.run(log_mel)
        apart[label] = float(np.abs(made - truth).max() / np.abs(truth).max())
        if apart[label] > TOLERANCE[dtype]:
            raise errors.UserError(
                f"{name}, {seconds} s: features differ from {label} by {apart[label]:.1e} of the "
                f"largest, tolerance {TOLERANCE[dtype]}; nothing was timed"
            )

    def contender(label: str, model: Any) -> alternate.Contender:
        return alternate.Contender(
            name=label, run=lambda: [model.run(log_mel) for _ in range(repeats)]
        )

    timed = alternate.alternate(
        [contender(label, model) for label, model in {**theirs, "ltu_jax": ours}.items()],
        rounds=rounds,
    )
    ratios = alternate.beside_fastest(timed, names=list(theirs))
    return [
        {
            "contender": label,
            "encoder": name,
            "weights": origin,
            "seconds": seconds,
            "batch": batch,
            "clips_per_second": batch * repeats / timing.median,
            "x real time": batch * repeats * seconds / timing.median,
            "x fastest PyTorch": ratios[label],
            "largest_difference": max(apart.values()),
            "timing": timing.to_json(),
        }
        for label, timing in timed.items()
    ]


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the GPU
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--models",
        nargs="+",
        choices=WHISPER_SIZES,
        metavar="SIZE",
        help=f"of {', '.join(WHISPER_SIZES)}; weights from {WEIGHTS}/whisper-SIZE where they "
        "are, else random (default: large-v1 on a GPU, else tiny.en and base)",
    )
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30], help="default 10 30")
    parser.add_argument("--batch", type=int, help="clips at once (default 4, on a GPU 32)")
    parser.add_argument("--repeats", type=int, default=2, help="batches in a round (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    given = parser.parse_args()
    on_gpu = alternate.on_gpu()
    rows = [
        row
        for name in given.models or (["large-v1"] if on_gpu else ["tiny.en", "base"])
        for seconds in given.seconds
        for row in measure(
            name,
            seconds=seconds,
            batch=given.batch or (32 if on_gpu else 4),
            repeats=given.repeats,
            rounds=given.rounds,
        )
    ]
    print(alternate.table([{k: v for k, v in row.items() if k != "timing"} for row in rows]))
    about = {
        "what": "output of every encoder block, mean over 20 frames",
        "dtype": "bfloat16" if on_gpu else "float32",
        "torch_threads": torch.get_num_threads(),
        "rows": rows,
    }
    alternate.write("features", about, out=given.out)


if __name__ == "__main__":
    errors.main(main)
