"""`python -m ltu_jax.serve` as a process, with a toy of real parts: answers are the library's."""

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

import ltu_jax
from benchmarks import serving_truths
from benchmarks.served_process import ServedProcess
from ltu_jax.generation.request import AnswerMode, drain
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.generation.transcription import OPENAI
from ltu_jax.preprocessing.audio import load_audio
from ltu_jax.serving.assembly import fingerprint_of
from ltu_jax.serving.page import FILES, HEADERS
from tests.preprocessing.making_audio import tone, wav
from tests.serving.page.browser import chromium
from tests.support import compilation, toy_server

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "serving.md").read_text()
KEY = "a key of the tests"


def clip(hertz: float, seconds: float) -> bytes:
    samples = tone(rate=16_000, seconds=seconds, hertz=hertz)[:, 0]
    return wav((samples * 2**15).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def weights(tmp_path_factory, golden, whisper_base_files) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    made = toy_server.save(
        folder, tokenizer=golden / "text_cases" / "spm320.model",
        whisper_tokenizer=whisper_base_files / "tokenizer.json",
    )  # fmt: skip
    (folder / "keys").write_text(KEY)
    return made


@pytest.fixture(scope="module")
def model(weights):
    return ltu_jax.load(weights["ltu-as"], whisper=weights["whisper"])


def begin(weights) -> tuple[subprocess.Popen, str]:
    """Start the server; return its process and, when it is ready, its address."""
    folder = weights["ltu-as"].parent
    begun = subprocess.Popen(
        [sys.executable, "-m", "ltu_jax.serve", "--checkpoint", weights["ltu-as"],
         "--whisper", weights["whisper"], "--port", "0", "--model-name", "stage3",
         "--api-key-file", folder / "keys", "--max-batch", "4", "--slot-tokens", "512"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=(folder / "log").open("w"), text=True,
        env=os.environ | {"XLA_FLAGS": compilation.XLA_FLAGS,
                          "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
                          "XDG_CACHE_HOME": str(folder / "cache")},
    )  # fmt: skip
    found = None
    while found is None:
        line = begun.stdout.readline()
        assert line, (folder / "log").read_text()
        found = re.match(r"ready: (\S+)/v1 \(model stage3\)", line)
    return begun, found[1]


@pytest.fixture(scope="module")
def process(weights):
    """The server's process and its address."""
    begun, address = begin(weights)
    yield begun, address
    begun.kill()
    begun.wait()


@pytest.fixture(scope="module")
def client(process):
    with openai.OpenAI(
        base_url=f"{process[1]}/v1", api_key=KEY, max_retries=0, timeout=300,
        _strict_response_validation=True,
    ) as made:  # fmt: skip
        yield made


def messages(content: bytes | None, question: str) -> list[dict]:
    parts = [{"type": "text", "text": question}]
    if content is not None:
        data = base64.b64encode(content).decode()
        parts.insert(0, {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
    return [{"role": "user", "content": parts}]


CASES = [
    (clip(300, 0.7), "What?", "joint", {}),
    (clip(300, 0.7), "Why?", "joint", {"temperature": 1.0, "seed": 5, "top_p": 0.9}),
    (clip(500, 11), "What?", "audio", {"temperature": 0.8, "seed": 6}),
    (clip(500, 11), "Who?", "text", {}),
    (clip(700, 3), "Where is it?", "audio", {}),
    (clip(900, 1), "What?", "joint", {"temperature": 1.2, "seed": 7}),
    (clip(350, 16), "What?", "joint", {}),
]


def test_answers_are_those_of_the_library_whoever_else_asks(model, client):
    def ask(case):
        content, question, mode, drawing = case
        return client.chat.completions.create(
            model="stage3", messages=messages(content, question), max_completion_tokens=12,
            extra_body={"ltu": {"mode": mode}}, **drawing,
        )  # fmt: skip

    with ThreadPoolExecutor(6) as at_once:
        answers = list(at_once.map(ask, CASES))
    for (content, question, mode, drawing), answer in zip(CASES, answers, strict=True):
        known = model.answer(
            content, question, mode=mode, max_new_tokens=12,
            sampling=SamplingConfig(**drawing) if drawing else None,
        )  # fmt: skip
        assert tuple(answer.ltu["tokens"]) == known.tokens, (question, mode)
        assert answer.choices[0].message.content == known.text
        assert answer.ltu["spoken_text"] == known.spoken_text
        assert answer.ltu["seconds_dropped"] == pytest.approx(known.seconds_dropped)
        ended = {"eos": "stop", "length": "length"}[known.finish_reason]
        assert answer.choices[0].finish_reason == ended


def test_clips_are_heard_together_as_alone(model):
    clips = [load_audio(one[0]) for one in CASES]
    modes = [AnswerMode(one[2]) for one in CASES]
    together = dict(model.whispers.listen_each(clips, modes=modes))
    for number, (audio, mode) in enumerate(zip(clips, modes, strict=True)):
        alone, one = model.listen(audio, mode=mode), together[number]
        assert replace(one, features=None) == replace(alone, features=None)
        assert (one.features is None) == (alone.features is None)
        if one.features is not None:
            np.testing.assert_allclose(one.features, alone.features, rtol=1e-5, atol=1e-5)
            asked = {"question": "What?", "max_new_tokens": 12}
            assert drain(model.stream(one, **asked)) == drain(model.stream(alone, **asked))


def test_those_that_wait_for_a_long_clip_are_answered_as_alone(model, client):
    """Seven at once behind one of several windows: heard in batches of whatever size comes."""

    def ask(seconds):
        content = clip(250 + 40 * seconds, seconds)
        return client.chat.completions.create(
            model="stage3", messages=messages(content, "What?"), max_completion_tokens=6
        )

    lengths = (65, 0.6, 0.8, 1.2, 2, 4, 8, 12)
    with ThreadPoolExecutor(len(lengths)) as at_once:
        answers = list(at_once.map(ask, lengths))
    for seconds, answer in zip(lengths, answers, strict=True):
        known = model.answer(clip(250 + 40 * seconds, seconds), "What?", max_new_tokens=6)
        assert tuple(answer.ltu["tokens"]) == known.tokens
        assert answer.ltu["spoken_text"] == known.spoken_text


def test_the_fingerprint_is_of_the_weights_wherever_they_lie(weights, model, client, tmp_path):
    told = client.chat.completions.create(
        model="stage3", messages=messages(None, "What?"), max_tokens=1
    ).system_fingerprint
    copies = {name: shutil.copytree(weights[name], tmp_path / name) for name in weights}
    elsewhere = ltu_jax.load(copies["ltu-as"], whisper=copies["whisper"])
    assert told == f"ltu_{fingerprint_of(elsewhere, dtype='float32')[:16]}"
    others = {
        fingerprint_of(elsewhere, dtype="int8"),
        fingerprint_of(replace(elsewhere, rule=OPENAI), dtype="float32"),
        fingerprint_of(ltu_jax.load(copies["ltu-as"]), dtype="float32"),  # without a Whisper
    }
    assert len(others | {fingerprint_of(model, dtype="float32")}) == 4


def test_a_conversation_and_a_stream(process, client):
    turns = messages(clip(300, 0.7), "What?")
    turns += [{"role": "assistant", "content": "A tone."}, *messages(clip(700, 1), "And?")]
    asked = {"model": "stage3", "messages": turns, "max_tokens": 8, "logprobs": True}
    whole = client.chat.completions.create(**asked)
    found = counted(process[1], FOUND)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert counted(process[1], FOUND) - found == whole.usage.prompt_tokens - 1
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content and len(whole.ltu["clips"]) == 2
    assert chunks[-1].ltu["tokens"] == whole.ltu["tokens"]


def test_an_answer_that_does_not_fit_is_refused_by_the_name_of_the_field(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="stage3", messages=messages(None, "What?"), max_completion_tokens=10_000
        )
    error = refused.value
    assert (error.param, error.code) == ("max_completion_tokens", "context_length_exceeded")
    assert "--" not in error.message


def test_transcripts_have_the_times_of_the_library(model, client):
    content = clip(440, 33)
    known = model.transcribe([content], options=OPENAI)[0]
    told = client.audio.transcriptions.create(
        model="stage3", file=("x", content), response_format="verbose_json"
    )
    assert told.text == known.text and told.language == known.language
    assert [(one.start, one.end, one.text) for one in told.segments] == [
        (one.start, one.end, one.text) for one in known.segments
    ]

    heated = client.audio.transcriptions.create(
        model="stage3", file=("x", clip(350, 16)), temperature=0.4
    )
    options = replace(OPENAI, temperatures=(0.4,))
    assert heated.text == model.transcribe([clip(350, 16)], options=options)[0].text

    english = client.audio.translations.create(
        model="stage3", file=("x", content), extra_body={"response_format": "verbose_json"}
    )
    assert (
        english.text
        == model.transcribe([content], options=replace(OPENAI, task="translate"))[0].text
    )
    stream = client.audio.transcriptions.create(model="stage3", file=("x", content), stream=True)
    *deltas, done = stream
    assert "".join(one.delta for one in deltas) == done.text == known.text and len(deltas) > 1


def test_the_page_needs_no_key(process):
    for path, file in FILES.items():
        got = httpx.get(process[1] + path)
        assert got.status_code == 200 and got.content == file.body, path
        assert got.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        known = {"if-none-match": got.headers["etag"]}
        assert httpx.get(process[1] + path, headers=known).status_code == 304
    assert httpx.get(f"{process[1]}/page/%2e%2e/%2e%2e/serve.py").status_code == 401


def test_an_explanation_is_the_library_s(model, client):
    content = clip(300, 0.7)
    answer = client.chat.completions.create(
        model="stage3", messages=messages(content, "What?"), max_tokens=4
    )
    body = {"model": "stage3", "messages": messages(content, "What?"),
            "answer_tokens": answer.ltu["tokens"]}  # fmt: skip
    told = client.post("/ltu/explain", body=body, cast_to=object)
    known = model.explain(model.listen(content), "What?", tokens=answer.ltu["tokens"])
    np.testing.assert_allclose(told["layers"], known.layers, atol=1e-5)
    np.testing.assert_allclose(told["tokens"], known.tokens, atol=1e-5)
    assert tuple(told["pieces"]) == known.pieces and told["seconds_per_token"] == 0.4


def counted(address: str, name: str) -> float:
    text = httpx.get(f"{address}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


FOUND = 'vllm:prefix_cache_hits_total{model_name="stage3"}'
COMPILED = 'ltu:compiled_programs{model_name="stage3"}'
OF_START = 'ltu:start_programs{{model_name="stage3",source="{}"}}'


def test_nothing_was_compiled_and_nothing_was_said(process, weights):
    assert counted(process[1], COMPILED) == 0
    assert counted(process[1], OF_START.format("kept")) == 0
    log = (weights["ltu-as"].parent / "log").read_text()
    assert "/v1/chat/completions 200" in log and KEY not in log and "What" not in log


def test_the_page_asks_this_server(process):
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(process[1])
        page.locator("#key-value").fill(KEY)
        page.locator("#key-value").press("Enter")
        page.get_by_text("stage3").wait_for()
        page.get_by_role("button", name="a dog").click()
        page.locator("#transcript-state").get_by_text("Listening").wait_for(state="hidden")
        page.locator("summary").click()
        page.locator("#longest").fill("8")
        page.locator("#question").fill("What is it?")
        page.locator("#question").press("Enter")
        page.locator("#send").wait_for()
        page.get_by_role("button", name="What it listened to").click()
        page.locator("#explanation").wait_for()
        weights = page.locator("#attention i").evaluate_all(
            "(columns) => columns.map((column) => Number(column.dataset.weight))"
        )
        assert len(weights) == 11 and 0 < sum(weights) <= 1 + 1e-5  # 4.3 s of 10
        assert page.locator(".error").count() == 0


def test_the_examples_of_the_page_run(process, tmp_path, monkeypatch, capsys):
    (tmp_path / "clip.wav").write_bytes(clip(440, 1))
    monkeypatch.chdir(tmp_path)
    here = PAGE.replace("http://127.0.0.1:8000", process[1]).replace(
        'api_key="none"', f"api_key={KEY!r}"
    )
    here = here.replace("curl -sS", f"curl -sS -H 'authorization: Bearer {KEY}'")
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", here, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/serving.md", "exec"), names)
    assert names["answer"].choices[0].message.content is not None
    for block in re.findall(r"^```bash\n(.*?)^```", here, re.MULTILINE | re.DOTALL):
        got = subprocess.run(["bash", "-c", block], capture_output=True, text=True, check=True)
        assert '"chat.completion"' in got.stdout or got.stdout.startswith("WEBVTT")


def quiet(line):
    del line


def test_answers_are_equal_and_slots_free_under_load(process, model):
    """The short form of `benchmarks.serving`: equality, disconnects, soak."""
    server = ServedProcess(pid=process[0].pid, url=process[1], model="stage3", key=KEY)
    clips = serving_truths.noises(10)
    cases = serving_truths.make_cases(clips=6, count=18, limit=8)
    known = serving_truths.KnownAnswers(model, clips, file=None)
    found = serving_truths.equality(
        server, clips, [known.of(case) for case in cases], cases, requests=40, clients=8,
        show=quiet,
    )  # fmt: skip
    free = {"slots": 0, "queue": 0}
    assert found["failed"] == {} and found["first_differences"] == []
    assert found["occupied_after"] == free and 0 < found["cancelled"] < 20
    assert found["tokens_compared"] > 100 and found["different_answers"] > 12

    found = serving_truths.disconnects(server, clips, count=24, clients=8)
    assert found["occupied_after"] == free and found["answers_after"]

    found = serving_truths.soak(server, clips, requests=160, clients=8, settled=80, show=quiet)
    assert found["unexpected"] == {} and found["unequal_answers"] == 0
    assert found["about_cached_clips"] > 50 and found["occupied_after"] == free
    assert found["descriptors"][1] <= found["descriptors"][0]
    assert found["memory_growth_percent"] < 10


def test_sigterm_lets_a_stream_end_and_leaves_status_0(process, client):
    begun, _ = process
    stream = client.chat.completions.create(
        model="stage3", messages=messages(None, "Tell."), stream=True, max_tokens=150,
        temperature=1, seed=1,
    )  # fmt: skip
    first = next(stream)
    begun.send_signal(signal.SIGTERM)
    *_, last = stream
    assert first.id == last.id and last.choices[0].finish_reason in ("stop", "length")
    assert begun.wait(60) == 0


def test_a_second_start_compiles_nothing_and_answers_the_same(process, model, weights):
    kinds = list((weights["ltu-as"].parent / "cache" / "ltu_jax" / "programs").iterdir())
    compiled = sum(len(list(kind.iterdir())) for kind in kinds)
    begun, address = begin(weights)
    try:
        assert counted(address, OF_START.format("compiled")) == 0
        assert counted(address, OF_START.format("kept")) == compiled > 0
        with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:
            test_answers_are_those_of_the_library_whoever_else_asks(model, client)
        assert counted(address, COMPILED) == 0
    finally:
        begun.kill()
        begun.wait()
