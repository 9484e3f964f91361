"""JSON by grammar: whatever a model prefers, what it may say parses and validates."""

import json

import numpy as np
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.tokenizer import load_tokenizer
from ltu_jax.serving.engine_types import JsonGrammar
from ltu_jax.serving.json_grammar import JsonGrammars

ROWS = 352  # more rows of the embedding than tokens: they may never be chosen
PAIR = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["open", "closed"]},
        "seconds": {"type": "integer", "minimum": 0, "maximum": 10},
    },
    "required": ["question", "kind", "seconds"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammars(golden):
    tokenizer = load_tokenizer(golden / "text_cases" / "spm320.model")
    return JsonGrammars(tokenizer=tokenizer, rows=ROWS, ends=(tokenizer.eos_id,))


def walk(grammars, grammar, *, seed, most=200):
    """Take random allowed tokens up to the end; the text of them."""
    rng, matcher, ids = np.random.default_rng(seed), grammars.matcher(grammar), []
    for _ in range(most):
        words = matcher.allowed()
        ids_allowed = np.flatnonzero((words[np.arange(ROWS) // 32] >> (np.arange(ROWS) % 32)) & 1)
        assert ids_allowed.max() < grammars.tokenizer.vocab_size
        token = int(rng.choice(ids_allowed))
        if token == grammars.tokenizer.eos_id:
            break
        ids.append(token)
        matcher.take(token)
        if matcher.complete:
            break
    return grammars.tokenizer.decode(ids)


@pytest.mark.parametrize("seed", range(6))
def test_every_walk_through_a_schema_is_a_value_of_it(grammars, seed):
    made = json.loads(walk(grammars, JsonGrammar(schema=PAIR), seed=seed))
    assert set(made) == {"question", "kind", "seconds"}
    assert made["kind"] in ("open", "closed") and 0 <= made["seconds"] <= 10
    assert len(made["question"]) <= 12


def nested(depth):
    schema = {"type": "object"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize("schema", [{"type": "no such type"}, nested(5_000)], ids=["type", "depth"])
def test_a_schema_that_cannot_be_followed_is_refused(grammars, schema):
    with pytest.raises(UserError, match="grammar.schema"):
        grammars.matcher(JsonGrammar(schema=schema))


def test_a_token_that_was_not_allowed_is_an_error(grammars):
    matcher = grammars.matcher(JsonGrammar(schema=None))
    with pytest.raises(UserError, match="grammar"):
        matcher.take(grammars.tokenizer.encode("]")[-1])
