"""/v1/ltu/explain: what the model listened to in an answer to a conversation with one clip."""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ltu_jax.generation import explain
from ltu_jax.generation.request import AnswerMode
from ltu_jax.inference import Model
from ltu_jax.serving import field_kinds as kinds
from ltu_jax.serving.api_error import bad
from ltu_jax.serving.chat_answers import ChatAnswers
from ltu_jax.serving.chat_messages import read_messages
from ltu_jax.serving.http_body import parse_json, read_body, watched
from ltu_jax.serving.server_settings import LONGEST_NAME

_MOST_TOKENS = 1_024
_READERS = {
    "model": kinds.text(LONGEST_NAME),
    "messages": read_messages,
    "ltu": lambda param, value: kinds.keys(param, value, {"mode": kinds.one_of(*AnswerMode)}),
    "answer_tokens": kinds.list_of(kinds.whole(0, 2**31 - 1), most=_MOST_TOKENS),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class AnswerExplanations:
    """Explains answers that `chat` gave, in a thread of `executor`."""

    chat: ChatAnswers
    model: Model
    executor: Executor

    async def create(self, request: Request) -> Response:
        """POST /v1/ltu/explain."""
        body = await read_body(request, self.chat.settings)
        body = await asyncio.to_thread(parse_json, body)
        given = kinds.keys("", body, _READERS, needed=("model", "messages", "answer_tokens"))
        if not given["answer_tokens"]:
            raise bad("answer_tokens", "is empty; give those of an answer's ltu object")
        return JSONResponse(await watched(request, self._explain(given)))

    async def _explain(self, given: dict[str, Any]) -> dict[str, Any]:
        chat, tokens = self.chat, given["answer_tokens"]
        chat.check_model(given["model"])
        config = self.model.config
        for number, one in enumerate(tokens):
            if one >= config.llama.vocab_size:
                raise bad(f"answer_tokens[{number}]", f"is {one}: no id of the vocabulary")
        mode = given.get("ltu", {}).get("mode", "joint")
        if mode == AnswerMode.TEXT:
            raise bad("ltu.mode", "is text: no audio was heard")
        heard, prompt, _ = await chat.hear(given["messages"], mode=AnswerMode(mode))
        if len(heard) != 1:
            raise bad("messages", f"have {len(heard)} clips; an answer about one is explained")
        places = config.audio_tokens + len(prompt) + len(tokens)
        if places > chat.engine.stats().slot_tokens:
            raise bad("messages", "are too long", code="context_length_exceeded")
        found = await asyncio.get_running_loop().run_in_executor(
            self.executor,
            lambda: explain.explain(
                self.model.model,
                self.model.params,
                prompt=prompt,
                audio_features=heard[0].clip.features[None],
                tokens=tokens,
                tokenizer=chat.tokenizer,
            ),
        )
        return {
            "object": "ltu.explanation",
            "model": given["model"],
            "seconds_per_token": self.model.window_seconds / config.audio_tokens,
            "layers": found.layers.tolist(),
            "tokens": found.tokens.tolist(),
            "pieces": list(found.pieces),
        }
