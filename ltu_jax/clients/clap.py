"""CLAP (Wu et al., ICASSP 2023) as a zero-shot baseline, by transformers' `ClapModel`.

The text whose vector is nearest to the sound's is the answer. This is the one evaluation file that
needs PyTorch: the model exists there only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from safetensors import SafetensorError

from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.audio import SAMPLE_RATE

# How a class becomes a text: as LAION's own ESC-50 script does, and as LTU-AS's label match does.
ZERO_SHOT = "This is a sound of {label}"
LABEL_MATCH = "sound of {label}"
_BATCH = 8


class Clap:
    """A CLAP model; `name` is "CLAP (laion/clap-htsat-unfused)" or "CLAP (FOLDER)"."""

    def __init__(self, source: str | Path):
        """Open a folder, or a model of the Hugging Face hub by its id, from safetensors.

        Raises:
            UserError: PyTorch is missing, nothing usable there, or weights that lack a parameter.
        """
        self._torch, transformers = _libraries()
        place = str(source)
        try:
            model, loading_info = transformers.ClapModel.from_pretrained(
                place, use_safetensors=True, output_loading_info=True, dtype=self._torch.float32
            )
            processor = transformers.ClapProcessor.from_pretrained(place)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"{place} is no CLAP model that can be opened ({_first_line(error)}); give a "
                "folder with config.json, model.safetensors, preprocessor_config.json and the "
                "tokenizer, or a hub id such as laion/clap-htsat-unfused"
            ) from None
        # transformers would go on with random numbers in their place
        lost = [*loading_info["missing_keys"], *(key[0] for key in loading_info["mismatched_keys"])]
        if lost:
            raise UserError(
                f"{place} lacks {len(lost)} parameters of its CLAP model ({lost[0]}, ...); fetch "
                "it again"
            )
        self.name = f"CLAP ({Path(place).resolve().name if Path(place).is_dir() else place})"
        self._model, self._extractor = model, processor.feature_extractor
        self._tokenizer = processor.tokenizer

    def scores(
        self, audio: Sequence[Float[np.ndarray, "C"]], texts: Sequence[str]
    ) -> Float[np.ndarray, "B V"]:
        """Return cosine similarity of each clip with each text, float32.

        A clip longer than the model hears at once (10 s for the published ones) is cut into equal
        parts that are not, whose unit vectors are averaged: transformers would take a random part.

        Args:
            audio: clips at 16 kHz.
            texts: what they may be, e.g. `LABEL_MATCH.format(label=...)`.

        Raises:
            UserError: no clips, no texts, an empty clip, or a text that is too long.
        """
        if not audio or not texts:
            raise UserError(f"{len(audio)} clips and {len(texts)} texts; CLAP needs one of each")
        sounds = np.stack([self._sound(clip) for clip in audio])
        return sounds @ self._texts(texts).T

    def _sound(self, samples: Float[np.ndarray, "C"]) -> Float[np.ndarray, " E"]:
        if samples.ndim != 1 or not len(samples):
            raise UserError(f"a clip has shape {list(samples.shape)}; give one channel of samples")
        rate, longest = self._extractor.sampling_rate, self._extractor.nb_max_samples
        samples = soxr.resample(np.asarray(samples, np.float32), SAMPLE_RATE, rate)
        parts = np.array_split(samples, -(-len(samples) // longest))
        vectors = []
        for start in range(0, len(parts), _BATCH):
            features = self._extractor(
                parts[start : start + _BATCH], sampling_rate=rate, return_tensors="pt"
            )
            mel = features["input_features"].to(self._torch.float32)
            # Where nothing is longer, a fused model's extractor marks a random part as if it were.
            longer = self._torch.zeros((len(mel), 1), dtype=self._torch.bool)
            with self._torch.inference_mode():
                embedding = self._model.get_audio_features(input_features=mel, is_longer=longer)
            vectors.append(embedding.pooler_output.numpy())
        mean = np.concatenate(vectors).mean(0)
        return mean / np.linalg.norm(mean)

    def _texts(self, texts: Sequence[str]) -> Float[np.ndarray, "V E"]:
        tokens = self._tokenizer(list(texts), padding=True, return_tensors="pt")
        config = self._model.config.text_config
        # RoBERTa's positions begin after the pad id
        room = config.max_position_embeddings - config.pad_token_id - 1
        length = tokens["input_ids"].shape[1]
        if length > room:
            text = max(texts, key=len)
            raise UserError(f"{text[:60]!r}... has {length} tokens; CLAP takes {room}")
        with self._torch.inference_mode():
            embedding = self._model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
        return embedding.pooler_output.numpy()


def _libraries() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError:
        raise UserError(
            "the CLAP baseline needs PyTorch: run `pip install torch`, or leave the baseline out"
        ) from None
    return torch, transformers


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
