"""The official client, unmodified and strict, and everything that it may ask of a chat."""

import asyncio
import base64
import json
import threading
import time

import httpx
import numpy as np
import openai
import pytest

from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.preprocessing.text import prompt_ids
from ltu_jax.serving.answer_stream import AnswerStream, StreamRegistry
from ltu_jax.serving.api_error import ApiError
from ltu_jax.serving.engine_types import JsonGrammar
from tests.preprocessing.making_audio import wav
from tests.serving.scripted import AUDIO_TOKENS, words_of

MODEL = "scripted"
ASK = [{"role": "user", "content": "What is it?"}]


def clip(level: int, *, seconds: float = 1.0) -> bytes:
    """A WAV that only its loudness tells from others."""
    return wav(np.full(int(16_000 * seconds), level, "<i2").tobytes())


def part(content: bytes, form: str = "wav") -> dict:
    data = base64.b64encode(content).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": form}}


def said(content, text: str = "What is it?") -> list[dict]:
    return [{"role": "user", "content": [content, {"type": "text", "text": text}]}]


def expected(server) -> str:
    """What the script answers to the newest request."""
    return "".join(words_of(server.engine.requests[-1]))


# --- whole answers --------------------------------------------------------------------------------


def test_text(server, client):
    answer = client.chat.completions.create(model=MODEL, messages=ASK)
    request = server.engine.requests[-1]
    ids = prompt_ids(server.tokenizer, instruction="What is it?", spoken_text=None)
    assert request.prompt == tuple(ids) and request.clips == () and request.sampling is None
    assert answer.choices[0].message.content == expected(server)
    assert answer.choices[0].finish_reason == "stop" and answer.model == MODEL
    assert answer.usage.prompt_tokens == len(ids) and answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == len(ids) + 12
    assert answer._request_id.startswith("req_") and answer.id.startswith("chatcmpl-")


@pytest.mark.parametrize("way", ["input_audio", "audio_url"])
def test_audio(server, client, way):
    content = clip(1_000, seconds=11)
    sent = part(content)
    if way == "audio_url":
        data = sent["input_audio"]["data"]
        sent = {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{data}"}}
    answer = client.chat.completions.create(model=MODEL, messages=said(sent))
    request = server.engine.requests[-1]
    known = prompt_ids(server.tokenizer, instruction="What is it?", spoken_text="about 11.0 s")
    assert request.prompt == tuple(known)  # one turn, one clip: the paper's prompt
    (heard,) = request.clips
    np.testing.assert_allclose(heard.features, 1_000 / 2**15)
    assert answer.usage.prompt_tokens_details.audio_tokens == AUDIO_TOKENS
    told = answer.ltu
    assert (told["spoken_text"], told["seconds"], told["seconds_dropped"]) == (
        "about 11.0 s", 11.0, 1.0,
    )  # fmt: skip
    assert told["mode"] == "joint" and told["tokens"] == list(range(5, 17))
    assert set(told["timings"]) >= {"decode_audio", "listen", "queued", "first_token", "total"}


def test_a_clip_is_heard_once_and_never_taken_for_another(server, client):
    def ask(content, **ltu):
        answer = client.chat.completions.create(
            model=MODEL, messages=said(part(content)), extra_body={"ltu": ltu}
        )
        return answer, server.engine.requests[-1].clips[0]

    before = server.model.heard
    first, heard = ask(clip(301))
    again, same = ask(clip(301))
    other, different = ask(clip(302))  # as long, and another
    assert server.model.heard == before + 2
    assert [one.ltu["cached"] for one in (first, again, other)] == [False, True, False]
    assert again.usage.prompt_tokens_details.cached_tokens == AUDIO_TOKENS
    assert first.choices == again.choices != other.choices
    assert same is heard and different.features.flat[0] != heard.features.flat[0]
    audio, in_audio_mode = ask(clip(301), mode="audio")
    assert in_audio_mode.spoken_text == "" and not audio.ltu["cached"]
    text, in_text_mode = ask(clip(301), mode="text")
    assert in_text_mode.features is None and text.ltu["spoken_text"] == "about 1.0 s"


def test_several_turns_and_clips(server, client):
    messages = [
        {"role": "system", "content": "Be short."},
        *said(part(clip(10)), "One?"),
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [part(clip(20)), part(clip(30, seconds=2))]},
        {"role": "user", "content": "Two and three?"},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    request = server.engine.requests[-1]
    levels = [round(one.features.flat[0] * 2**15) for one in request.clips]
    assert levels == [10, 20, 30] and len(answer.ltu["clips"]) == 3
    text = (
        "### Instruction:\nBe short.\n\nOne?\n\n### Input:\nAudio 1: about 1.0 s\n\n### Response:\n"
        "Yes.\n\n### Instruction:\nTwo and three?\n\n### Input:\nAudio 2: about 1.0 s\n"
        "Audio 3: about 2.0 s\n\n### Response:\n"
    )
    assert request.prompt == (server.tokenizer.bos_id, *server.tokenizer.encode(text))


def test_what_an_answer_of_the_client_holds_may_come_back(server, client):
    first = client.chat.completions.create(model=MODEL, messages=ASK)
    turns = [*ASK, first.choices[0].message.model_dump(), *ASK]
    client.chat.completions.create(model=MODEL, messages=turns)
    sent = server.engine.requests[-1].prompt
    assert len(sent) > len(server.engine.requests[-2].prompt) * 2


def test_settings_reach_the_engine(server, client):
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK, temperature=0.7, top_p=0.9, seed=2**32 - 1, n=2,
        max_completion_tokens=3, logprobs=True, top_logprobs=2, user="u", metadata={"a": "b"},
        extra_body={"top_k": 5, "repetition_penalty": 1.1, "ltu": {"prompt_lookup": True}},
    )  # fmt: skip
    one, two = server.engine.requests[-2:]
    drawn = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "repetition_penalty": 1.1}
    assert one.sampling == SamplingConfig(**drawn, seed=2**32 - 1)
    assert two.sampling == SamplingConfig(**drawn, seed=0)
    assert one.max_new_tokens == 3 and one.prompt_lookup and one.top_logprobs == 2
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.content != answer.choices[1].message.content
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 6
    told = answer.choices[0].logprobs.content
    assert "".join(token.token for token in told) == "".join(words_of(one))
    assert [len(token.top_logprobs) for token in told] == [2, 2, 2]
    assert answer.ltu["seed"] == 2**32 - 1


def test_without_a_seed_the_drawn_one_is_told_and_gives_the_same(server, client):
    first = client.chat.completions.create(model=MODEL, messages=ASK, temperature=1)
    again = client.chat.completions.create(
        model=MODEL, messages=ASK, temperature=1, seed=first.ltu["seed"]
    )
    assert first.choices[0].message == again.choices[0].message


@pytest.mark.parametrize("stop", ["three", ["three", "four"]])
def test_stop(server, client, stop):
    answer = client.chat.completions.create(model=MODEL, messages=ASK, stop=stop)
    asked = server.engine.requests[-1].stop
    assert asked == ((stop,) if isinstance(stop, str) else tuple(stop))
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("asked", "grammar"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonGrammar(schema=None)),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
            JsonGrammar(schema={"type": "object"}),
        ),
    ],
)
def test_response_format(server, client, asked, grammar):
    client.chat.completions.create(model=MODEL, messages=ASK, response_format=asked)
    assert server.engine.requests[-1].grammar == grammar


# --- streams --------------------------------------------------------------------------------------


def test_a_stream_is_the_whole_answer_in_pieces(server, client):
    asked = {"model": MODEL, "messages": said(part(clip(77))), "logprobs": True}
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert len({(chunk.id, chunk.created, chunk.object) for chunk in chunks}) == 1
    *told, last = chunks
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in told)
    assert told[0].choices[0].delta.role == "assistant"
    assert told[0].ltu["spoken_text"] == whole.ltu["spoken_text"] == "about 1.0 s"
    assert told[-1].ltu["tokens"] == whole.ltu["tokens"]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in told)
    assert text == whole.choices[0].message.content
    tokens = [one for chunk in told if (it := chunk.choices[0].logprobs) for one in it.content]
    assert tokens == whole.choices[0].logprobs.content
    assert [chunk.choices[0].finish_reason for chunk in told] == [None] * 13 + ["stop"]
    assert last.choices == [] and last.usage == whole.usage.model_copy(
        update={"prompt_tokens_details": last.usage.prompt_tokens_details}
    )


def test_several_choices_stream_side_by_side(server, client):
    stream = client.chat.completions.create(
        model=MODEL, messages=ASK, n=3, temperature=1, seed=4, stream=True
    )
    texts = {0: "", 1: "", 2: ""}
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    known = ["".join(words_of(request)) for request in server.engine.requests[-3:]]
    assert list(texts.values()) == known and len(set(known)) == 3


def test_the_asynchronous_client(server):
    async def ask():
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", _strict_response_validation=True
        ) as client:
            whole = await client.chat.completions.create(model=MODEL, messages=ASK)
            stream = await client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return whole.choices[0].message.content, "".join(parts)

    whole, streamed = asyncio.run(ask())
    assert whole == streamed


def test_the_accumulating_and_parsing_helpers(client):
    with client.chat.completions.stream(model=MODEL, messages=ASK) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=MODEL, messages=ASK, max_tokens=2)


# --- leaving, stopping, coming back ---------------------------------------------------------------


def events(body: bytes) -> list[bytes]:
    return [one + b"\n\n" for one in body.split(b"\n\n") if one and not one.startswith(b":")]


@pytest.fixture
def slowly(server):
    """Let the script take its time."""
    server.engine.pace = 0.05
    yield
    server.engine.pace = 0.0


def idle(server, *, within: float = 20) -> bool:
    """Wait until nothing is answered any more."""
    end = time.monotonic() + within
    while (server.engine.alive or server.app.active) and time.monotonic() < end:
        time.sleep(0.01)
    return not server.engine.alive and not server.app.active


def test_who_leaves_a_stream_frees_the_slot(server, slowly):
    server.engine.pace = 30.0
    body = {"model": MODEL, "messages": ASK, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body) as got:
        pieces = got.iter_bytes()  # which closes the connection when nobody holds it
        assert next(pieces) and server.engine.alive
    assert idle(server)


def test_who_leaves_while_waiting_frees_the_slot(server, slowly):
    server.engine.pace = 30.0
    body = {"model": MODEL, "messages": ASK}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=0.5)
    assert idle(server)


def test_a_resumable_stream_goes_on_and_is_replayed_byte_for_byte(server, slowly):
    body = {"model": MODEL, "messages": ASK, "stream": True, "ltu": {"resumable": True}}
    with httpx.Client(base_url=server.url, timeout=30) as http:
        seen = b""
        with http.stream("POST", "/v1/chat/completions", json=body) as got:
            for piece in got.iter_bytes():
                seen += piece
                if len(events(seen)) >= 3 and seen.endswith(b"\n\n"):
                    break
        begun = events(seen)
        id = json.loads(begun[0].split(b"data: ")[1])["id"]
        address = f"/v1/chat/completions/{id}/stream"
        rest = http.get(address, headers={"last-event-id": str(len(begun))}).content
        whole = http.get(address).content
        assert events(seen) + events(rest) == events(whole)
        assert events(whole)[-1] == b"id: 15\ndata: [DONE]\n\n"
        assert http.get(address, headers={"last-event-id": "99"}).status_code == 404
        assert http.get(f"/v1/chat/completions/{id[:-1]}x/stream").status_code == 404


def test_the_time_without_a_reader_begins_when_the_last_one_leaves():
    loop, now, ended = asyncio.new_event_loop(), [0.0], []
    loop.time = lambda: now[0]
    stream = AnswerStream(id="x", resumable=True, cancel=lambda: ended.append(now[0]))

    async def later(seconds):
        now[0] += seconds
        for _ in range(3):  # what is due is called
            await asyncio.sleep(0)

    async def leave_twice():
        streams = StreamRegistry()
        streams.open(stream)
        streams.left(stream)
        await later(25)
        streams.left(stream)  # a reader that came back
        await later(25)
        assert streams.get("x") is stream and not ended
        await later(6)
        with pytest.raises(ApiError):
            streams.get("x")

    loop.run_until_complete(leave_twice())
    loop.close()
    assert ended == [56.0]


def test_delete_stops_a_stream(server, client, slowly):
    server.engine.pace = 1.0
    stream = client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
    first = next(stream)
    gone = httpx.delete(f"{server.url}/v1/chat/completions/{first.id}")
    assert gone.json() == {
        "id": first.id, "object": "chat.completion.deleted", "deleted": True
    }  # fmt: skip
    *_, last = stream
    assert last.choices[0].finish_reason == "stop" and last.ltu["stopped"] is True
    assert len(last.ltu["tokens"]) < 12 and idle(server)


def test_an_answer_that_is_late(server, client):
    with server.settings(deadline=0.005):
        with pytest.raises(openai.APIStatusError) as late:
            client.chat.completions.create(model=MODEL, messages=ASK)
        assert late.value.status_code == 408 and late.value.code == "deadline"
        stream = client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
        with pytest.raises(openai.APIError) as broken:
            list(stream)
        assert broken.value.code == "deadline"


# --- models, errors -------------------------------------------------------------------------------


def test_models(client):
    assert [one.id for one in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "ltu_jax"


def test_errors_have_the_class_of_their_status(server, client):
    def ask(**changed):
        return client.chat.completions.create(**{"model": MODEL, "messages": ASK} | changed)

    with pytest.raises(openai.NotFoundError) as unknown:
        ask(model="gpt-4")
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.BadRequestError) as bad:
        ask(temperature=3)
    assert (bad.value.param, bad.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as long:
        ask(messages=[{"role": "user", "content": "word " * 1_000}])
    assert (long.value.param, long.value.code) == ("messages", "context_length_exceeded")
    server.engine.pace = 0.05
    server.engine.slots, before = 0, server.engine.slots
    with pytest.raises(openai.RateLimitError) as full:
        ask(n=5)
    server.engine.slots, server.engine.pace = before, 0.0
    assert full.value.response.headers["retry-after"] == "2" and idle(server)


def test_the_client_tries_again_when_the_queue_is_full(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2)
    slots, server.engine.slots = server.engine.slots, -server.engine.queue
    with client:
        threading.Timer(0.2, lambda: setattr(server.engine, "slots", slots)).start()
        assert client.chat.completions.create(model=MODEL, messages=ASK).choices
