"""Speech to text with Whisper, batched over clips, by the rules of openai/whisper `transcribe`.

Each clip moves through 30 s windows. A window is encoded once; all windows at hand are decoded
together in one compiled loop that stops when the last row has ended. Windows whose text repeats
itself or is unlikely are decoded again at the next temperature, together with those that ran out
of room, so one bad clip never holds up a batch. A clip's text does not depend on its batch.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ltu_jax.core.axes import Array, Float
from ltu_jax.core.errors import UserError, brief
from ltu_jax.core.values import whole
from ltu_jax.generation import whisper_decode
from ltu_jax.generation.buckets import BATCH_BUCKETS, bucket
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.transcription import OPENAI, TranscribeOptions
from ltu_jax.generation.whisper_rules import (
    SECONDS_PER_FRAME,
    WINDOW_FRAMES,
    Masks,
    Quality,
    Segment,
    Transcript,
    WhisperInput,
    begin,
    compression_ratio,
    cut,
    masks,
)
from ltu_jax.models.whisper import Whisper
from ltu_jax.preprocessing.audio import SAMPLE_RATE
from ltu_jax.preprocessing.whisper_vocabulary import LANGUAGES, Vocabulary

# First try of a window: room for fluent speech of its length. What needs more is decoded again
# with Whisper's full room; that is rare, and mostly a text that repeats itself.
_TOKENS_PER_SECOND, _SPARE_TOKENS = 5.0, 10


@dataclass
class _Job:
    """One decoding of one clip's window."""

    index: int
    clip: WhisperInput
    encoded: Any = None
    prompt: list[int] = field(default_factory=list)
    attempt: int = 0  # index of the temperature
    full_room: bool = False


@dataclass(frozen=True, kw_only=True)
class Transcriber:
    """A Whisper model ready to transcribe; made by `loading.load_transcriber` or from its parts."""

    whisper: Whisper
    params: Mapping[str, Array]
    vocabulary: Vocabulary
    masks: Masks
    decode_text: Callable[[list[int]], str]
    data_parallel: DataParallel = field(default_factory=DataParallel)

    def over(self, data_parallel: DataParallel) -> "Transcriber":
        """Return the same, its windows laid over several devices."""
        return replace(
            self, params=data_parallel.copies(dict(self.params)), data_parallel=data_parallel
        )

    @classmethod
    def of(cls, whisper: Whisper, params: Mapping[str, Any], *, tokenizer: Any) -> "Transcriber":
        """Make one of a Whisper, its parameters and its `tokenizers.Tokenizer`."""
        vocabulary = Vocabulary.of_names(tokenizer.token_to_id, rows=whisper.config.n_vocab)

        def encode(part: str) -> list[int]:
            return tokenizer.encode(part, add_special_tokens=False).ids

        return cls(
            whisper=whisper,
            params=params,
            vocabulary=vocabulary,
            masks=masks(vocabulary, encode=encode),
            decode_text=lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
        )

    def transcribe(
        self,
        clips: Iterable[Float[np.ndarray, "C"]],
        *,
        batch_size: int,
        options: TranscribeOptions = OPENAI,
    ) -> list[Transcript]:
        """Return one transcript a clip, in order; arguments and errors as in `iterate`."""
        by_index = dict(self.iterate(clips, batch_size=batch_size, options=options))
        return [by_index[index] for index in range(len(by_index))]

    def iterate(
        self,
        clips: Iterable[Float[np.ndarray, "C"]],
        *,
        batch_size: int,
        options: TranscribeOptions = OPENAI,
        full_room: bool = False,
        show: Callable[[int, Sequence[Segment]], None] = lambda index, segments: None,
    ) -> Iterator[tuple[int, Transcript]]:
        """Transcribe clips of any length; yield (index of the clip, transcript) as they are ready.

        Args:
            clips: float32 samples at 16 kHz mono; read one batch at a time, so a generator keeps
                memory small. Many clips in one call are faster than many calls: windows that need
                another attempt are collected into full batches.
            batch_size: windows encoded and decoded together.
            options: thresholds, language and task.
            full_room: give each window room for as many tokens as Whisper allows at once: slower
                where windows are short, and fewer programs.
            show: called with the index of a clip and its segments so far, after each window.

        Raises:
            ValueError: a clip that is not one-dimensional or an unknown language.
        """
        whole("batch_size", batch_size)
        if not isinstance(options, TranscribeOptions):
            raise UserError(f"options is {brief(options)}: give TranscribeOptions")
        if options.language is not None and self.vocabulary.multilingual:
            self.vocabulary.language_id(options.language)
        if options.task == "translate" and not self.vocabulary.multilingual:
            raise UserError("this Whisper knows English only, so it cannot translate into it")
        source = enumerate(clips)
        ahead: deque[_Job] = deque()  # next windows of clips already begun
        retries: deque[_Job] = deque()
        while True:
            jobs: list[_Job] = []
            if len(retries) < batch_size:
                jobs, empty = self._fill(ahead, source, batch_size)
                yield from empty
                for job in jobs:
                    job.full_room = full_room
                if jobs:
                    self._encode(jobs, options)
            if not jobs:
                jobs = [retries.popleft() for _ in range(min(batch_size, len(retries)))]
            if not jobs:
                return
            for job, result in zip(jobs, self._decode(jobs, options), strict=True):
                if self._again(job, result, options):
                    retries.append(job)
                    continue
                self._accept(job, result, options)
                show(job.index, job.clip.segments)
                if job.clip.size > 0:
                    ahead.append(_Job(index=job.index, clip=job.clip))
                else:
                    yield job.index, self._finished(job.clip)

    def warm(self, *, rows: Sequence[int] = (1,), options: TranscribeOptions = OPENAI) -> None:
        """Compile what later calls need: one clip at a time of any length, by any temperature.

        Args:
            rows: sizes of batches beside 1, of which each window has Whisper's full room.
            options: those by which such batches are written.
        """
        clip = begin(np.zeros(SAMPLE_RATE, np.float32), n_mels=self.whisper.config.n_mels, index=0)
        first = _Job(index=0, clip=clip)
        self._encode([first], OPENAI)
        windows = range(1, WINDOW_FRAMES // 100 + 1)
        for room in sorted({self._room(seconds) for seconds in (*windows, np.inf)}):
            for attempt in (0, 1):
                self._prepare([replace(first, attempt=attempt)], OPENAI, room=room)
        for count in rows:
            together = [replace(first) for _ in range(count)]
            self._prepare_encoding(together)
            for attempt in range(min(len(options.temperatures), 2)):
                jobs = [replace(one, attempt=attempt) for one in together]
                self._prepare(jobs, options, room=self._room(np.inf))

    def _prepare_encoding(self, jobs: list[_Job]) -> None:
        log_mel = np.stack([job.clip.window() for job in jobs])
        whisper_decode.encode.prepare(self.params, log_mel, encoder=self.whisper.encoder)
        one = jobs[0].encoded
        encoded = jax.ShapeDtypeStruct((len(jobs), *one.shape), one.dtype)
        whisper_decode.one_row.prepare(encoded, np.int32(0))
        if self.vocabulary.multilingual:
            whisper_decode.detect_language.prepare(
                self.params, encoded, decoder=self.whisper.decoder, vocabulary=self.vocabulary
            )

    def _prepare(self, jobs: list[_Job], options: TranscribeOptions, *, room: int) -> None:
        settings = replace(self._settings(jobs, options), room=room)
        whisper_decode.prepare(self.params, self._rows(jobs, options), settings)

    def _fill(
        self, ahead: deque[_Job], source: Iterator[tuple[int, np.ndarray]], batch_size: int
    ) -> tuple[list[_Job], list[tuple[int, Transcript]]]:
        """Windows to encode, of begun clips first, and clips too short to have one."""
        jobs = [ahead.popleft() for _ in range(min(batch_size, len(ahead)))]
        empty = []
        while len(jobs) < batch_size and (item := next(source, None)) is not None:
            index, samples = item
            clip = begin(samples, n_mels=self.whisper.config.n_mels, index=index)
            if clip.size > 0:
                jobs.append(_Job(index=index, clip=clip))
            else:
                empty.append((index, self._finished(clip)))
        return jobs, empty

    def _encode(self, jobs: list[_Job], options: TranscribeOptions) -> None:
        """Encode the windows and give each job its prompt."""
        rows = self.data_parallel.padded(len(jobs), BATCH_BUCKETS)
        log_mel = np.stack([job.clip.window() for job in jobs])
        log_mel = np.concatenate([log_mel, np.repeat(log_mel[:1], rows - len(jobs), axis=0)])
        log_mel = self.data_parallel.rows(log_mel)
        encoded = whisper_decode.encode(self.params, log_mel, encoder=self.whisper.encoder)
        for row, job in enumerate(jobs):
            job.encoded = whisper_decode.one_row(encoded, np.int32(row))
            if not self.vocabulary.multilingual:
                job.clip.language = "en"
            elif options.language is not None:
                job.clip.language = options.language
        if any(job.clip.language is None for job in jobs):
            languages = whisper_decode.detect_language(
                self.params, encoded, decoder=self.whisper.decoder, vocabulary=self.vocabulary
            )
            for language, job in zip(np.asarray(languages).tolist(), jobs, strict=False):
                job.clip.language = job.clip.language or LANGUAGES[language]
        for job in jobs:
            job.prompt = self._prompt(job.clip, options)

    def _task(self, clip: WhisperInput, options: TranscribeOptions) -> list[int]:
        return self.vocabulary.prompt(
            language=clip.language, timestamps=options.timestamps, task=options.task
        )

    def _prompt(self, clip: WhisperInput, options: TranscribeOptions) -> list[int]:
        task = self._task(clip, options)
        before = clip.tokens[clip.prompt_from :]
        if not (options.condition_on_previous_text and before):
            return task
        return [
            self.vocabulary.previous,
            *before[-(self.whisper.config.n_text_ctx // 2 - 1) :],
            *task,
        ]

    def _decode(
        self, jobs: list[_Job], options: TranscribeOptions
    ) -> list[whisper_decode.RowResult]:
        settings = self._settings(jobs, options)
        return whisper_decode.decode(self.params, self._rows(jobs, options), settings)

    def _rows(self, jobs: list[_Job], options: TranscribeOptions) -> list[whisper_decode.Row]:
        return [
            whisper_decode.Row(
                encoded=job.encoded,
                prompt=job.prompt,
                temperature=options.temperatures[job.attempt],
                seeds=(options.seed, job.clip.seek, job.attempt),
            )
            for job in jobs
        ]

    def _settings(
        self, jobs: list[_Job], options: TranscribeOptions
    ) -> whisper_decode.DecodeSettings:
        seconds = max(job.clip.size for job in jobs) * SECONDS_PER_FRAME
        return whisper_decode.DecodeSettings(
            decoder=self.whisper.decoder,
            vocabulary=self.vocabulary,
            masks=self.masks,
            task_length=len(self._task(jobs[0].clip, options)),
            room=self._room(np.inf if any(job.full_room for job in jobs) else seconds),
            timestamps=options.timestamps,
            # No text is likelier than 1: from a limit of 0 on, silence alone decides, and such a
            # window need not be decoded.
            silent_above=options.no_speech_limit if options.logprob_limit >= 0 else np.inf,
            data_parallel=self.data_parallel,
        )

    def _room(self, seconds: float) -> int:
        most = self.whisper.config.n_text_ctx // 2
        if seconds == np.inf:
            return most
        return min(most, bucket(int(_TOKENS_PER_SECOND * seconds) + _SPARE_TOKENS, (32, 64)))

    def _quality(self, job: _Job, result: Any, options: TranscribeOptions) -> Quality:
        words = self._words(result.tokens)
        return Quality(
            temperature=options.temperatures[job.attempt],
            avg_logprob=result.sum_logprob / (len(result.tokens) + 1),
            compression_ratio=compression_ratio(words),
            no_speech_prob=result.no_speech_prob,
        )

    def _again(self, job: _Job, result: Any, options: TranscribeOptions) -> bool:
        """Tell whether the window needs more room or another temperature; set it in the job."""
        if result.out_of_room:
            job.full_room = True
            return True
        quality = self._quality(job, result, options)
        unlikely = quality.avg_logprob < options.logprob_limit
        silent = unlikely and quality.no_speech_prob > options.no_speech_limit
        repeats = quality.compression_ratio > options.compression_ratio_limit
        if (unlikely or repeats) and not silent and job.attempt + 1 < len(options.temperatures):
            job.attempt += 1
            return True
        return False

    def _accept(self, job: _Job, result: Any, options: TranscribeOptions) -> None:
        """Take over a window's text and move the clip on."""
        clip, quality = job.clip, self._quality(job, result, options)
        clip.qualities.append(quality)
        silent = (
            quality.no_speech_prob > options.no_speech_limit
            and quality.avg_logprob <= options.logprob_limit
        )
        if silent:
            clip.seek += clip.size
            return
        pieces, moved = cut(result.tokens, vocabulary=self.vocabulary, frames=clip.size)
        offset = clip.seek * SECONDS_PER_FRAME
        for piece in pieces:
            words = self._words(piece.tokens)
            if piece.start == piece.end or not words:
                continue
            clip.tokens += piece.tokens
            clip.segments.append(
                Segment(
                    start=round(offset + piece.start, 2),
                    end=round(offset + piece.end, 2),
                    text=words,
                    window=round(offset, 2),
                    tokens=tuple(piece.tokens),
                    **quality._asdict(),
                )
            )
        clip.seek += moved
        if not options.condition_on_previous_text or quality.temperature > 0.5:
            clip.prompt_from = len(clip.tokens)

    def _words(self, tokens: Sequence[int]) -> str:
        return self.decode_text([t for t in tokens if t < self.vocabulary.end]).strip()

    def _finished(self, clip: WhisperInput) -> Transcript:
        def mean(name: str) -> float:
            values = [getattr(quality, name) for quality in clip.qualities]
            return float(np.mean(values)) if values else np.nan

        return Transcript(
            text=self._words(clip.tokens),
            segments=tuple(clip.segments),
            language=clip.language or "en",
            no_speech_prob=mean("no_speech_prob"),
            avg_logprob=mean("avg_logprob"),
        )


def load_whisper_tokenizer(path: str | Path) -> Any:
    """The `tokenizers.Tokenizer` of a Whisper weights directory.

    Raises:
        UserError: the directory has no tokenizer.json.
    """
    import tokenizers

    file = Path(path) / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"{path} has no tokenizer.json, so this Whisper can encode audio but not transcribe; "
            "convert it again from a source that has one, or give the spoken text yourself"
        )
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    # Some files add a space before every text; the suppressed signs exist with and without one.
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer
