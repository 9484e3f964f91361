"""The chat template that comes with a language model, run in a sandbox."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ltu_jax.core.errors import UserError, brief
from ltu_jax.core.text_files import read_text
from ltu_jax.preprocessing.added_tokens import read_object
from ltu_jax.preprocessing.tokenizer import Tokenizer
from ltu_jax.serving.api_error import bad
from ltu_jax.serving.chat_messages import ChatTurn

_LONGEST = 2_000_000  # characters; a hostile template could write for ever


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """Turns as the text that a model was tuned on; `tokens` are names like "bos_token"."""

    source: str
    tokens: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> "ChatTemplate":
        """Read the template of a tokenizer's folder.

        Raises:
            UserError: there is none, or it is no template; or its files are damaged.
        """
        settings = read_object(folder / "tokenizer_config.json")
        source = None
        if (file := folder / "chat_template.jinja").is_file():
            source = read_text(file, expected="a chat template")
        source = source or read_object(folder / "chat_template.json").get("chat_template")
        source = source or settings.get("chat_template")
        if isinstance(source, list):  # several by name
            named = {one.get("name"): one.get("template") for one in source}
            source = named.get("default")
        if not isinstance(source, str):
            raise UserError(
                f"{folder} has no chat template, so nobody knows how this model is asked; put "
                "chat_template.jinja there, or serve a tuned model"
            )
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        tokens = {name: _token(settings.get(name)) for name in names}
        made = cls(source=source, tokens=tokens)
        try:
            made._environment().from_string(source)
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template of {folder} is damaged: {error}") from None
        return made

    def text(self, turns: Sequence[ChatTurn]) -> str:
        """Return the prompt of a conversation.

        Raises:
            ApiError: 400, the template does not take it.
        """
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        template = self._environment().from_string(self.source)
        parts, size = [], 0
        try:
            for part in template.generate(
                messages=messages,
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **self.tokens,
            ):
                parts.append(part)
                size += len(part)
                if size > _LONGEST:
                    raise bad("messages", "are too long")
        except (jinja2.TemplateError, TypeError, ValueError, OverflowError) as error:
            raise bad(
                "messages", f"do not fit the model's chat template: {brief(str(error))}"
            ) from None
        return "".join(parts)

    def ids(self, turns: Sequence[ChatTurn], *, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Return the ids of `text`; the template itself writes BOS where the model wants it."""
        return tuple(tokenizer.encode(self.text(turns)))

    def _environment(self) -> ImmutableSandboxedEnvironment:
        made = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationBlock],
        )
        made.globals["raise_exception"] = _refuse
        made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        made.filters["tojson"] = lambda value, **options: json.dumps(
            value, ensure_ascii=False, indent=options.get("indent")
        )
        return made


class _GenerationBlock(Extension):
    """{% generation %} of a template marks what the model wrote, for training; it is text here."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _token(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
