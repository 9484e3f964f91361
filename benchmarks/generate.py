"""Cached decoding in ltu_jax and in `transformers.generate`: same weights, prompt and length.

    python -m benchmarks.generate [--weights DIR] [--batches 1 8] [--new-tokens 128] [--out DIR]

Greedy, a fixed number of new tokens with end-of-sequence off, float32 on a CPU and bfloat16 on a
GPU. Without end-of-sequence every row is forced to the same length; the weights are real where
`python -m ltu_jax.fetch smollm2-135m` has made them, else random, and the JSON says which. The
language model alone, since `transformers` has no LTU-AS: ltu_jax runs its own product road
(`ltu_jax.generation.generate`) without audio. On a CPU `transformers` takes part twice, the second
time with its linear layers through oneDNN, and the ratio is that against the faster one. All must
write the same ids in float32 before anything is timed. A round is one call for the whole batch,
prompt included; contenders take turns, medians are compared. "ltu_jax int8" has the kernels in
int8, and so other ids; on a CPU it runs if --contenders names it.
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from benchmarks import alternate, torch_reference
from benchmarks.joined import (
    CONTENDERS,
    INT8,
    OURS,
    PYTORCH,
    TOKENS,
    decoding_beside_pytorch,
    require_equal_ids,
    without_ids,
)
from benchmarks.model_sizes import TINY_LLAMA
from benchmarks.random_weights import draw
from ltu_jax.core import errors
from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.generation.generate import generate
from ltu_jax.models.functional import Functional, Shapes
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.sizes import LLAMA_SIZES
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.weights import name_tables
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.placement import place_language_model
from ltu_jax.weights.store import load_weights
from ltu_jax.weights.tensors import as_tensors

NEVER = -1  # an id that no model writes: end-of-sequence is off
RANDOM = "random:"
REAL = Path("assets/weights/smollm2-135m")
ONLY_CPU, ONLY_GPU = ("transformers oneDNN",), (INT8,)  # unless named with --contenders


@dataclasses.dataclass(frozen=True, kw_only=True)
class Language:
    """A language model's config and weights, under our names; of int8 kernels scales too."""

    name: str
    config: LlamaConfig
    params: dict[str, jax.Array]


def open_language(where: str, *, dtype: str, int8: bool = False) -> Language:
    """Read weights from a folder, or draw them for "random:SIZE" of `LLAMA_SIZES` or "tiny".

    Args:
        where: the folder, or what to draw.
        dtype: of the parameters.
        int8: the kernels in int8 instead.

    Raises:
        UserError: a size that is not known, or a folder that is no language model.
    """
    if not where.startswith(RANDOM):
        weights = load_weights(where)
        if weights.kind != "llama":
            raise errors.UserError(f"{where} holds a {weights.kind}; --weights takes a llama")
        config = LlamaConfig.from_dict(weights.config)
        params = place_language_model(
            weights.params.tensors,
            _ours(config, dtype=dtype, int8=int8)[1],
            base_dtype="int8" if int8 else dtype,
            dtype=dtype,
            mesh=make_mesh(MeshConfig(data=1, fsdp=1, tensor=1), jax.devices()[:1]),
            subject=where,
        )
        return Language(name=Path(where).name, config=config, params=params)
    size = where.removeprefix(RANDOM)
    sizes = LLAMA_SIZES | {"tiny": TINY_LLAMA}
    if size not in sizes:
        raise errors.UserError(f"--weights {where}: sizes are {', '.join(sizes)}")
    shapes = _ours(sizes[size], dtype=dtype, int8=int8)[1]
    return Language(name=where, config=sizes[size], params=draw(shapes, dtype=dtype, seed=0))


def _ours(config: LlamaConfig, *, dtype: str, int8: bool) -> tuple[Functional[LTUAS], Shapes]:
    """Return our model around a language model, and the shapes of that within."""
    whole = LTUASConfig(
        tltr=TLTRConfig(d_model=16, time_heads=1, layer_heads=8),
        llama=config,
        lora=None,
        audio_layers=1,
        audio_tokens=1,
    )
    model = LTUAS.functional(whole, dtype=dtype, int8_base=int8)
    return model, {p: leaf for p, leaf in model.shapes.items() if p.startswith("llama.")}


class Ours:
    """Our product road, text only, on weights that lie on the device."""

    def __init__(self, language: Language, *, dtype: str, int8: bool = False):
        self._model, held = _ours(language.config, dtype=dtype, int8=int8)
        audio = {
            path: jnp.zeros(leaf.shape, leaf.dtype)
            for path, leaf in self._model.shapes.items()
            if path not in held
        }
        self._params = language.params | audio

    def run(self, prompts: np.ndarray, new_tokens: int) -> np.ndarray:
        """Return new ids [B, new_tokens]."""
        made = generate(
            self._model,
            self._params,
            input_ids=prompts,
            attention_mask=np.ones_like(prompts),
            audio_features=None,
            max_new_tokens=new_tokens,
            eos_id=NEVER,
            sampling=None,
        )
        return made.tokens


class Theirs:
    """`transformers.generate` on the device that JAX uses."""

    def __init__(self, language: Language, *, dtype: str, onednn: bool):
        settings = hf_llama.hf_config(dataclasses.asdict(language.config), dtype=dtype, tokens={})
        made = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="sdpa")
        tensors = name_tables.export(hf_llama.HF_RULES, as_tensors(language.params))
        state = {
            name: torch_reference.tensor_of(np.asarray(tensor.read()), getattr(torch, dtype))
            for name, tensor in tensors.items()
        }
        model.load_state_dict(state, strict=not language.config.tie_word_embeddings, assign=True)
        model.tie_weights()
        # its frequencies are no part of a state dict, and "meta" made none
        model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
        self._device = "cuda" if alternate.on_gpu() else "cpu"
        if onednn:
            torch_reference.use_onednn(model)
        model = model.eval()
        self._model = torch_reference.on_cuda(model) if self._device == "cuda" else model

    def run(self, prompts: np.ndarray, new_tokens: int) -> np.ndarray:
        """Return new ids [B, new_tokens]."""
        ids = torch.from_numpy(prompts.astype(np.int64)).to(self._device)
        with torch.inference_mode():
            found = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        return found[:, prompts.shape[1] :].cpu().numpy()


def make_models(where: str, names: Sequence[str], *, dtype: str) -> tuple[dict[str, Any], Any]:
    """Make the wanted models of `CONTENDERS` with the same weights; return one's `Language` too."""
    models, language = {}, None
    if whole := [name for name in names if name != INT8]:
        language = open_language(where, dtype=dtype)
        for name in whole:
            if name == OURS:
                models[name] = Ours(language, dtype=dtype)
            else:
                models[name] = Theirs(language, dtype=dtype, onednn="oneDNN" in name)
    if INT8 in names:
        language = open_language(where, dtype=dtype, int8=True)
        models[INT8] = Ours(language, dtype=dtype, int8=True)
    return {name: models[name] for name in names}, language


def measure(
    where: str,
    *,
    names: Sequence[str],
    dtype: str,
    batches: list[int],
    prompt: int,
    new: int,
    rounds: int,
) -> dict[str, Any]:
    """Check the ids, time, and put the rows of the table together.

    On a GPU the rows have their peak memory where a process has a single contender.
    """
    models, language = make_models(where, names, dtype=dtype)
    vocabulary = language.config.vocab_size
    rng = np.random.default_rng(0)
    rows, timings, written = [], {}, {}
    for batch in batches:
        prompts = rng.integers(3, vocabulary, (batch, prompt)).astype(np.int32)
        found = {name: model.run(prompts, new) for name, model in models.items()}
        written[str(batch)] = {name: ids.tolist() for name, ids in found.items()}
        if dtype == "float32":
            require_equal_ids(written[str(batch)])
        timed = alternate.alternate(
            [
                alternate.Contender(name=name, run=lambda m=model, p=prompts: m.run(p, new))
                for name, model in models.items()
            ],
            rounds=rounds,
        )
        for name, timing in timed.items():
            rows.append(
                {
                    "contender": name,
                    "batch": batch,
                    TOKENS: batch * new / timing.median,
                    "ms_per_token": timing.median / new * 1000,
                    "peak_gb": _peak_gb(name) if len(models) == 1 else None,
                }
            )
            timings[f"{name}, batch {batch}"] = timing.to_json()
    return {
        "weights": language.name,
        "rows": decoding_beside_pytorch(rows),
        "timings": timings,
        "ids": written,
    }


def _peak_gb(name: str) -> float | None:
    """Return what the GPU's allocator has held at most; None on a CPU."""
    if not alternate.on_gpu():
        return None
    held = torch.cuda.max_memory_allocated() if name in PYTORCH else alternate.peak_bytes()
    return held / 1e9


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--weights",
        help="folder of language model weights, or random:SIZE (llama-7b, llama-13b, smollm2-135m, "
        f"tiny); default random:llama-7b on a GPU, else {REAL} where it is, or its random:SIZE",
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME",
                        help="default: all of " + "; ".join(CONTENDERS))  # fmt: skip
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="default 1 8")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt (default 64)")
    parser.add_argument("--new-tokens", type=int, default=128, help="per row (default 128)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    parser.add_argument("--keep-ids", action="store_true", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the GPU
    given = command_line().parse_args()
    on_gpu = alternate.on_gpu()
    dtype = "bfloat16" if on_gpu else "float32"
    size = "llama-7b" if on_gpu else "smollm2-135m"
    default = f"{RANDOM}{size}" if on_gpu or not (REAL / "config.json").is_file() else str(REAL)
    left_out = ONLY_CPU if on_gpu else ONLY_GPU
    found = measure(
        given.weights or default,
        names=given.contenders or [name for name in CONTENDERS if name not in left_out],
        dtype=dtype,
        batches=given.batches,
        prompt=given.prompt,
        new=given.new_tokens,
        rounds=given.rounds,
    )
    print(alternate.table(found["rows"]))
    about = {
        "what": f"{given.new_tokens} forced new tokens (no end of sequence) after {given.prompt}, "
        "greedy",
        "dtype": dtype,
        "torch_threads": torch.get_num_threads(),
    }
    result = about | found
    alternate.write("generate", result if given.keep_ids else without_ids(result), out=given.out)


if __name__ == "__main__":
    errors.main(main)
