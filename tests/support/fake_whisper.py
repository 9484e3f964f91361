"""A Whisper whose texts and figures tests know beforehand."""

import types

from data_pipelines.open_asqa import clip_whisper, invented_phrases
from ltu_jax.generation.whisper_rules import Segment, Transcript


class FakeWhisper:
    """Stands for a Whisper: writes the length of a clip; the rest depends on the whole batch."""

    calls = 0
    silence = 0  # thousandths of the no-speech probability

    def transcribe(self, clips, *, batch_size, options):
        """Return a transcript of each clip."""
        del batch_size, options
        FakeWhisper.calls += 1
        lengths = [len(clip) for clip in clips]
        return [self._transcript(length, place, lengths) for place, length in enumerate(lengths)]

    def _transcript(self, length, place, lengths):
        no_speech = (sum(lengths) % 97 + self.silence) / 1000 + place / 10_000
        figures = {"no_speech_prob": no_speech, "avg_logprob": -0.5}
        text = f"It has {length} samples."
        segment = Segment(
            start=0.0, end=1.0, text=text, window=0.0, tokens=(), temperature=0.0,
            compression_ratio=1.0, **figures,
        )  # fmt: skip
        return Transcript(text=text, segments=(segment,), language="en", **figures)


def with_fake_whisper(patch=setattr, *, silence: int = 0) -> None:
    """Put it in Whisper's place; `patch` is setattr, or a MonkeyPatch's."""
    patch(FakeWhisper, "silence", silence)
    weights = types.SimpleNamespace(named="fake", sha256="f" * 64)
    patch(clip_whisper, "open_weights", lambda *args, **kwargs: weights)
    patch(clip_whisper, "load_transcriber", lambda path: FakeWhisper())
    patch(invented_phrases, "CLIPS", 5)
    patch(invented_phrases.harvest, "__kwdefaults__", {"clips": 5, "seed": 0})
