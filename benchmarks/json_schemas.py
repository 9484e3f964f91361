"""Answers by JSON schema, of the kind that making data needs: do all parse and validate?

    python -m benchmarks.json_schemas [--weights DIR] [--requests 200] [--out DIR]

SmolLM2-135M is served as a language model alone, and 16 users ask it for questions and answers
about a sound: with a number of pairs, choices of a list, nested objects, numbers in a range, and
lists of different lengths. No two requests have the same schema. Every answer is drawn, parsed,
and checked by a validator of its own (`valid`), which knows nothing of the one that the server's
tokens are chosen by.
"""

import argparse
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import alternate
from benchmarks.served_process import ServedProcess, served
from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.serving.server_load import run_users
from ltu_jax.serving.timed_chat import TimedAnswer

WEIGHTS = Path("assets/weights/smollm2-135m")
SOUNDS = (
    *("a dog barks", "rain on a roof", "a man laughs", "a train passes", "two people argue"),
    *("a door is slammed", "birds sing", "a crowd cheers", "a kettle boils", "a woman sings"),
)
KINDS = ("open-ended", "classification", "temporal", "counting", "emotion")
LABELS = (
    "Dog",
    "Rain",
    "Laughter",
    "Train",
    "Speech",
    "Door",
    "Bird",
    "Cheering",
    "Kettle",
    "Song",
)
USERS = 16


# --- schemas --------------------------------------------------------------------------------------


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _text(longest: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": longest}


def _list(items: Any, least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def schema_of(number: int) -> dict[str, Any]:
    """Return schema `number`, which the data has to name: one of five forms, with drawn limits."""
    rng = np.random.default_rng(number)
    longest, pairs = int(rng.integers(16, 49)), int(rng.integers(1, 4))
    labels = [str(one) for one in rng.choice(LABELS, int(rng.integers(2, 7)), replace=False)]
    seconds = {"type": "integer", "minimum": 0, "maximum": int(rng.integers(3, 60))}
    pair = _object(question=_text(longest), answer=_text(longest))
    form = number % 5
    named = {"item": {"const": number}}
    if form == 0:
        return _object(**named, pairs=_list(pair, pairs, pairs))
    if form == 1:
        typed = _object(kind={"enum": list(KINDS)}, **pair["properties"])
        return _object(**named, pairs=_list(typed, 1, pairs), count={"const": pairs})
    if form == 2:
        event = _object(label={"enum": labels}, start=seconds, end=seconds)
        return _object(**named, events=_list(event, 1, pairs), caption=_text(longest))
    if form == 3:
        speaker = _object(
            gender={"enum": ["male", "female", "unknown"]},
            age={"anyOf": [{"type": "integer", "minimum": 0, "maximum": 99}, {"type": "null"}]},
        )
        scene = _object(speakers=_list(speaker, 0, pairs), indoor={"type": "boolean"})
        return _object(**named, scene=scene, says=_text(longest))
    code = {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}
    return _object(**named, id=code, labels=_list({"enum": labels}, 1, len(labels)), qa=pair)


def valid(value: Any, schema: dict[str, Any]) -> bool:
    """Tell whether a value is of a schema; knows what `schema_of` uses, and nothing else."""
    if "enum" in schema:
        return value in schema["enum"]
    if "const" in schema:
        return value == schema["const"]
    if "anyOf" in schema:
        return any(valid(value, one) for one in schema["anyOf"])
    kind = schema["type"]
    if kind == "object":
        return (
            isinstance(value, dict)
            and set(value) == set(schema["required"]) == set(schema["properties"])
            and all(valid(value[name], one) for name, one in schema["properties"].items())
        )
    if kind == "array":
        return (
            isinstance(value, list)
            and schema["minItems"] <= len(value) <= schema["maxItems"]
            and all(valid(one, schema["items"]) for one in value)
        )
    if kind == "string":
        if not isinstance(value, str):
            return False
        if "pattern" in schema:
            return re.search(schema["pattern"], value) is not None
        return schema["minLength"] <= len(value) <= schema["maxLength"]
    if kind == "integer":
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and schema["minimum"] <= value <= schema["maximum"]
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "null":
        return value is None
    raise KeyError(kind)


# --- asking ---------------------------------------------------------------------------------------


def body_of(server: ServedProcess, number: int, *, longest: int) -> bytes:
    """Return request `number`."""
    sound = SOUNDS[number % len(SOUNDS)]
    schema = schema_of(number)
    fields = ", ".join(schema["properties"])
    asked = f"Write JSON with {fields} about this sound: {sound}."
    form = {"name": "data", "strict": True, "schema": schema}
    return json.dumps(
        {
            "model": server.model,
            "messages": [{"role": "user", "content": asked}],
            "response_format": {"type": "json_schema", "json_schema": form},
            "max_completion_tokens": longest,
            "temperature": 0.8,
            "seed": number,
        }
    ).encode()


def ask_all(server: ServedProcess, *, requests: int, longest: int) -> dict[str, Any]:
    """Ask all, and say what came."""
    answers: dict[int, TimedAnswer] = {}

    def ask(number: int) -> None:
        answers[number] = server.service.ask(body_of(server, number, longest=longest))

    begun = time.perf_counter()
    run_users(
        ask, users=USERS, count=requests,
        watch=lambda: alternate.show(f"{len(answers)} of {requests}"),
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    counts, failed = Counter(), []
    for number, answer in sorted(answers.items()):
        counts["answered"] += answer.ended
        counts["ended by length"] += answer.finish_reason == "length"
        try:
            value = json.loads(answer.text)
        except ValueError:
            failed.append({"number": number, "error": answer.error, "text": answer.text[:200]})
            continue
        counts["parsed"] += 1
        if valid(value, schema_of(number)):
            counts["valid"] += 1
        else:
            failed.append({"number": number, "schema": schema_of(number), "value": value})
    tokens = sum(one.tokens for one in answers.values())
    names = ("answered", "parsed", "valid", "ended by length")
    return {
        "requests": requests,
        **{name: counts[name] for name in names},
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 2),
        "seconds": round(seconds, 1),
        "examples": [answers[number].text for number in range(min(5, requests))],
        "failed": failed[:5],
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.json_schemas",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help=f"default {WEIGHTS}")
    parser.add_argument("--requests", type=int, default=200, help="default 200")
    parser.add_argument("--longest", type=int, default=480, help="tokens of an answer at most")
    parser.add_argument("--folder", type=Path, default=Path("build/serving"), help="for the log")
    parser.add_argument(
        "--out", type=Path, default=alternate.RESULTS / "json_schemas.json", help="the JSON"
    )
    given = parser.parse_args()
    if not given.weights.is_dir():
        raise UserError(f"{given.weights} is not there; python -m ltu_jax.fetch smollm2-135m")
    options = (
        "--checkpoint",
        str(given.weights),
        "--max-batch",
        str(USERS),
        "--slot-tokens",
        "768",
    )
    with served(*options, log=given.folder / "json_schemas.log") as server:
        found = ask_all(server, requests=given.requests, longest=given.longest)
        found["compiled_after_ready"] = server.count("ltu:compiled_programs")
    shown = {key: value for key, value in found.items() if not isinstance(value, list)}
    alternate.show(str(shown))
    about = {"model": given.weights.name, "users": USERS, "temperature": 0.8}
    write_json(given.out, alternate.header() | about | found)


if __name__ == "__main__":
    errors.main(main)
