"""Sound on the page, in a headless Chromium: record, choose, see, play, read along."""

import re

import numpy as np
import pytest
from page_server import RECORDED
from page_steps import CHAT, RATE, ask, example, seen, sent_samples, tone


def test_a_recording_is_what_is_sent_and_the_microphone_is_released(visit, server):
    page = visit()
    page.locator("#record").click()
    seen(lambda: re.search(r"Stop · [1-9]", page.locator("#record").inner_text()))
    assert page.evaluate("microphones.map((track) => track.readyState)") == ["live"]
    page.locator("#record").click()
    page.locator("#clips").get_by_text("Recording 1").wait_for()
    assert page.evaluate("microphones.map((track) => track.readyState)") == ["ended"]
    ask(page)
    samples = sent_samples(server.bodies(CHAT)[0]["messages"][0]["content"][0])
    assert 1 <= len(samples) / RATE < 30
    assert np.abs(samples).max() > 0.01  # Chromium's fake microphone beeps
    page.locator("#record").click()
    seen(lambda: "Stop" in page.locator("#record").inner_text())
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide'))")
    assert page.evaluate("microphones[1].readyState") == "ended"


def test_a_microphone_that_cannot_be_had_is_said(visit):
    page = visit()
    refuse = (
        "() => {{ navigator.mediaDevices.getUserMedia = async () => "
        "{{ throw new DOMException('', {!r}) }} }}"
    )
    absent = "Object.defineProperty(navigator, 'mediaDevices', {{ value: undefined }})"
    for change, said in (
        (refuse.format("NotAllowedError"), "was not allowed to use the microphone"),
        (refuse.format("NotFoundError"), "No microphone was found"),
        (absent.format(), "needs https or localhost"),
    ):
        page.evaluate(change)
        page.locator("#record").click()
        page.locator("#alert").get_by_text(said).wait_for()
        assert page.locator("#record").inner_text() == "Record"


def test_files_are_taken_dropped_and_refused_by_name(visit, server):
    page = visit()
    stereo = {"name": "two.wav", "mimeType": "audio/wav"}
    stereo["buffer"] = tone(1.5, rate=44_100, channels=2)
    broken = {"name": "<b>bad</b>.mp3", "mimeType": "audio/mpeg", "buffer": b"no audio at all"}
    page.locator("#files").set_input_files([stereo, broken])
    page.locator("#alert").get_by_text("<b>bad</b>.mp3 is no audio").wait_for()
    page.evaluate(
        """(bytes) => {
          const given = new DataTransfer();
          given.items.add(new File([new Uint8Array(bytes)], "dropped.wav"));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer: given, cancelable: true }));
        }""",
        list(tone(0.5)),
    )
    page.locator("#clips").get_by_text("dropped.wav · 0.5 s").wait_for()
    page.locator("#all-clips").check()
    ask(page)
    parts = server.bodies(CHAT)[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["input_audio", "input_audio", "text"]
    first, second = (sent_samples(part) for part in parts[:2])
    assert len(first) == 1.5 * RATE and len(second) == 0.5 * RATE
    assert abs(np.abs(first[1000:-1000]).max() - 0.25) < 0.01  # the mean of both channels
    explain = page.get_by_role("button", name="What it listened to")
    assert explain.count() == 0  # which the server does for one clip
    page.get_by_role("button", name="Remove two.wav").click()
    assert page.locator("#clips li").all_inner_texts() == ["dropped.wav · 0.5 s\n×"]
    ask(page)
    assert explain.count() == 1


def test_waveform_spectrogram_and_cursor_show_the_clip(visit):
    page = visit()
    file = {"name": "tone.wav", "mimeType": "audio/wav", "buffer": tone(12, hertz=1000)}
    page.locator("#files").set_input_files(file)
    page.locator("#player").wait_for()
    drawn = page.evaluate(
        """() => {
          const canvas = document.getElementById("spectrogram");
          const { data } = canvas.getContext("2d")
            .getImageData(canvas.width / 2, 0, 1, canvas.height);
          const column = Array.from({ length: canvas.height }, (_, row) =>
            data[4 * row] + data[4 * row + 1] + data[4 * row + 2]);
          const shadow = document.querySelector("#wave > div").shadowRoot;
          return { column, size: [canvas.width, canvas.height],
            wave: shadow.querySelectorAll("canvas").length,
            styled: getComputedStyle(shadow.querySelector(".scroll")).overflowY };
        }"""
    )
    assert drawn["size"] == [1200, 80] and drawn["wave"] > 0 and drawn["styled"] == "hidden"
    # 1 kHz is 15 mel of Slaney's 45.2 up to 8 kHz: the loudest of 80 bands, from the top.
    loudest = int(np.argmax(drawn["column"]))
    assert abs((79 - loudest) - (15 / 45.245 * 81 - 1)) < 1.5
    stage = page.locator("#stage")
    stage.press("ArrowRight")
    stage.press("ArrowRight")
    assert float(stage.get_attribute("aria-valuenow")) == 1.0
    stage.press("End")
    assert stage.get_attribute("aria-valuetext") == "12.0 seconds"
    stage.press("ArrowLeft")
    assert float(stage.get_attribute("aria-valuenow")) == 11.5
    stage.press("Home")
    assert float(stage.get_attribute("aria-valuenow")) == 0
    stage.press(" ")
    seen(lambda: page.locator("#play").get_attribute("aria-label") == "Pause")
    stage.press(" ")
    seen(lambda: page.locator("#play").get_attribute("aria-label") == "Play")
    box = stage.bounding_box()
    stage.click(position={"x": box["width"] / 4, "y": box["height"] / 2})
    assert abs(float(stage.get_attribute("aria-valuenow")) - 3) < 0.05
    assert abs(float(page.evaluate("parseFloat(cursor.style.left)")) - 25) < 0.5


def test_what_lies_behind_the_window_is_marked(visit, server):
    page = visit()
    file = {"name": "long.wav", "mimeType": "audio/wav", "buffer": tone(12)}
    page.locator("#files").set_input_files(file)
    page.locator("#player").wait_for()
    assert not page.locator("#unheard").is_visible()
    server.told = {"seconds": 12.0, "seconds_dropped": 2.0}
    ask(page)
    picture, mark = (page.locator(name).bounding_box() for name in (".picture", "#unheard"))
    assert (mark["x"] - picture["x"]) / picture["width"] == pytest.approx(10 / 12, abs=0.01)
    assert "heard 10.0 of 12.0 s" in page.locator(".facts").inner_text()


def test_transcript_lines_seek_and_follow(visit, server):
    page = visit()
    example(page)
    segment = RECORDED["segments"][0]
    line = page.locator("#segments button").first
    assert segment["text"].strip() in line.inner_text()
    page.locator("#stage").press("End")
    assert line.get_attribute("aria-current") == "false"
    line.click()
    assert page.evaluate("audio.currentTime") == pytest.approx(segment["start"], abs=1e-3)
    assert line.get_attribute("aria-current") == "true"
    page.locator("#play").click()
    seen(lambda: page.evaluate("audio.currentTime") > segment["start"] + 0.2)
    assert page.locator("#play").get_attribute("aria-label") == "Pause"
    page.locator("#play").click()
