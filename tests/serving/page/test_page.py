"""Every function of the page in a headless Chromium, against recorded answers of a real model."""

import io
import json
import math
import re
import time
import wave

import numpy as np
import pytest
import soundfile
from browser import WATCH, axe_source, chromium
from page_server import RECORDED, PageServer

RATE = 16_000
CHAT = "/v1/chat/completions"
QUESTION = "What can be inferred from the audio?"
JOINT = RECORDED["answers"]["joint"]


@pytest.fixture(scope="module")
def server():
    served = PageServer()
    yield served
    served.shutdown()


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser, server):
    """Open the page as a new visitor; nothing it does may go elsewhere or break its policy."""
    server.reset()
    visitors, asked, errors = [], [], []

    def open_page(**options):
        context = browser.new_context(base_url=server.url, **options)
        context.set_default_timeout(20_000)
        context.grant_permissions(["microphone", "clipboard-read", "clipboard-write"])
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto("/")
        visitors.append(page)
        seen(lambda: page.locator("#model").inner_text() != "Looking for the model…")
        return page

    yield open_page
    assert all(url.startswith((server.url, "blob:", "data:")) for url in asked)
    assert not errors
    for page in visitors:
        assert page.evaluate("window.violations") == []
        page.context.close()


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
    import base64

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
    box = stage.bounding_box()
    stage.click(position={"x": box["width"] / 4, "y": box["height"] / 2})
    assert abs(float(stage.get_attribute("aria-valuenow")) - 3) < 0.05
    assert abs(float(page.evaluate("parseFloat(cursor.style.left)")) - 25) < 0.5


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


def test_an_answer_streams_and_says_what_was_heard(visit, server):
    page = visit()
    example(page)
    server.gate.clear()
    ask(page, wait=False)
    seen(lambda: "".join(answers(page)))
    assert JOINT["text"].startswith(answers(page)[0]) and answers(page)[0] != JOINT["text"]
    assert page.locator("#stop").is_visible() and not page.locator("#send").is_visible()
    server.gate.set()
    page.locator("#send").wait_for()
    assert answers(page) == [JOINT["text"]]
    assert JOINT["spoken_text"].strip() in page.locator(".facts").inner_text()
    assert page.locator("#said").inner_text() == f"Answer: {JOINT['text']}"
    (body,) = server.bodies(CHAT)
    content = body["messages"][0]["content"]
    assert body["ltu"] == {"mode": "joint"} and body["stream"] and body["temperature"] == 0
    assert content[1] == {"type": "text", "text": QUESTION}
    page.get_by_role("button", name="Copy", exact=True).click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == JOINT["text"]


def test_stop_ends_the_request_and_the_page_goes_on(visit, server):
    page = visit()
    example(page)
    server.pace = 0.02
    server.gate.clear()
    ask(page, wait=False)
    seen(lambda: "".join(answers(page)))
    page.locator("#stop").click()
    page.locator("#send").wait_for()
    assert "stopped" in page.locator(".facts").inner_text()
    server.gate.set()
    seen(lambda: server.left == 1)
    page.get_by_role("button", name="Again", exact=True).click()
    seen(lambda: answers(page) == [JOINT["text"]])
    first, second = server.bodies(CHAT)
    assert second["temperature"] >= 0.7 and second["seed"] != first["seed"]
    assert second["messages"] == first["messages"]


def test_another_answer_waits_for_the_one_that_is_being_made(visit, server):
    page = visit()
    example(page)
    ask(page, "first?")
    server.gate.clear()
    ask(page, "second?", wait=False)
    seen(lambda: answers(page)[1:] and answers(page)[1])
    page.get_by_role("button", name="Again", exact=True).click()
    page.locator("#alert").get_by_text("Another answer is being made").wait_for()
    server.gate.set()
    page.locator("#send").wait_for()
    assert answers(page) == [JOINT["text"]] * 2
    assert len(server.bodies(CHAT)) == 2


def test_a_follow_up_sends_the_turns_before_it_and_its_sound_once(visit, server):
    page = visit()
    example(page)
    ask(page, "first?")
    ask(page, "second?")
    page.locator("#remember").check()
    ask(page, "third?")
    _, alone, third = server.bodies(CHAT)
    assert [message["role"] for message in alone["messages"]] == ["user"]
    roles = [message["role"] for message in third["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert third["messages"][1]["content"] == JOINT["text"]
    kinds = [[part["type"] for part in third["messages"][i]["content"]] for i in (0, 2, 4)]
    assert kinds == [["input_audio", "text"], ["text"], ["text"]]


def test_three_modes_side_by_side(visit, server):
    page = visit()
    example(page)
    page.locator(".modes label").nth(3).click()
    ask(page)
    assert {body["ltu"]["mode"] for body in server.bodies(CHAT)} == {"joint", "audio", "text"}
    want = [RECORDED["answers"][mode]["text"] for mode in ("joint", "audio", "text")]
    assert answers(page) == want
    boxes = [one.bounding_box() for one in page.locator(".answer").all()]
    assert len({round(box["y"]) for box in boxes}) == 1


def test_moments_in_an_answer_are_links_and_markup_is_text(visit, server):
    page = visit()
    example(page)
    said = (
        "<img src=x onerror=\"document.title='gone'\"><b>A dog</b> barks at 1.5 s, then "
        "from 0:02.5 to 3 seconds, for 2 seconds; at 99 s it ends."
    )
    server.answers["joint"] = said
    ask(page, "<i>What</i> is it?")
    assert answers(page) == [said]
    assert page.locator(".turn :is(img, b, i)").count() == 0
    links = page.locator(".moment")
    assert links.all_inner_texts() == ["1.5 s", "0:02.5", "3 seconds"]
    links.nth(1).click()
    assert float(page.locator("#stage").get_attribute("aria-valuenow")) == 2.5
    assert "<i>What</i>" in page.locator(".question").inner_text()


def test_history_is_kept_in_the_page_alone(visit, server):
    page, other = visit(), visit()
    example(page)
    ask(page, "one?")
    page.locator("#new").click()
    assert answers(page) == []
    ask(page, "two?")
    page.locator("#open-history").click()
    page.locator("#conversations").get_by_role("button", name="one?").click()
    assert page.locator(".question").all_inner_texts() == ["one?"]
    assert other.locator(".turn").count() == 0 and other.locator("#clips li").count() == 0
    page.reload()
    page.locator("#open-history").click()
    (left,) = page.locator("#conversations li").all_inner_texts()
    assert left.split("\n")[0] == "Nothing asked yet" and "no sound · 0 asked" in left
    stored = "[localStorage.length, sessionStorage.length, document.cookie]"
    assert page.evaluate(stored) == [0, 0, ""]


def test_a_conversation_is_saved_as_a_page_and_opened_from_json(visit, browser, server, tmp_path):
    page = visit()
    example(page)
    server.answers["joint"] = "</script><script>document.title='gone'</script> & so on"
    ask(page)
    for kind in ("html", "json"):
        with page.expect_download() as download:
            page.locator(f"#share-{kind}").click()
        download.value.save_as(tmp_path / f"saved.{kind}")
    with browser.new_context(offline=True) as context:
        saved = context.new_page()
        saved.goto((tmp_path / "saved.html").as_uri())
        assert saved.title() == "A conversation about a sound"
        assert server.answers["joint"] in saved.inner_text("body")
        assert saved.locator("script").count() == 0
        seen(lambda: saved.evaluate("document.querySelector('audio').duration") > 3)
        assert saved.evaluate("document.querySelector('img').naturalWidth") > 100
    other = visit()
    other.locator("#files").set_input_files(tmp_path / "saved.json")
    other.locator(".answer").wait_for()
    assert answers(other) == [server.answers["joint"]]
    assert other.locator("#segments li").count() == len(RECORDED["segments"])
    foreign = {"name": "x.json", "mimeType": "application/json", "buffer": b'{"format": 1}'}
    other.locator("#files").set_input_files(foreign)
    other.locator("#alert").get_by_text("x.json is no conversation").wait_for()
    assert json.loads((tmp_path / "saved.json").read_text())["turns"][0]["question"] == QUESTION


def test_what_it_listened_to_is_the_librarys_array(visit, server):
    page = visit()
    example(page)
    ask(page)
    page.get_by_role("button", name="What it listened to").click()
    page.locator("#explanation").wait_for()

    def columns():
        return page.evaluate(
            """[...document.querySelectorAll("#attention i")].map((one) => ({
              weight: Number(one.dataset.weight), left: parseFloat(one.style.left),
              shade: Number(getComputedStyle(one).opacity) }))"""
        )

    clip = page.evaluate("audio.duration")
    shown = min(25, math.ceil(clip / 0.4))  # behind them is silence
    heard = np.asarray(JOINT["heard"])
    want = heard.mean(0)[:shown]
    np.testing.assert_allclose([one["weight"] for one in columns()], want, atol=1e-9)
    np.testing.assert_allclose(
        [one["left"] for one in columns()], 100 * 0.4 * np.arange(shown) / clip, rtol=1e-3
    )
    words = page.get_by_role("listbox")
    words.focus()
    words.press("ArrowRight")
    words.press("ArrowRight")
    chosen = [i for i, piece in enumerate(JOINT["pieces"]) if piece][1]
    row = heard[chosen, :shown]
    np.testing.assert_allclose([one["weight"] for one in columns()], row, atol=1e-9)
    most = row[1:].max()  # the first token is where attention rests
    shades = 0.85 * np.maximum(0, 1 - row / most)
    seen(lambda: np.allclose([one["shade"] for one in columns()], shades, atol=0.01))
    said = page.locator("#explained").inner_text()
    assert JOINT["pieces"][chosen].strip() in said
    assert f"{round(100 * most)} %" in said and f"{round(100 * row[0])} % rests" in said
    assert words.inner_text().strip() == JOINT["text"]
    size = page.evaluate("[layers.width, layers.height]")
    assert size == [shown, len(JOINT["layers"][0])]
    page.locator("#hide-explanation").click()
    assert not page.locator("#attention").is_visible()


def test_an_explanation_stays_in_its_conversation(visit, server):
    page = visit()
    example(page)
    ask(page)
    server.gate.clear()
    page.get_by_role("button", name="What it listened to").click()
    page.locator("#new").click()
    with page.expect_response("**/v1/ltu/explain"):
        server.gate.set()
    page.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert not page.locator("#explanation").is_visible()
    page.locator("#open-history").click()
    page.locator("#conversations").get_by_role("button", name=QUESTION).click()
    page.get_by_role("listbox").press("ArrowRight")
    assert page.locator("#explanation").is_visible()
    page.locator("#new").click()
    assert not page.locator("#explanation").is_visible()


def test_axe_finds_nothing_in_light_and_dark(visit, server):
    axe = axe_source()
    page = visit()
    example(page)
    page.locator(".modes label").nth(3).click()
    server.answers["text"] = "It rings at 1.5 s."
    ask(page)
    page.get_by_role("button", name="What it listened to").first.click()
    page.get_by_role("listbox").press("ArrowRight")
    page.evaluate(axe)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert page.evaluate("getComputedStyle(document.body).animationName") == "none"
        for dialog in (None, "open-history"):
            if dialog:
                page.locator(f"#{dialog}").click()
            found = page.evaluate("axe.run().then(({ violations }) => violations)")
            assert [(one["id"], [n["html"] for n in one["nodes"]]) for one in found] == []
        page.get_by_role("button", name="Close").click()


def test_the_whole_way_by_keyboard(visit, server):
    page = visit()

    def tab_to(wanted):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement?.matches({wanted!r})"):
                return
        raise AssertionError(f"Tab never comes to {wanted}")

    page.locator(".example").first.wait_for()
    tab_to(".example")
    page.keyboard.press("Enter")
    page.locator("#segments li").first.wait_for()
    tab_to("#stage")
    page.keyboard.press("ArrowRight")
    assert page.locator("#stage").get_attribute("aria-valuenow") == "0.50"
    tab_to("#question")
    page.keyboard.type("what?")
    page.keyboard.press("Enter")
    seen(lambda: answers(page) == [JOINT["text"]])
    page.evaluate("document.activeElement.blur()")
    tab_to(".answer .row button:last-child")
    page.keyboard.press("Enter")
    page.locator("#explanation").wait_for()


def test_it_fits_a_narrow_screen(visit, server):
    page = visit(viewport={"width": 360, "height": 740})
    example(page)
    page.locator(".modes label").nth(3).click()
    server.answers["joint"] = "unbreakable" * 20
    ask(page, "why" * 60)
    page.get_by_role("button", name="What it listened to").first.click()
    page.locator("#explanation").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_key_is_asked_for_and_sent(visit, server):
    page = visit()
    server.key = "secret"
    page.reload()
    for given in ("mistyped", "secret"):
        page.locator("#key-value").fill(given)
        page.locator("#key-value").press("Enter")
    seen(lambda: page.locator("#model").inner_text() == "recorded")
    example(page)
    ask(page)
    assert answers(page) == [JOINT["text"]]


def test_a_language_model_alone_is_asked_without_sound(visit, server):
    page = visit()
    server.modes = ["text"]
    page.reload()
    page.locator("#listen").wait_for(state="hidden")
    ask(page, "Who are you?")
    (body,) = server.bodies(CHAT)
    assert "ltu" not in body
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}
    ]
