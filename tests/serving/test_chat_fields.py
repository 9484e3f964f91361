"""Every field of OpenAI's chat request has a row, and what the row says happens."""

import secrets
import typing
from pathlib import Path

import pytest
from openai.types.chat import completion_create_params as official

from ltu_jax.serving.api_error import ApiError
from ltu_jax.serving.chat_fields import FIELDS, Handling, read_chat, table

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "serving.md"
LEAST = {"model": "m", "messages": [{"role": "user", "content": "What?"}]}
# A value of each field that asks for something.
ASKING = {
    "model": "m", "messages": LEAST["messages"], "max_completion_tokens": 5, "max_tokens": 5,
    "temperature": 0.5, "top_p": 0.5, "top_k": 3, "repetition_penalty": 1.2, "seed": 1,
    "stop": "x", "n": 2, "stream": True, "stream_options": {"include_usage": True},
    "response_format": {"type": "json_object"}, "logprobs": True, "top_logprobs": 2,
    "modalities": ["text"], "ltu": {"mode": "text"}, "user": "u", "safety_identifier": "s",
    "metadata": {"a": "b"}, "prompt_cache_key": "k", "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h", "prediction": {"type": "content", "content": "c"},
    "service_tier": "flex", "reasoning_effort": "low", "verbosity": "low",
    "parallel_tool_calls": True, "frequency_penalty": 0.5, "presence_penalty": 0.5,
    "logit_bias": {"5": 1}, "store": True, "audio": {"voice": "a", "format": "wav"},
    "tools": [{"type": "function"}], "tool_choice": "required", "functions": [{"name": "f"}],
    "function_call": {"name": "f"}, "web_search_options": {}, "moderation": {"model": "m"},
}  # fmt: skip
NEEDS = {
    "stream_options": {"stream": True}, "top_logprobs": {"logprobs": True},
    "top_p": {"temperature": 0.5}, "top_k": {"temperature": 0.5}, "seed": {"temperature": 0.5},
}  # fmt: skip
# For each kind of value, one of another kind.
WRONG = [object, "text", -1, 1.5, True, [], {}, ["x"], {"x": 1}, float("nan")]


def test_every_official_field_has_a_row():
    params = set(typing.get_type_hints(official.CompletionCreateParamsNonStreaming))
    assert params <= {one.name for one in FIELDS} == set(ASKING)


@pytest.mark.parametrize("row", FIELDS, ids=lambda row: row.name)
def test_what_the_row_says_happens(row, monkeypatch):
    monkeypatch.setattr(secrets, "randbits", lambda bits: 7)  # of requests without a seed
    fixed = LEAST | NEEDS.get(row.name, {})
    without = read_chat(fixed)
    asked = fixed | {row.name: ASKING[row.name]}
    if row.handling is Handling.REFUSED:
        with pytest.raises(ApiError) as refused:
            read_chat(asked)
        assert (refused.value.status, refused.value.param) == (400, row.name)
        assert refused.value.message.startswith(row.name)
        for value in row.neutral:
            assert read_chat(fixed | {row.name: list(value) if value == () else value}) == without
    elif row.handling is Handling.IGNORED:
        assert read_chat(asked) == without
    elif row.name not in ("model", "messages", "modalities"):
        assert read_chat(asked) != without
    if row.name not in LEAST:
        assert read_chat(fixed | {row.name: None}) == without


@pytest.mark.parametrize("row", FIELDS, ids=lambda row: row.name)
def test_a_value_of_another_type_is_refused_by_name(row):
    refused = 0
    for value in WRONG[1:]:
        try:
            read_chat(LEAST | NEEDS.get(row.name, {}) | {row.name: value})
        except ApiError as error:
            assert error.status == 400 and error.param.startswith(row.name), value
            refused += 1
    assert refused >= 4, row.name


def test_the_text_of_a_conversation_has_a_limit_as_a_whole():
    def asked(content):
        return {"model": "m", "messages": [{"role": "user", "content": content}]}

    part = {"type": "text", "text": "a" * 400_000}
    read_chat(asked([part] * 2))
    for content in ([part] * 3, "a" * 1_000_001):
        with pytest.raises(ApiError) as refused:
            read_chat(asked(content))
        assert refused.value.status == 400 and refused.value.param.startswith("messages")


def test_the_page_has_the_table():
    assert table() in PAGE.read_text()
