"""Our numbers beside those of another implementation, module by module; see `certificate.py`."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Float
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.models.tltr import Tagger, TaggerConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.preprocessing import audio
from ltu_jax.weights import fingerprint, name_tables
from ltu_jax.weights.files import shards
from ltu_jax.weights.formats import hf_llama, hf_whisper, official_ltu_as
from ltu_jax.weights.formats.official_ltu_as import merge_lora
from ltu_jax.weights.formats.whisper_tokens import ENGLISH_VOCAB, special_tokens
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.parity import golden, reference
from ltu_jax.weights.store import Weights
from ltu_jax.weights.tensors import Tensors

# In float32, of a module's largest error over its largest magnitude; in float16 and bfloat16 of
# the error's norm over the norm, because single outliers of Whisper's residual stream then miss by
# a fifth of the maximum. Measured on CPU (SmolLM2-135M, Whisper tiny.en and base): at most 2.5e-5,
# 9.4e-3 and 4.0e-2. Another model is off by about 1.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
_TOKENS = 32  # of the fixed random text
_TIMESTAMPS = 1501  # at the end of Whisper's vocabulary
_TRANSFORMERS, _NUMPY, _AUTHORS = "transformers float32", "numpy float64", "golden case"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModuleError:
    """One module: how far our numbers are from the reference's."""

    module: str
    against: str
    max_abs: float
    max_rel: float  # over the largest magnitude of the module
    mean_rel: float  # norm of the error over the norm of the module
    dtype: str

    @property
    def tolerance(self) -> float:
        """See `TOLERANCES`."""
        return TOLERANCES[self.dtype]

    @property
    def passed(self) -> bool:
        """False also for numbers that are not finite."""
        error = self.max_rel if self.dtype == "float32" else self.mean_rel
        return error <= self.tolerance


def rows(weights: Weights, *, dtype: str, exported: Tensors | None) -> Iterator[ModuleError]:
    """Yield every row of a certificate; arguments as in `certificate.certify`."""
    compare = {"whisper": _whisper, "llama": _llama, "ltu-as": _ltu_as, "tltr": _tltr}
    yield from compare[weights.kind](weights, dtype, exported)
    for name in golden.names(weights.kind):
        for pair in golden.compute(name, dtype=dtype):
            module = f"{name}: {pair.module}"
            yield row(module, pair.ours, pair.wanted, against=_AUTHORS, dtype=dtype)


def row(
    module: str, ours: np.ndarray, wanted: np.ndarray, *, against: str, dtype: str
) -> ModuleError:
    """Compare our numbers of a module, computed in `dtype`, with those that are wanted."""
    ours, wanted = np.asarray(ours, np.float64), np.asarray(wanted, np.float64)
    assert ours.shape == wanted.shape, f"{module}: {ours.shape} and {wanted.shape}"
    largest = float(np.max(np.abs(ours - wanted)))
    scale = float(np.max(np.abs(wanted)))
    spread = float(np.linalg.norm(wanted))
    return ModuleError(
        module=module,
        against=against,
        max_abs=largest,
        max_rel=largest / scale if scale else largest,
        mean_rel=float(np.linalg.norm(ours - wanted)) / spread if spread else largest,
        dtype=dtype,
    )


def _params(weights: Weights, dtype: str) -> dict[str, jax.Array]:
    return {p: jnp.asarray(t.read(), dtype) for p, t in weights.params.tensors.items()}


def _numpy(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def _ids(count: int, *, vocabulary: int) -> np.ndarray:
    """Return fixed random tokens, int32 [1, count]."""
    share = (fingerprint.random_numbers(count, start=1 << 20) + 1) / 2
    return (share * vocabulary).astype(np.int32)[None]


def exported_tensors(folder: Path) -> Tensors:
    """Return the tensors of an exported Hugging Face directory, by the names of our tables."""
    tensors = shards.read_checkpoint(folder)
    whisper = "model.encoder.conv1.weight" in tensors
    return {n.removeprefix("model.") if whisper else n: t for n, t in tensors.items()}


def _whisper(weights: Weights, dtype: str, exported: Tensors | None) -> Iterator[ModuleError]:
    config = WhisperConfig.from_dict(weights.config)
    model = Whisper(config, dtype=dtype)
    frames = 2 * config.n_audio_ctx
    # Whisper's own input, silence to the end: transformers takes no shorter one
    log_mel = audio.transcribe_log_mel(fingerprint.clip(), n_mels=config.n_mels)[None, :frames]
    tokens = _transcript(config)

    @jax.jit
    def run(params: Any, log_mel: Any, tokens: Any) -> dict[str, Any]:
        encoder, decoder = model.encoder.bind(params), model.decoder.bind(params)
        encoded = encoder.encode(log_mel)
        cache = decoder.init_cache(encoded, length=tokens.shape[1])
        blocks = encoder.states(log_mel)[:, 1:].swapaxes(0, 1)
        logits, _ = decoder.decode(tokens, cache)
        return {"blocks": blocks, "encoder.ln_post": encoded, "logits": logits}

    params = {"encoder": {}, "decoder": {}}
    for path, leaf in _params(weights, dtype).items():
        params[path.partition(".")[0]][path] = leaf
    ours = _numpy(run(params["encoder"] | params["decoder"], log_mel, tokens))
    del params
    ours |= {f"encoder.blocks.{n}": block for n, block in enumerate(ours.pop("blocks"))}
    tensors = exported or name_tables.export(hf_whisper.HF_RULES, weights.params.tensors)
    wanted = reference.whisper(weights.config, tensors, log_mel=log_mel, tokens=tokens)
    for name in (n for n in wanted if n in ours):
        yield row(name, ours[name], wanted[name], against=_TRANSFORMERS, dtype=dtype)


def _transcript(config: WhisperConfig) -> np.ndarray:
    """Return random words behind Whisper's prompt, without which its decoder is chaotic."""
    count, size = min(_TOKENS, config.n_text_ctx), config.n_vocab
    if size < ENGLISH_VOCAB:
        return _ids(count, vocabulary=size)
    languages = size - special_tokens(size, languages=0)["timestamp_begin"] - _TIMESTAMPS
    special = special_tokens(size, languages=languages)
    spoken = () if size == ENGLISH_VOCAB else (special["sot"] + 1, special["transcribe"])
    prompt = (special["sot"], *spoken, special["no_timestamps"])
    tokens = _ids(count, vocabulary=special["eot"])
    tokens[0, : len(prompt)] = prompt
    return tokens


def _llama(weights: Weights, dtype: str, exported: Tensors | None) -> Iterator[ModuleError]:
    config = LlamaConfig.from_dict(weights.config)
    model = Llama.functional(config, dtype=dtype)
    ids = _ids(_TOKENS, vocabulary=config.vocab_size)
    positions = np.arange(_TOKENS, dtype=np.int32)[None]
    params = _params(weights, dtype)
    text = TextBatch(input_ids=ids, segment_ids=np.ones_like(ids), positions=positions)
    outputs = jax.jit(model.pure(Llama.intermediates))(params, text)
    ours = _by_layer(_numpy(outputs))
    del params, outputs
    tensors = exported or name_tables.export(hf_llama.HF_RULES, weights.params.tensors)
    embeds = _embedded(weights.params.tensors, ids)
    for name, wanted in reference.llama_model(weights.config, tensors, embeds=embeds):
        yield row(name, ours[name], wanted, against=_TRANSFORMERS, dtype=dtype)


def _by_layer(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    layers = {f"llama.layers.{n}": layer for n, layer in enumerate(outputs.pop("layers"))}
    return outputs | layers | {"llama.norm": outputs["final_norm"]}


def _embedded(tensors: Tensors, ids: np.ndarray) -> Float[np.ndarray, "B T E"]:
    """Return rows of the embedding, read one by one."""
    held = tensors["llama.embed_tokens.embedding"]
    return np.stack([held.layer(int(token)) for token in ids[0]])[None].astype(np.float32)


def _ltu_as(weights: Weights, dtype: str, exported: Tensors | None) -> Iterator[ModuleError]:
    config = LTUASConfig.from_dict(weights.config)
    model = LTUAS.functional(config, dtype=dtype)
    features = _features(config.audio_layers, config.audio_tokens, config.tltr.d_model)
    ids = _ids(_TOKENS, vocabulary=config.llama.vocab_size)
    tokens = config.audio_tokens
    positions = np.arange(tokens + _TOKENS, dtype=np.int32)[None]

    @jax.jit
    def run(params: Any, ids: Any, features: Any) -> dict[str, Any]:
        bound = model.bind(params)
        text = TextBatch(input_ids=ids, segment_ids=jnp.ones_like(ids), positions=positions)
        outputs = bound.intermediates(text, features)
        return outputs | {"logits": bound.unembed(outputs["final_norm"])}

    params = _params(weights, dtype)
    ours = _by_layer(_numpy(run(params, ids, features)))
    del params
    ours |= {"tltr.time_tr": ours["time_tr"], "tltr.layer_tr": ours["layer_tr"]}
    ours["audio_proj"] = ours["audio_embeds"]
    tensors = weights.params.tensors
    heads = config.tltr.time_heads, config.tltr.layer_heads
    tltr = reference.ReferenceTLTR(tensors, time_heads=heads[0], layer_heads=heads[1])
    audio = tltr.audio_tokens(features)
    for name, wanted in audio.items():
        yield row(name, ours[name], wanted, against=_NUMPY, dtype=dtype)
    embeds = np.concatenate(
        [audio["audio_proj"].astype(np.float32), _embedded(tensors, ids)], axis=1
    )
    base = {p: t for p, t in tensors.items() if not is_adapter(p)}
    plain, lora = weights.config["llama"], weights.config["lora"]
    pairs = reference.llama_model(
        plain,
        name_tables.export(hf_llama.HF_RULES, base),
        embeds=embeds,
        lora=lora,
        adapter=tensors,
    )
    for name, wanted in pairs:
        yield row(name, ours[name], wanted, against=_TRANSFORMERS, dtype=dtype)
    if lora is not None or exported is not None:
        folded = exported or name_tables.export(
            hf_llama.HF_RULES, merge_lora(weights.config, tensors)
        )
        wanted = dict(reference.llama_model(plain, folded, embeds=embeds))["logits"]
        name = "logits, LoRA merged"
        yield row(name, ours["logits"], wanted, against=_TRANSFORMERS, dtype=dtype)


def _tltr(weights: Weights, dtype: str, exported: Tensors | None) -> Iterator[ModuleError]:
    assert exported is None, "no export of a tagger is known"
    config = TaggerConfig.from_dict(weights.config)
    model = Tagger.functional(config, dtype=dtype)
    features = _features(config.audio_layers, official_ltu_as.AUDIO_TOKENS, config.width)
    ours = jax.jit(model.pure(Tagger.__call__))(_params(weights, dtype), features)
    tltr = reference.ReferenceTLTR(
        weights.params.tensors,
        time_heads=config.tltr.time_heads,
        layer_heads=config.tltr.layer_heads,
    )
    yield row("logits", ours, tltr.label_logits(features), against=_NUMPY, dtype=dtype)


def _features(layers: int | None, tokens: int, width: int) -> Float[np.ndarray, "1 W A D"]:
    """Return fixed noise in place of Whisper's features; like them, larger in later layers."""
    shape = (1, layers or 4, tokens, width)
    noise = fingerprint.random_numbers(int(np.prod(shape))).reshape(shape)
    return (noise * np.linspace(0.5, 4, shape[1])[None, :, None, None]).astype(np.float32)
