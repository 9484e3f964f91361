"""The model as Python code uses it: load a checkpoint, ask about audio, look at logits.

    model = ltu_jax.load("runs/demo/stage3")
    answer = model.answer("clip.wav", "What is the speaker doing?")

Audio takes the one road of training: mel over the whole clip, Whisper's layers, audio tokens; the
spoken text is Whisper's transcript of the clip, in the Input block of the prompt.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.core.sharding import MeshConfig
from ltu_jax.core.values import whole
from ltu_jax.generation import arguments, buckets
from ltu_jax.generation import explain as explaining
from ltu_jax.generation import generate as generation
from ltu_jax.generation.answer_text import AnswerText
from ltu_jax.generation.arguments import AudioSource
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.explain import Explanation
from ltu_jax.generation.loading import LoadedModel, load_model
from ltu_jax.generation.request import (
    Answer,
    AnswerMode,
    EncodedClip,
    PositionLayout,
    Request,
    drain,
    per_request,
)
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.generation.transcribe import Transcript
from ltu_jax.generation.transcription import TranscribeOptions
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.models.whisper import POOL
from ltu_jax.weights.adapter_folder import shipped


@dataclass(frozen=True, kw_only=True, eq=False)
class Model(LoadedModel):
    """A loaded LTU-AS, by `ltu_jax.load`; without Whisper or tokenizer it still gives `logits`."""

    @property
    def window_seconds(self) -> float:
        """Return the seconds that the audio tokens cover; each is `POOL` encoder steps of 20 ms."""
        return self.config.audio_tokens * POOL * 0.02

    def over(self, devices: Sequence[jax.Device]) -> "Model":
        """Return the same model, its batches laid over `devices`, each with a copy of the weights.

        `answer_batch`, `audio_features_batch` and `transcribe` use all of them; answers are those
        of one device.
        """
        data_parallel, listener = DataParallel(arguments.devices(devices)), self.listener
        if listener is not None:
            listener = replace(listener, params=data_parallel.copies(dict(listener.params)))
        return replace(
            self,
            params=data_parallel.copies(dict(self.params)),
            listener=listener,
            transcriber=None if self.transcriber is None else self.transcriber.over(data_parallel),
            data_parallel=data_parallel,
        )

    # --- answers ----------------------------------------------------------------------------------

    def answer(
        self,
        audio: AudioSource | None,
        question: str,
        *,
        spoken_text: str | None = None,
        mode: AnswerMode | str = AnswerMode.JOINT,
        max_new_tokens: int | None = None,
        sampling: SamplingConfig | None = None,
    ) -> Answer:
        """Answer a question about a clip.

        Args:
            audio: a file, its bytes, an `Audio`, or float32 samples at 16 kHz mono; None only in
                text mode with a given `spoken_text`.
            question: the instruction of the prompt.
            spoken_text: what is said in the clip; None lets Whisper transcribe it.
            mode: "joint", "audio" (no transcript) or "text" (no audio tokens).
            max_new_tokens: the answer ends there at the latest; None is 400, or what the base
                model's positions leave.
            sampling: None is greedy.

        Raises:
            UserError: an argument that cannot be used, by its name, before any work: unusable
                audio, an empty question, more tokens than positions or memory are there for;
                missing Whisper weights or tokenizer.
        """
        arguments.transcript_of(spoken_text, audio=audio, mode=mode)
        arguments.one_config(sampling)
        # With what is known of the spoken text; what Whisper writes is added in `stream`.
        self._prompts.one(
            question,
            spoken_text or "",
            with_audio=audio is not None and mode != AnswerMode.TEXT,
            max_new_tokens=max_new_tokens,
        )
        clip = self.listen(audio, spoken_text=spoken_text, mode=mode)
        pieces = self.stream(clip, question, max_new_tokens=max_new_tokens, sampling=sampling)
        return drain(pieces)

    def stream(
        self,
        clip: EncodedClip,
        question: str,
        *,
        max_new_tokens: int | None = None,
        sampling: SamplingConfig | None = None,
    ) -> Generator[str, None, Answer]:
        """Yield the answer's text piece by piece; the generator returns the `Answer`.

        Arguments and errors as in `answer`, the errors at the call; `clip` comes from `listen` and
        serves any number of questions.
        """
        arguments.encoded_clip(clip, config=self.config)
        arguments.one_config(sampling)
        prompt, new = self._prompts.one(
            question,
            clip.spoken_text,
            with_audio=clip.features is not None,
            max_new_tokens=max_new_tokens,
        )
        return self._stream(clip, prompt, new, sampling)

    def _stream(
        self,
        clip: EncodedClip,
        prompt: list[int],
        max_new_tokens: int,
        sampling: SamplingConfig | None,
    ) -> Generator[str, None, Answer]:
        tokenizer = self._need_tokenizer()
        ids, mask = buckets.left_pad([prompt])
        tokens: list[int] = []
        text = AnswerText(tokenizer)
        for token in generation.stream(
            self.model,
            self.params,
            input_ids=ids,
            attention_mask=mask,
            audio_features=None if clip.features is None else clip.features[None],
            max_new_tokens=max_new_tokens,
            eos_id=tokenizer.eos_id,
            sampling=sampling,
            data_parallel=self.data_parallel,
        ):
            tokens.append(token)
            if piece := text.push(token):
                yield piece
        if piece := text.flush():
            yield piece
        return Answer(
            text=tokenizer.decode(tokens).strip(),
            spoken_text=clip.spoken_text,
            seconds=clip.seconds,
            seconds_dropped=clip.seconds_dropped,
            tokens=tuple(tokens),
            finish_reason="eos" if tokens[-1] == tokenizer.eos_id else "length",
        )

    def answer_batch(
        self,
        requests: Sequence[Request],
        *,
        max_new_tokens: int | None = None,
        sampling: SamplingConfig | Sequence[SamplingConfig] | None = None,
        batch_size: int = 16,
    ) -> list[Answer]:
        """Answer many questions, the same as one by one; in the order of `requests`.

        Requests of similar prompt length share a batch. One sampling config serves every request
        with the same seed; give one config per request to draw them differently.

        Raises:
            UserError: as `answer`; a number of configs that is not that of the requests.
        """
        batch_size = whole("batch_size", batch_size)
        requests = arguments.requests(requests, config=self.config)
        configs = per_request(arguments.configs(sampling), len(requests))
        groups = self._prompts.groups(
            requests,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            data_parallel=self.data_parallel,
        )
        answers: dict[int, Answer] = {}
        for group, prompts, new in groups:
            ids, mask = buckets.left_pad(prompts)
            features = None
            if requests[group[0]].audio_features is not None:
                features = np.stack([np.asarray(requests[i].audio_features) for i in group])
            made = generation.generate(
                self.model,
                self.params,
                input_ids=ids,
                attention_mask=mask,
                audio_features=features,
                max_new_tokens=new,
                eos_id=self.tokenizer.eos_id,
                sampling=None if configs is None else [configs[i] for i in group],
                data_parallel=self.data_parallel,
            )
            for row, i in enumerate(group):
                answers[i] = Answer(
                    text=self.tokenizer.decode(made.row(row)).strip(),
                    spoken_text=requests[i].spoken_text,
                    seconds=None,
                    seconds_dropped=0.0,
                    tokens=tuple(made.row(row)),
                    finish_reason=made.finish_reasons[row],
                )
        return [answers[i] for i in range(len(requests))]

    # --- hearing ----------------------------------------------------------------------------------

    def listen(
        self,
        audio: AudioSource | None,
        *,
        spoken_text: str | None = None,
        mode: AnswerMode | str = AnswerMode.JOINT,
    ) -> EncodedClip:
        """Encode and transcribe a clip once, for any number of questions; see `answer`."""
        return self.whispers.listen(audio, spoken_text=spoken_text, mode=mode)

    def audio_features(self, audio: AudioSource) -> Float[np.ndarray, "W A D"]:
        """Return Whisper's layers over the model's window, float32 [W, A, D] (facts 24, 25)."""
        return self.audio_features_batch([arguments.clip("audio", audio)])[0]

    def audio_features_batch(
        self, clips: Iterable[AudioSource], *, batch_size: int = 8
    ) -> Float[np.ndarray, "B W A D"]:
        """Return `audio_features` of many clips, encoded `batch_size` at a time."""
        return self.whispers.features(clips, batch_size=batch_size)

    def transcribe(
        self,
        clips: Iterable[AudioSource],
        *,
        batch_size: int = 8,
        options: TranscribeOptions | None = None,
    ) -> list[Transcript]:
        """Return what is said in each clip of any length, by the Whisper that writes.

        `options` None is the model's own rule, by which the spoken text of its training data was
        made: where nobody speaks there are no words. `transcription.OPENAI` is OpenAI's.
        """
        return self.whispers.transcribe(clips, batch_size=batch_size, options=options)

    # --- numbers ----------------------------------------------------------------------------------

    def logits(
        self,
        input_ids: Int[Any, "B T"],
        attention_mask: Any,
        audio_features: Float[Any, "B W A D"] | None,
        *,
        layout: PositionLayout | str,
    ) -> Float[Array, "B T V"]:
        """Return float32 logits of the text positions.

        Args:
            input_ids: int [B, L].
            attention_mask: [B, L] or, audio included, [B, A + L]; zero at pads.
            audio_features: [B, W, A, D], or None for text only.
            layout: "train" counts positions through the pads, "inference" does not.

        Raises:
            UserError: shapes that do not agree, ids outside the vocabulary, features that are no
                numbers, a masked audio token, an unknown layout, more than memory holds.
        """
        layout = arguments.one_of(PositionLayout, layout, "layout")
        input_ids, mask, audio_features = arguments.logits_inputs(
            input_ids, attention_mask, audio_features, config=self.config
        )
        shape, mask = input_ids.shape, jnp.asarray(mask)
        audio_tokens = 0 if audio_features is None else self.config.audio_tokens
        self._limits.check_logits(rows=shape[0], length=shape[1], audio=audio_tokens)
        if layout is PositionLayout.TRAIN:
            length = audio_tokens + shape[1]
            positions = jnp.broadcast_to(jnp.arange(length), (shape[0], length))
        else:
            positions = buckets.text_positions(mask, audio_tokens=audio_tokens)
        text = TextBatch(
            input_ids=jnp.asarray(input_ids, jnp.int32),
            segment_ids=mask.astype(jnp.int32),
            positions=positions,
        )
        if audio_features is not None:
            audio_features = jnp.asarray(audio_features, jnp.float32)
        return _logits(self.params, text, audio_features, model=self.model)

    def explain(self, clip: EncodedClip, question: str, *, tokens: Sequence[int]) -> Explanation:
        """Return what an answer listened to: Whisper's layers, and audio tokens word by word.

        Args:
            clip: what `listen` gave, with audio.
            question: as in `answer`.
            tokens: `Answer.tokens`, or the ids of any other answer.

        Raises:
            UserError: a clip of text mode, ids outside the vocabulary, no room for the answer.
        """
        arguments.encoded_clip(clip, config=self.config)
        features, tokens = explaining.features_of(clip), explaining.ids(tokens, config=self.config)
        prompt, _ = self._prompts.one(
            question, clip.spoken_text, with_audio=True, max_new_tokens=len(tokens)
        )
        return explaining.explain(
            self.model,
            self.params,
            prompt=prompt,
            audio_features=features[None],
            tokens=tokens,
            tokenizer=self._need_tokenizer(),
        )

    def check_question(
        self,
        question: str,
        spoken_text: str = "",
        *,
        with_audio: bool = True,
        max_new_tokens: int | None = None,
    ) -> None:
        """Require that a question can be answered: before a clip is heard for it.

        Raises:
            UserError: as `answer`.
        """
        self._prompts.one(
            question, spoken_text, with_audio=with_audio, max_new_tokens=max_new_tokens
        )


def load(
    path: str | Path | None = None,
    *,
    whisper: str | Path | None = None,
    llama: str | Path | None = None,
    transcriber: str | Path | None = None,
    transcription: str | None = None,
    dtype: str = "float32",
    mesh: MeshConfig | None = None,
) -> Model:
    """Load a model: a weights directory, a training run (its newest checkpoint) or a checkpoint.

    Args:
        path: what to load; None is the model that comes with this version of the package.
        whisper: the Whisper that hears (a weights directory), where the checkpoint's own is not at
            hand.
        llama: the same for the language model.
        transcriber: the Whisper that writes what is said, of any size; by default the one that the
            checkpoint names, else the one that hears.
        transcription: how it writes. "quiet": where nobody speaks there are no words, as in the
            data of this project; "openai": by OpenAI's thresholds. By default the checkpoint's.
        dtype: "float32", "bfloat16" or "int8", for all but Whisper; int8 is for the kernels of the
            language model, the rest is bfloat16.
        mesh: lay the language model over the devices of this process, where one is too small:
            `MeshConfig(data=1, fsdp=1, tensor=4)`. Where it fits, `Model.over` is faster.

    Raises:
        UserError: what is missing, damaged or of another size, by name.
    """
    given = {"whisper": whisper, "llama": llama, "transcriber": transcriber}
    folders = {n: None if one is None else arguments.folder(n, one) for n, one in given.items()}
    loaded = load_model(
        arguments.folder("path", shipped(path, option="path")),
        **folders,
        dtype=dtype,
        transcription=transcription,
        mesh=mesh,
    )
    return Model(**vars(loaded))


@partial(jax.jit, static_argnames="model")
def _logits(params, text, audio_features, *, model):
    return model.bind(params)(text, audio_features)
