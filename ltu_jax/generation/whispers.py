"""The two Whispers of a model at work: one hears clips, one writes what is said in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ltu_jax.core.axes import Array, Float
from ltu_jax.core.errors import UserError, on_command_line, spell
from ltu_jax.core.kept_programs import KeptJit
from ltu_jax.core.trees import Params
from ltu_jax.core.values import whole
from ltu_jax.generation import arguments, limits
from ltu_jax.generation.buckets import BATCH_BUCKETS
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.request import AnswerMode, EncodedClip
from ltu_jax.generation.transcribe import Transcriber, Transcript
from ltu_jax.generation.transcription import TranscribeOptions
from ltu_jax.models.functional import Functional
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.whisper import POOL, Encoder, Whisper
from ltu_jax.preprocessing import audio as audio_lib


def give(path: Path, name: str) -> str:
    """Say how a caller of `ltu_jax.load`, or of a command, gives other weights."""
    if on_command_line():
        return f"{spell(name)} DIR"
    return f"ltu_jax.load({str(path)!r}, {name}=DIR)"


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Whisper as the feature extractor: the one that hears."""

    whisper: Whisper
    params: Params


@dataclass(frozen=True, kw_only=True)
class Whispers:
    """The Whispers of a model at `path`: `listener` hears, `transcriber` writes by `rule`."""

    path: Path
    config: LTUASConfig
    listener: Listener | None
    transcriber: Transcriber | None
    rule: TranscribeOptions
    data_parallel: DataParallel

    def listen(self, audio: Any, *, spoken_text: Any, mode: Any) -> EncodedClip:
        """Return a clip made ready for questions; see `Model.listen`."""
        mode, spoken_text = arguments.transcript_of(spoken_text, audio=audio, mode=mode)
        if audio is None:
            return EncodedClip(
                features=None, spoken_text=spoken_text, seconds=None, seconds_dropped=0.0, mode=mode
            )
        clip = arguments.clip("audio", audio)
        if spoken_text is None or mode is AnswerMode.AUDIO:
            return next(self.listen_each([clip], modes=[mode]))[1]
        heard = None if mode is AnswerMode.TEXT else self._hear([clip])[0]
        return _encoded(clip, heard, spoken_text, mode=mode)

    def listen_each(
        self, clips: Sequence[audio_lib.Audio], *, modes: Sequence[AnswerMode]
    ) -> Iterator[tuple[int, EncodedClip]]:
        """Make clips ready for questions in one batch; yield each with its index when it is.

        What is heard of a clip is what `listen` gives: features to the last bits of float32, and
        the same spoken text.

        Args:
            clips: of any length; the longest is ready last.
            modes: one a clip.
        """
        listening = [n for n, mode in enumerate(modes) if mode is not AnswerMode.TEXT]
        writing = [n for n, mode in enumerate(modes) if mode is not AnswerMode.AUDIO]
        if listening:
            self.need_listener()
        if writing:
            self.need_transcriber()
        heard = dict(zip(listening, self._hear([clips[n] for n in listening]), strict=True))
        for n in listening:
            if modes[n] is AnswerMode.AUDIO:
                yield n, _encoded(clips[n], heard[n], "", mode=modes[n])
        if not writing:
            return
        for index, transcript in self.transcriber.iterate(
            [clips[n].samples for n in writing],
            batch_size=len(writing),
            options=self.rule,
            full_room=len(writing) > 1,
        ):
            n = writing[index]
            yield n, _encoded(clips[n], heard.get(n), transcript.spoken_text, mode=modes[n])

    def warm(self, *, rows: Sequence[int]) -> None:
        """Compile what `listen_each` needs for so many clips at once, and one clip of any length.

        Args:
            rows: sizes of batches, of `buckets.BATCH_BUCKETS`.
        """
        if self.transcriber is not None:
            self.transcriber.warm(rows=rows, options=self.rule)
        if self.listener is not None:
            log_mel = self._log_mel(np.zeros(audio_lib.SAMPLE_RATE, np.float32)).log_mel
            for count in rows:
                _features.prepare(
                    self.listener.params,
                    jax.ShapeDtypeStruct((count, *log_mel.shape), log_mel.dtype),
                    encoder=self.listener.whisper.encoder,
                )

    def features(self, clips: Any, *, batch_size: Any) -> Float[np.ndarray, "B W A D"]:
        """Return features of many clips; see `Model.audio_features_batch`."""
        batch_size, clips = whole("batch_size", batch_size), arguments.clips(clips)
        config = self.need_listener().whisper.config
        decoded = (arguments.clip(name, clip) for name, clip in clips)
        windows = [self._log_mel(clip.samples).log_mel for clip in decoded]
        if not windows:
            raise UserError("audio_features_batch got no clips; give at least one")
        rows = self.data_parallel.on_one(min(batch_size, len(windows)), BATCH_BUCKETS)
        limits.check_encoder(config, rows=rows)
        return np.concatenate(
            [
                self._encode_together(windows[first : first + batch_size])
                for first in range(0, len(windows), batch_size)
            ]
        )

    def transcribe(self, clips: Any, *, batch_size: Any, options: Any) -> list[Transcript]:
        """Return what is said in many clips; see `Model.transcribe`."""
        transcriber = self.need_transcriber()
        batch_size, given = whole("batch_size", batch_size), arguments.clips(clips)
        known = min(batch_size, len(clips)) if isinstance(clips, Sequence) else batch_size
        rows = self.data_parallel.on_one(max(known, 1), BATCH_BUCKETS)
        limits.check_encoder(transcriber.whisper.config, rows=rows)
        samples = (arguments.clip(name, clip).samples for name, clip in given)
        return transcriber.transcribe(
            samples, batch_size=batch_size, options=self.rule if options is None else options
        )

    def need_listener(self) -> Listener:
        """Return the Whisper that hears; `UserError` where there is none."""
        if self.listener is not None:
            return self.listener
        layers, width = self.config.audio_layers, self.config.tltr.d_model
        size = f"width {width}" if layers is None else f"{layers} layers and width {width}"
        raise UserError(
            f"{self.path} comes without Whisper weights, so it cannot hear audio; convert a "
            f"Whisper of {size} with "
            "`python -m ltu_jax.convert --from hf-whisper --weights ... --out DIR` and give it: "
            f"{give(self.path, 'whisper')}"
        )

    def need_transcriber(self) -> Transcriber:
        """Return the Whisper that writes; `UserError` where there is none."""
        if self.transcriber is not None:
            return self.transcriber
        self.need_listener()
        raise UserError(
            f"the Whisper weights of {self.path} have no tokenizer.json, so the clip cannot be "
            "transcribed; give the spoken text yourself, use mode 'audio', or give a Whisper "
            f"that comes with its tokenizer: {give(self.path, 'transcriber')}"
        )

    def _hear(self, clips: Sequence[audio_lib.Audio]) -> list[tuple[np.ndarray, float]]:
        """The features of each clip, and how many seconds of it lie behind the model's window."""
        windows = [self._log_mel(clip.samples) for clip in clips]
        if len(windows) > 1:
            features = self._encode_together([window.log_mel for window in windows])
        else:  # on one device, whatever there is
            features = [np.asarray(self._encode(window.log_mel[None])[0]) for window in windows]
        return [
            (one, window.seconds_dropped) for one, window in zip(features, windows, strict=True)
        ]

    def _encode_together(
        self, windows: Sequence[Float[np.ndarray, "F M"]]
    ) -> Float[np.ndarray, "B W A D"]:
        part = np.stack(windows)
        rows = self.data_parallel.padded(len(part), BATCH_BUCKETS)
        padded = np.concatenate([part, np.repeat(part[:1], rows - len(part), axis=0)])
        return np.asarray(self._encode(padded))[: len(part)]

    def _log_mel(self, samples: np.ndarray) -> audio_lib.Windowed:
        return audio_lib.model_log_mel(
            samples,
            n_mels=self.need_listener().whisper.config.n_mels,
            frames=self.config.audio_tokens * POOL * 2,
        )

    def _encode(self, log_mel: Float[np.ndarray, "B F M"]) -> Float[Array, "B W A D"]:
        listener = self.need_listener()
        even = len(log_mel) % self.data_parallel.count == 0  # a single clip stays on one device
        rows = self.data_parallel.rows(log_mel) if even else jax.device_put(log_mel)
        return _features(listener.params, rows, encoder=listener.whisper.encoder)


def _encoded(
    clip: audio_lib.Audio,
    heard: tuple[np.ndarray, float] | None,
    spoken_text: str,
    *,
    mode: AnswerMode,
) -> EncodedClip:
    features, dropped = (None, 0.0) if heard is None else heard
    return EncodedClip(
        features=features,
        spoken_text=spoken_text,
        seconds=clip.seconds,
        seconds_dropped=dropped,
        mode=mode,
    )


@partial(KeptJit, static_argnames=("encoder",))
def _features(params, log_mel, *, encoder: Functional[Encoder]):
    return encoder.bind(params).features(log_mel)
