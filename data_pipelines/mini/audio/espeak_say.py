"""Speak one sentence with espeak-ng in a process of its own: 16-bit 22,050 Hz samples on stdout.

espeak keeps random state from one utterance to the next, so only a fresh process with a fixed seed
gives the same samples twice. Run by `voices.EspeakVoice` as a plain script, without NumPy, so that
it starts in milliseconds: ``python espeak_say.py LIBRARY DATA_DIR VOICE RATE PITCH TEXT``.
"""

import ctypes
import sys

_RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples go to the callback, not to a sound card
_UTF8 = 1
_RATE, _PITCH = 1, 3  # espeak_PARAMETER


def speak(library: str, data: str, voice: str, rate: int, pitch: int, text: str) -> bytes:
    """Speak `text` as little-endian int16 samples; `rate` in words per minute, `pitch` 0-99."""
    espeak = ctypes.CDLL(library)
    if espeak.espeak_Initialize(_RETRIEVAL, 0, data.encode(), 0) < 0:
        raise SystemExit(f"espeak-ng cannot read its data at {data}")
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))
    pieces: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def receive(samples, count, _events):
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    espeak.espeak_SetSynthCallback(receive)
    if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
        raise SystemExit(f"espeak-ng has no voice {voice!r}")
    espeak.espeak_SetParameter(_RATE, rate, 0)
    espeak.espeak_SetParameter(_PITCH, pitch, 0)
    encoded = text.encode()
    espeak.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None)
    espeak.espeak_Synchronize()
    return b"".join(pieces)


if __name__ == "__main__":
    _, _library, _data, _voice, _speed, _height, _text = sys.argv
    sys.stdout.buffer.write(speak(_library, _data, _voice, int(_speed), int(_height), _text))
