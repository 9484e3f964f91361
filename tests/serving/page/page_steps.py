"""What a visitor does on the page, and what tests look at there."""

import base64
import io
import time
import wave

import numpy as np
import soundfile
from page_server import RECORDED

RATE = 16_000
CHAT = "/v1/chat/completions"
QUESTION = "What can be inferred from the audio?"
JOINT = RECORDED["answers"]["joint"]


def seen(condition, *, seconds=20):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def example(page, name="a voice and frogs"):
    page.get_by_role("button", name=name, exact=True).click()
    page.locator("#segments li").first.wait_for()


def ask(page, question=QUESTION, *, wait=True):
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")
    if wait:
        page.locator("#send").wait_for()


def answers(page):
    return page.locator(".answer .text").all_inner_texts()


def sent_samples(part):
    """The samples of an audio part, which must be 16 kHz mono WAV of 16 bits."""
    assert part["input_audio"]["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(part["input_audio"]["data"]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


def tone(seconds, *, rate=RATE, channels=1, hertz=440):
    """A WAV file of one tone, in the first of its channels."""
    samples = np.zeros((round(seconds * rate), channels))
    samples[:, 0] = 0.5 * np.sin(2 * np.pi * hertz * np.arange(len(samples)) / rate)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()
