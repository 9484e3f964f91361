"""Cached decoding in ltu_jax and in `transformers.generate`: same weights, prompt and length.

    python -m benchmarks.generate [--weights DIR] [--batches 1 8] [--new-tokens 128] [--out DIR]

Greedy, a fixed number of new tokens with end-of-sequence off, float32 on a CPU and bfloat16 on a
GPU. Without end-of-sequence every row is forced to the same length; the weights are real where
`python -m ltu_jax.fetch smollm2-135m` has made them, else random, and the JSON says which. The
language model alone, since `transformers` has no LTU-AS: ltu_jax runs its own product road
(`ltu_jax.generation.generate`) without audio. On a CPU `transformers` takes part twice, the second
time with its linear layers through oneDNN, and the ratio is that against the faster one. All must
write the same ids in float32 before anything is timed. A round is one call for the whole batch,
prompt included; contenders take turns, medians are compared.
"""

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from benchmarks import alternate, torch_reference
from benchmarks.model_sizes import TINY_LLAMA
from ltu_jax.core import errors
from ltu_jax.generation.generate import generate
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.sizes import LLAMA_SIZES
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.weights import name_tables
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.store import load_weights
from ltu_jax.weights.tensors import as_tensors

NEVER = -1  # an id that no model writes: end-of-sequence is off
RANDOM = "random:"
REAL = Path("assets/weights/smollm2-135m")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Language:
    """A language model's config and weights, under our names in numpy."""

    name: str
    config: LlamaConfig
    params: dict[str, np.ndarray]


def open_language(where: str, *, dtype: str) -> Language:
    """Read weights from a folder, or draw them for "random:SIZE" of `LLAMA_SIZES` or "tiny".

    Raises:
        UserError: a size that is not known, or a folder that is no language model.
    """
    if not where.startswith(RANDOM):
        weights = load_weights(where)
        if weights.kind != "llama":
            raise errors.UserError(f"{where} holds a {weights.kind}; --weights takes a llama")
        params = {path: np.asarray(leaf).astype(dtype) for path, leaf in weights.params.items()}
        config = LlamaConfig.from_dict(weights.config)
        return Language(name=Path(where).name, config=config, params=params)
    size = where.removeprefix(RANDOM)
    sizes = LLAMA_SIZES | {"tiny": TINY_LLAMA}
    if size not in sizes:
        raise errors.UserError(f"--weights {where}: sizes are {', '.join(sizes)}")
    model = Llama.functional(sizes[size])

    def make(key: Any) -> dict[str, Any]:
        return {path: leaf.astype(dtype) for path, leaf in model.init(key).items()}

    params = jax.device_get(jax.jit(make)(jax.random.key(0)))
    return Language(name=where, config=sizes[size], params=params)


class Ours:
    """Our product road, text only, on weights that lie on the device."""

    def __init__(self, language: Language, *, dtype: str):
        config = LTUASConfig(
            tltr=TLTRConfig(d_model=16, time_heads=1, layer_heads=8),
            llama=language.config,
            lora=None,
            audio_layers=1,
            audio_tokens=1,
        )
        self._model = LTUAS.functional(config, dtype=dtype)
        audio = {
            path: jnp.zeros(leaf.shape, leaf.dtype)
            for path, leaf in self._model.shapes.items()
            if not path.startswith("llama.")
        }
        self._params = jax.device_put(language.params) | audio

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
            name: torch.from_numpy(np.array(tensor.read(), np.float32)).to(getattr(torch, dtype))
            for name, tensor in tensors.items()
        }
        model.load_state_dict(state, strict=not language.config.tie_word_embeddings, assign=True)
        model.tie_weights()
        # its frequencies are no part of a state dict, and "meta" made none
        model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
        self._device = "cuda" if alternate.on_gpu() else "cpu"
        if onednn:
            torch_reference.use_onednn(model)
        self._model = model.eval().to(self._device)

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


def measure(
    language: Language, *, dtype: str, batches: list[int], prompt: int, new: int, rounds: int
) -> dict[str, Any]:
    """Check the ids, time, and put the rows of the table together."""
    ours = Ours(language, dtype=dtype)
    kinds = {"transformers": False} | ({} if alternate.on_gpu() else {"transformers oneDNN": True})
    theirs = {name: Theirs(language, dtype=dtype, onednn=onednn) for name, onednn in kinds.items()}
    models = {**theirs, "ltu_jax": ours}
    rng = np.random.default_rng(0)
    rows, timings, same = [], {}, {}
    for batch in batches:
        prompts = rng.integers(3, language.config.vocab_size, (batch, prompt)).astype(np.int32)
        found = {name: model.run(prompts, new) for name, model in models.items()}
        same[batch] = min(float((found[name] == found["ltu_jax"]).mean()) for name in theirs)
        if dtype == "float32" and same[batch] < 1.0:
            raise errors.UserError(
                f"batch {batch}: only {same[batch]:.0%} of the ids agree; nothing was timed"
            )
        timed = alternate.alternate(
            [
                alternate.Contender(name=name, run=lambda m=model, p=prompts: m.run(p, new))
                for name, model in models.items()
            ],
            rounds=rounds,
        )
        ratios = alternate.beside_fastest(timed, names=list(theirs))
        for name, timing in timed.items():
            rows.append(
                {
                    "contender": name,
                    "batch": batch,
                    "tokens_per_second": batch * new / timing.median,
                    "ms_per_token": timing.median / new * 1000,
                    "x fastest PyTorch": ratios[name],
                }
            )
            timings[f"{name}, batch {batch}"] = timing.to_json()
    return {"rows": rows, "equal_ids": same, "timings": timings}


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the GPU
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
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="default 1 8")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt (default 64)")
    parser.add_argument("--new-tokens", type=int, default=128, help="per row (default 128)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    given = parser.parse_args()
    on_gpu = alternate.on_gpu()
    dtype = "bfloat16" if on_gpu else "float32"
    size = "llama-7b" if on_gpu else "smollm2-135m"
    default = f"{RANDOM}{size}" if on_gpu or not (REAL / "config.json").is_file() else str(REAL)
    language = open_language(given.weights or default, dtype=dtype)
    found = measure(
        language,
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
        "weights": language.name,
        "dtype": dtype,
        "torch_threads": torch.get_num_threads(),
    }
    alternate.write("generate", about | found, out=given.out)


if __name__ == "__main__":
    errors.main(main)
