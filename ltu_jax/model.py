"""The model as Python code uses it: load a checkpoint, ask about audio, look at logits.

    model = ltu_jax.load("runs/demo/stage3")
    answer = model.answer("clip.wav", "What is the speaker doing?")

Audio takes the one road of training: mel over the whole clip, Whisper's layers, audio tokens; the
spoken text is Whisper's transcript of the clip, in the Input block of the prompt.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.core.errors import UserError
from ltu_jax.core.trees import Params
from ltu_jax.generation import generate as generation
from ltu_jax.generation.opening import Listener, open_model
from ltu_jax.generation.questions import Answer, Heard, Mode, Request, batches, per_request
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.generation.spread import Spread
from ltu_jax.generation.transcribe import OPENAI, TranscribeOptions, Transcript
from ltu_jax.models.build import LTUASFns
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.whisper import POOL
from ltu_jax.preprocessing import audio as audio_lib
from ltu_jax.preprocessing.text import Tokenizer, prompt_ids

MAX_NEW_TOKENS = 400  # of the published evaluation

# A file, the bytes of one, a decoded clip, or float32 samples at 16 kHz mono.
AudioSource = str | Path | bytes | audio_lib.Audio | np.ndarray


class Layout(StrEnum):
    """How positions are counted."""

    TRAIN = "train"  # one after the other, pads included (facts 3)
    INFERENCE = "inference"  # pads do not count (facts 19)


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A loaded LTU-AS; `ltu_jax.load` makes it. Weights without Whisper or tokenizer still give
    `logits`."""

    path: Path
    fns: LTUASFns
    params: Params
    tokenizer: Tokenizer | None
    listener: Listener | None
    spread: Spread = field(default_factory=Spread)
    max_positions: int | None = None  # of the language model; None where its import did not say

    @property
    def config(self) -> LTUASConfig:
        """Sizes of the language model, the TLTR and the audio features."""
        return self.fns.config

    @property
    def window_seconds(self) -> float:
        """How much of a clip the audio tokens cover; each is `POOL` encoder steps of 20 ms."""
        return self.config.audio_tokens * POOL * 0.02

    def over(self, devices: Sequence[jax.Device]) -> "Model":
        """The same model, its batches laid over `devices`, each with a copy of the weights.

        `answer_batch`, `audio_features_batch` and `transcribe` use all of them; answers are those
        of one device.
        """
        spread, listener = Spread(devices), self.listener
        if listener is not None:
            transcriber = listener.transcriber
            listener = replace(
                listener,
                params=spread.copies(dict(listener.params)),
                transcriber=None if transcriber is None else transcriber.over(spread),
            )
        return replace(
            self, params=spread.copies(dict(self.params)), listener=listener, spread=spread
        )

    # --- answers ----------------------------------------------------------------------------------

    def answer(
        self,
        audio: AudioSource | None,
        question: str,
        *,
        spoken_text: str | None = None,
        mode: Mode | str = Mode.JOINT,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: SamplingConfig | None = None,
    ) -> Answer:
        """Answer a question about a clip.

        Args:
            audio: a file, its bytes, an `Audio`, or float32 samples at 16 kHz mono; None only in
                text mode with a given `spoken_text`.
            question: the instruction of the prompt.
            spoken_text: what is said in the clip; None lets Whisper transcribe it.
            mode: "joint", "audio" (no transcript) or "text" (no audio tokens).
            max_new_tokens: the answer ends there at the latest.
            sampling: None is greedy.

        Raises:
            UserError: unusable audio, an empty question, missing Whisper weights or tokenizer.
        """
        heard = self.listen(audio, spoken_text=spoken_text, mode=mode)
        pieces = self.stream(heard, question, max_new_tokens=max_new_tokens, sampling=sampling)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                return end.value

    def stream(
        self,
        heard: Heard,
        question: str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: SamplingConfig | None = None,
    ) -> Iterator[str]:
        """Yield the answer's text piece by piece; the generator returns the `Answer`.

        Arguments and errors as in `answer`; `heard` comes from `listen` and serves any number of
        questions.
        """
        tokenizer = self._need_tokenizer()
        ids, mask = generation.left_pad([self._prompt(question, heard.spoken_text)])
        tokens: list[int] = []
        shown = ""
        for token in generation.stream(
            self.fns,
            self.params,
            input_ids=ids,
            attention_mask=mask,
            audio_features=None if heard.features is None else heard.features[None],
            max_new_tokens=max_new_tokens,
            eos_id=tokenizer.eos_id,
            sampling=sampling,
        ):
            tokens.append(token)
            text = tokenizer.decode(tokens).strip()
            # A character may need several tokens; until then it decodes to the replacement sign.
            if not text.endswith("\ufffd") and text.startswith(shown) and text != shown:
                yield text[len(shown) :]
                shown = text
        text = tokenizer.decode(tokens).strip()
        if text.startswith(shown) and text != shown:
            yield text[len(shown) :]
        return Answer(
            text=text,
            spoken_text=heard.spoken_text,
            seconds=heard.seconds,
            seconds_dropped=heard.seconds_dropped,
            tokens=tuple(tokens),
            finish_reason="eos" if tokens[-1] == tokenizer.eos_id else "length",
        )

    def answer_batch(
        self,
        requests: Sequence[Request],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: SamplingConfig | Sequence[SamplingConfig] | None = None,
        batch_size: int = 16,
    ) -> list[Answer]:
        """Answer many questions, the same as one by one; in the order of `requests`.

        Requests of similar prompt length share a batch. One sampling config serves every request
        with the same seed; give one config per request to draw them differently.

        Raises:
            UserError: as `answer`; a number of configs that is not that of the requests.
        """
        tokenizer = self._need_tokenizer()
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: must be at least 1")
        configs = per_request(sampling, len(requests))
        prompts = [self._prompt(r.question, r.spoken_text) for r in requests]
        answers: dict[int, Answer] = {}
        for group in batches(requests, prompts, batch_size):
            ids, mask = generation.left_pad([prompts[i] for i in group])
            features = None
            if requests[group[0]].audio_features is not None:
                features = np.stack([np.asarray(requests[i].audio_features) for i in group])
            made = generation.generate(
                self.fns,
                self.params,
                input_ids=ids,
                attention_mask=mask,
                audio_features=features,
                max_new_tokens=max_new_tokens,
                eos_id=tokenizer.eos_id,
                sampling=None if configs is None else [configs[i] for i in group],
                spread=self.spread,
            )
            for row, i in enumerate(group):
                answers[i] = Answer(
                    text=tokenizer.decode(made.row(row)).strip(),
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
        mode: Mode | str = Mode.JOINT,
    ) -> Heard:
        """Encode and transcribe a clip once, for any number of questions; see `answer`."""
        mode = _one_of(Mode, mode, "mode")
        if audio is None:
            if mode is not Mode.TEXT or spoken_text is None:
                raise UserError(
                    f"mode {mode.value!r} needs audio; only mode 'text' with a spoken_text does not"
                )
            return Heard(
                features=None, spoken_text=spoken_text, seconds=None, seconds_dropped=0.0, mode=mode
            )
        clip = _samples(audio)
        features, dropped = None, 0.0
        if mode is not Mode.TEXT:
            window = self._log_mel(clip.samples)
            features = np.asarray(self._encode(window.log_mel[None])[0])
            dropped = window.seconds_dropped
        if mode is Mode.AUDIO:
            spoken_text = ""
        elif spoken_text is None:
            spoken_text = self.transcribe([clip], batch_size=1)[0].spoken_text
        return Heard(
            features=features,
            spoken_text=spoken_text,
            seconds=clip.seconds,
            seconds_dropped=dropped,
            mode=mode,
        )

    def audio_features(self, audio: AudioSource) -> Float[np.ndarray, "W A D"]:
        """Whisper's layers over the model's window, float32 [W, A, D] (facts 24, 25)."""
        return self.audio_features_batch([audio])[0]

    def audio_features_batch(
        self, clips: Iterable[AudioSource], *, batch_size: int = 8
    ) -> Float[np.ndarray, "B W A D"]:
        """`audio_features` of many clips, encoded `batch_size` at a time."""
        windows = [self._log_mel(_samples(clip).samples).log_mel for clip in clips]
        parts = []
        for first in range(0, len(windows), batch_size):
            part = np.stack(windows[first : first + batch_size])
            rows = self.spread.padded(len(part), generation.BATCH_BUCKETS)
            padded = np.concatenate([part, np.repeat(part[:1], rows - len(part), axis=0)])
            parts.append(np.asarray(self._encode(padded))[: len(part)])
        if not parts:
            raise UserError("audio_features_batch got no clips; give at least one")
        return np.concatenate(parts)

    def transcribe(
        self,
        clips: Iterable[AudioSource],
        *,
        batch_size: int = 8,
        options: TranscribeOptions = OPENAI,
    ) -> list[Transcript]:
        """Whisper's transcript of each clip, by OpenAI's decoding rules; clips of any length."""
        transcriber = self._need_listener().transcriber
        if transcriber is None:
            raise UserError(
                f"the Whisper weights of {self.path} have no tokenizer.json, so the clip cannot be "
                "transcribed; give the spoken text yourself, use mode 'audio', or convert a "
                "Whisper that comes with its tokenizer"
            )
        samples = (_samples(clip).samples for clip in clips)
        return transcriber.transcribe(samples, batch_size=batch_size, options=options)

    # --- numbers ----------------------------------------------------------------------------------

    def logits(
        self,
        input_ids: Int[Any, "B T"],
        attention_mask: Any,
        audio_features: Float[Any, "B W A D"] | None,
        *,
        layout: Layout | str,
    ) -> Float[Array, "B T V"]:
        """Float32 logits of the text positions.

        Args:
            input_ids: int [B, L].
            attention_mask: [B, L] or, audio included, [B, A + L]; zero at pads.
            audio_features: [B, W, A, D], or None for text only.
            layout: "train" counts positions through the pads, "inference" does not.

        Raises:
            UserError: shapes that do not agree, a masked audio token, an unknown layout.
        """
        layout = _one_of(Layout, layout, "layout")
        shape, mask = np.shape(input_ids), np.asarray(attention_mask)
        audio_tokens = 0 if audio_features is None else self.config.audio_tokens
        whole = (shape[0], self.config.audio_tokens + shape[-1])
        if len(shape) != 2 or mask.shape not in (shape, whole):
            raise UserError(
                f"input_ids {list(shape)} and attention_mask {list(mask.shape)} do not agree; the "
                f"mask must be [B, L] or [B, {self.config.audio_tokens} + L]"
            )
        if mask.shape == whole and not mask[:, : -shape[1]].all():
            raise UserError("attention_mask hides audio tokens; the model always attends to them")
        mask = jnp.asarray(mask[:, -shape[1] :] != 0)
        if layout is Layout.TRAIN:
            positions = jnp.broadcast_to(
                jnp.arange(audio_tokens + shape[1]), (shape[0], audio_tokens + shape[1])
            )
        else:
            positions = generation.text_positions(mask, audio_tokens=audio_tokens)
        return _forward(
            self.params,
            jnp.asarray(input_ids, jnp.int32),
            None if audio_features is None else jnp.asarray(audio_features, jnp.float32),
            mask.astype(jnp.int32),
            positions,
            function=self.fns.forward,
        )

    # --- parts ------------------------------------------------------------------------------------

    def _log_mel(self, samples: np.ndarray) -> audio_lib.Windowed:
        listener = self._need_listener()
        return audio_lib.model_log_mel(
            samples,
            n_mels=listener.fns.config.n_mels,
            frames=self.config.audio_tokens * POOL * 2,
        )

    def _encode(self, log_mel: Float[np.ndarray, "B F M"]) -> Float[Array, "B W A D"]:
        listener = self._need_listener()
        whole = len(log_mel) % self.spread.count == 0  # a single clip stays on one device
        rows = self.spread.rows(jnp.asarray(log_mel)) if whole else jnp.asarray(log_mel)
        return _features(listener.params, rows, function=listener.fns.features)

    def _prompt(self, question: str, spoken_text: str) -> list[int]:
        if not question.strip():
            raise UserError("the question is empty; ask something about the clip")
        return prompt_ids(self._need_tokenizer(), instruction=question, spoken_text=spoken_text)

    def _need_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError(
                f"{self.path} has no tokenizer, so it cannot read a question; put tokenizer.model "
                "or tokenizer.json there, or give the language model's weights directory: "
                f"ltu_jax.load({str(self.path)!r}, llama=DIR)"
            )
        return self.tokenizer

    def _need_listener(self) -> Listener:
        if self.listener is None:
            raise UserError(self._no_whisper())
        return self.listener

    def _no_whisper(self) -> str:
        layers, width = self.config.audio_layers, self.config.tltr.d_model
        size = f"width {width}" if layers is None else f"{layers} layers and width {width}"
        return (
            f"{self.path} comes without Whisper weights, so it cannot hear audio; convert a "
            f"Whisper of {size} with "
            "`python -m ltu_jax.convert --from hf-whisper --weights ... --out DIR` and give it: "
            f"ltu_jax.load({str(self.path)!r}, whisper=DIR)"
        )


def load(
    path: str | Path,
    *,
    whisper: str | Path | None = None,
    llama: str | Path | None = None,
    dtype: str = "float32",
) -> Model:
    """Load a model: a weights directory, a training run (its newest checkpoint) or a checkpoint.

    Args:
        path: what to load.
        whisper: Whisper weights directory, where the checkpoint's own is not at hand.
        llama: the same for the language model.
        dtype: "float32" or "bfloat16", for all but Whisper.

    Raises:
        UserError: what is missing, damaged or of another size, by name.
    """
    opened = open_model(path, whisper=whisper, llama=llama, dtype=dtype)
    return Model(**vars(opened))


@partial(jax.jit, static_argnames="function")
def _forward(params, input_ids, audio_features, segment_ids, positions, *, function):
    return function(params, input_ids, audio_features, segment_ids=segment_ids, positions=positions)


@partial(jax.jit, static_argnames="function")
def _features(params, log_mel, *, function):
    return function(params, log_mel)


def _samples(source: AudioSource) -> audio_lib.Audio:
    if isinstance(source, audio_lib.Audio):
        return source
    if isinstance(source, str | Path | bytes):
        return audio_lib.load_audio(source)
    return audio_lib.from_samples(source, rate=audio_lib.SAMPLE_RATE, name="<samples>")


def _one_of(kind: type[StrEnum], value: str, name: str) -> Any:
    if value not in list(kind):
        raise UserError(f"{name} {value!r} is unknown; known are {', '.join(kind)}")
    return kind(value)
