"""Questions on the page, in a headless Chromium, against recorded answers of a real model."""

import json
import math

import numpy as np
from browser import axe_source
from page_server import RECORDED
from page_steps import CHAT, JOINT, QUESTION, answers, ask, example, seen


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


def test_suggestions_are_asked_and_sampling_is_sent(visit, server):
    page = visit()
    example(page)
    question = "Can you identify the spoken text?"
    page.get_by_role("button", name=question).click()
    page.locator("summary").click()
    for name, value in (("temperature", "0.5"), ("longest", "7"), ("seed", "3")):
        page.locator(f"#{name}").fill(value)
    page.locator("#question").press("Enter")
    page.locator("#send").wait_for()
    (body,) = server.bodies(CHAT)
    assert body["messages"][0]["content"][1]["text"] == question
    assert (body["temperature"], body["max_completion_tokens"], body["seed"]) == (0.5, 7, 3)


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
    page.get_by_role("button", name="Again", exact=True).click()
    seen(lambda: "".join(answers(page)))
    page.locator("#open-history").click()
    page.keyboard.press("Escape")
    page.locator("#history").wait_for(state="hidden")
    assert page.locator("#stop").is_visible()
    page.keyboard.press("Escape")
    page.locator("#send").wait_for()
    assert "stopped" in page.locator(".facts").inner_text()
    server.gate.set()
    seen(lambda: server.left == 2)
    page.get_by_role("button", name="Again", exact=True).click()
    seen(lambda: answers(page) == [JOINT["text"]])
    first, *others = server.bodies(CHAT)
    assert len({body["seed"] for body in (first, *others)}) == 3
    for body in others:
        assert body["temperature"] >= 0.7 and body["messages"] == first["messages"]


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


def test_the_theme_can_be_chosen(visit):
    page = visit(color_scheme="dark")
    backgrounds = []
    for _ in range(4):
        backgrounds.append(
            page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        )
        page.locator("#theme").click()
    system, light, dark, again = backgrounds
    assert system == dark == again != light


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
