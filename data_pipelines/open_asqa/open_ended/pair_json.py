"""Questions and answers out of whatever a language model wrote, whole ones only.

Asked for is {"pairs": [{"q": "...", "a": "..."}, ...]}. What comes may be fenced, cut off, one
object a line, a list, or have text around it: every object that is whole and has both texts counts.
"""

import dataclasses
import json
import re
from typing import Any

_LONGEST = 1 << 18  # characters; no honest reply is as long
_MOST_FAILURES = 200  # beginnings of objects in a row that are none; each reads the rest once
_OBJECT = re.compile(r'\{\s*"')
_QUESTION = ("q", "question")
_ANSWER = ("a", "answer")
_DECODER = json.JSONDecoder(strict=False)  # models write line ends inside of strings


@dataclasses.dataclass(frozen=True, order=True)
class QuestionAnswer:
    """A question and its answer, as they were written but for blanks at the ends."""

    question: str
    answer: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadPairs:
    """What a reply holds.

    Attributes:
        pairs: in their order.
        broken: objects that are not such a pair.
        whole: whether the reply is what was asked for and nothing else.
    """

    pairs: tuple[QuestionAnswer, ...]
    broken: int
    whole: bool


def read_pairs(content: str) -> ReadPairs:
    """Return the whole pairs of a reply."""
    text = content[:_LONGEST].rpartition("</think>")[2].strip()
    value = _parsed(text)
    if isinstance(value, dict) and set(value) == {"pairs"} and isinstance(value["pairs"], list):
        found = [_pair(item) for item in value["pairs"]]
        pairs = tuple(pair for pair in found if pair is not None)
        return ReadPairs(
            pairs=pairs, broken=len(found) - len(pairs), whole=bool(pairs) and None not in found
        )
    pairs, broken = [], 0
    for item in _objects(text):
        pair = _pair(item)
        if pair is None:
            broken += 1
        else:
            pairs.append(pair)
    return ReadPairs(pairs=tuple(pairs), broken=broken, whole=False)


def _parsed(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the innermost objects that are whole, in their order."""
    found, place, failed = [], 0, 0
    while failed < _MOST_FAILURES and (begin := _OBJECT.search(text, place)):
        try:
            value, end = _DECODER.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            place, failed = begin.start() + 1, failed + 1
            continue
        inner = next((item for item in value.values() if isinstance(item, list)), None)
        if _pair(value) is None and inner is not None:
            found += [item for item in inner if isinstance(item, dict)]
        else:
            found.append(value)
        place, failed = end, 0
    return found


def _pair(item: Any) -> QuestionAnswer | None:
    if not isinstance(item, dict):
        return None
    fields = {re.sub(r"\W", "", str(name)).lower(): value for name, value in item.items()}
    question = next((fields[name] for name in _QUESTION if name in fields), None)
    answer = next((fields[name] for name in _ANSWER if name in fields), None)
    if not isinstance(question, str) or not isinstance(answer, str):
        return None
    if any("\ud800" <= sign <= "\udfff" for sign in question + answer):  # half a character
        return None
    question, answer = " ".join(question.split()), " ".join(answer.split())
    return QuestionAnswer(question, answer) if question and answer else None
