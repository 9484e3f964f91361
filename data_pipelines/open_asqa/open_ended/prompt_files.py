"""The prompts: a versioned file for each source, with the fields that it tells the model.

    prompts/rules.toml      paragraphs that all prompts share, as {name}
    prompts/SOURCE.toml     how many pairs, which fields, and the system text of a source
    prompts/SOURCE_first.toml, SOURCE_second.toml    the same, of two calls about a clip

A version that was used is never changed: change the text, and raise `version`.
"""

import dataclasses
import functools
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from data_pipelines.open_asqa.open_ended.material import FIELDS
from ltu_jax.core import config

_PLACE = re.compile(r"\{([a-z_]+)\}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptFile:
    """A prompt as its file has it.

    Attributes:
        version: raised with any change.
        pairs: how many are asked for.
        required: fields that a clip must have; "a|b" for one of the two.
        optional: fields that it may lack.
        steps: files of the build that must be there first, by earlier steps.
        datasets: of the source, whose clips are asked about; () for all.
        hidden: fields whose values a question must not say.
        least_answer, most_answer: words of an answer.
        named: words of the rules on metadata that are allowed, since the clips are about them.
        system: the text, with {places}.
    """

    version: int
    pairs: int
    required: tuple[str, ...]
    optional: tuple[str, ...]
    steps: tuple[str, ...]
    datasets: tuple[str, ...]
    hidden: tuple[str, ...]
    least_answer: int
    most_answer: int
    named: tuple[str, ...]
    system: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """The prompt of a source, its paragraphs filled in; only {pairs} is left open.

    Attributes:
        name: source and versions, such as "clotho 1.1".
        file: what was declared.
        system: the text.
        again: what the text ends in when pairs are missing after a cut reply.
    """

    name: str
    file: PromptFile
    system: str
    again: str


@functools.cache
def prompts_of_two_calls(source: str) -> tuple[Prompt, Prompt] | None:
    """Return the prompts of the first and the second call; None where a source has none such."""
    names = (f"{source}_first", f"{source}_second")
    if not resources.files(__package__).joinpath("prompts", f"{names[0]}.toml").is_file():
        return None
    return prompt_of(names[0]), prompt_of(names[1])


@functools.cache
def prompt_of(source: str) -> Prompt:
    """Return the prompt of a source, or of one of two calls about it.

    Raises:
        ConfigError: a key is missing, unknown or wrong.
    """
    file = config.read(PromptFile, _toml(f"{source}.toml"), where=f"prompts/{source}.toml")
    rules = _toml("rules.toml")
    for declared in (*file.required, *file.optional, *file.hidden):
        for name in declared.split("|"):
            if name not in FIELDS:
                raise config.ConfigError(
                    f"prompts/{source}.toml declares the field {name!r}; fields are "
                    f"{', '.join(FIELDS)}"
                )
    return Prompt(
        name=f"{source} {file.version}.{rules['version']}",
        file=file,
        system=_filled(file.system, rules).strip(),
        again=rules["again"].strip(),
    )


def _filled(text: str, rules: Mapping[str, Any]) -> str:
    """Return the text with the shared paragraphs in their places."""

    def paragraph(match: re.Match) -> str:
        return match[0] if match[1] == "pairs" else rules[match[1]].strip()

    return _PLACE.sub(paragraph, text)


def _toml(name: str) -> Mapping[str, Any]:
    folder = resources.files(__package__).joinpath("prompts")
    return tomllib.loads(folder.joinpath(name).read_text(encoding="utf-8"))
