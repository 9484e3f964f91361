"""Whether a pair may be used: rules that look at its texts and at what is known of its clip."""

import dataclasses
import functools
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from data_pipelines.open_asqa.open_ended.material import FIELDS, KnownClip, material
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer
from data_pipelines.open_asqa.open_ended.prompt_files import PromptFile

LEAST_QUESTION, MOST_QUESTION = 3, 60  # words
_GIVEN_AWAY = 0.8  # share of an answer's words of content that its question may have
_LEAST_CONTENT = 3  # words of content, below which an answer is too short to compare
_FOREIGN = 0.2  # share of letters that are not Latin
_LONG_ENOUGH = 10  # words, to tell a language by
_LOOP = 4  # times that three words may not come again
_WORD = re.compile(r"[a-z0-9]+(?:['’-][a-z0-9]+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_QUOTED = re.compile(r"[\"“”„«»].*?[\"“”„«»]|(?<!\w)['‘’].*?['’](?!\w)")
_YES_OR_NO = re.compile(r"(?:is|are|was|were|do|does|did|can|could|has|have)\b", re.IGNORECASE)
# Left over from JSON, Markdown, code, an address, or a form to fill in ("[name]").
_MARKUP = re.compile(
    r"https?://|www\.|[{}\\`|]|\[(?:[^\]]{0,80}\]|\W{0,4}$)|\]\(|\]\]|[\"']\s*\]|\b_\w+_\b|#{2,}|\*\*"
)
# A last sentence that ends in its middle, as one does that a limit of length has cut and closed.
# No sentence ends with these words; in capitals they may be names, as in "the key of A".
_BEFORE_MORE = "a|an|the|and|or|but|than|because|very|my|your|our|their|its|every"
_CUT = re.compile(rf"(?:[,;:(&–—-]\s*\.?|\s\.|(?<![\w'’-])(?:{_BEFORE_MORE})[.…!?]*)$")
_TAIL = 3  # words at the end of an answer by which its quote of the clip is known
_SENTENCE = re.compile(r"(?<=[.!?;])\s+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rules:
    version: int
    metadata: Mapping[str, re.Pattern]
    metadata_at_all: re.Pattern
    synonyms: Mapping[frozenset[str], frozenset[int]]
    everyday: frozenset[str]
    unclaimed: re.Pattern
    unanswerable: re.Pattern
    english: frozenset[str]


@functools.cache
def rules() -> _Rules:
    """Return the lists of pair_rules.toml."""
    text = resources.files(__package__).joinpath("pair_rules.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    groups: dict[frozenset[str], set[int]] = {}
    for number, group in enumerate(table["synonyms"]["groups"]):
        for name in group:
            groups.setdefault(frozenset(map(stem, _WORD.findall(name))), set()).add(number)
    return _Rules(
        version=table["version"],
        metadata={name: re.compile(pattern) for name, pattern in table["metadata"].items()},
        metadata_at_all=_any(table["metadata"].values()),
        synonyms={name: frozenset(numbers) for name, numbers in groups.items()},
        everyday=frozenset(table["synonyms"]["everyday"]),
        unclaimed=re.compile(table["synonyms"]["unclaimed"]),
        unanswerable=_any(table["unanswerable"]["phrases"]),
        english=frozenset(table["english"]["words"]),
    )


def _any(patterns: Iterable[str]) -> re.Pattern:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


def is_unanswerable(answer: str) -> bool:
    """Tell whether an answer says that there is no answer."""
    return rules().unanswerable.search(answer.lower().replace("’", "'")) is not None


@functools.lru_cache(maxsize=1 << 16)
def stem(name: str) -> str:
    """Return a name in lower case without the usual endings: dogs, barking -> dog, bark."""
    word = name.lower().strip()
    for ending in ("ing", "ies", "es", "s", "ed"):
        if len(word) - len(ending) >= 3 and word.endswith(ending) and not word.endswith("ss"):
            return word.removesuffix(ending)
    return word


class ClassNames:
    """The classes of sound of a build, to be found in texts."""

    def __init__(self, labels: Collection[str]):
        names: set[str] = set()
        for label in labels:
            for name in (label, *label.split(",")):
                name = re.sub(r"\(.*?\)", "", name).strip().lower()
                if len(name) >= 3 and label.lower() not in rules().everyday:
                    names.add(name)
        names -= rules().everyday
        # the longest first: "police car (siren)" before "car"
        spelled = sorted(names, key=lambda name: (-len(name), name))
        pattern = "|".join(re.escape(name) + "(?:s|es|ing)?" for name in spelled)
        self._pattern = re.compile(rf"\b(?:{pattern})\b") if spelled else None

    def claimed(self, text: str) -> Iterator[str]:
        """Yield the names in sentences that claim what is heard."""
        if self._pattern is None:
            return
        for sentence in _SENTENCE.split(text.lower()):
            if not rules().unclaimed.search(sentence):
                yield from (match[0] for match in self._pattern.finditer(sentence))


class PairRules:
    """The rules for the pairs of one clip."""

    def __init__(self, known: KnownClip, prompt: PromptFile, classes: ClassNames):
        self._prompt, self._classes = prompt, classes
        fields = material(known, required=(), optional=(*prompt.required, *prompt.optional))
        self._text = json.dumps(fields, ensure_ascii=False).lower()
        self._said = " ".join(" ".join(_texts(fields)).lower().split())
        self._stems = frozenset(map(stem, _WORD.findall(self._text)))
        self._groups = frozenset(
            number
            for words, numbers in rules().synonyms.items()
            if words <= self._stems
            for number in numbers
        )
        self._hidden = tuple(
            value for name in prompt.hidden for value in _values(FIELDS[name][1](known))
        )
        self._numbers = _numbers_of(known, fields)
        self._has_sounds = bool(known.clip.labels or known.clip.events)

    def problem(self, pair: QuestionAnswer) -> str:
        """Return why a pair may not be used; "" if it may."""
        question, answer = pair.question.lower(), pair.answer.lower()
        checks = (
            _lengths(question, answer, self._prompt),
            _language(question, answer),
            self._markup(question, answer),
            self._cut_off(pair.answer),
            "repeats itself" if _loops(question) or _loops(answer) else "",
            self._metadata(question, answer),
            self._gives_away(question, answer),
            self._number(question, answer),
            self._class(pair),
        )
        return next((found for found in checks if found), "")

    def _markup(self, question: str, answer: str) -> str:
        """Say whether a text has leftovers of a form, which what is said in the clip has not."""
        found = (match[0] for text in (question, answer) for match in _MARKUP.finditer(text))
        return "markup" if any(piece not in self._said for piece in found) else ""

    def _cut_off(self, answer: str) -> str:
        """Say whether an answer ends in a sentence's middle, unless what it quotes does so."""
        bare = answer.rstrip("\"'”’» ")
        if not _CUT.search(bare):
            return ""
        tail = " ".join(bare.lower().split()[-_TAIL:])
        return "" if tail in self._said else "answer is cut off"

    def _metadata(self, question: str, answer: str) -> str:
        texts = (_QUOTED.sub(" ", question), _QUOTED.sub(" ", answer))
        if not any(rules().metadata_at_all.search(text) for text in texts):
            return ""
        for name, pattern in rules().metadata.items():
            if name in self._prompt.named or (
                # what the question asks for may be answered
                name in ("hertz", "decibel") and pattern.search(texts[0])
            ):
                continue
            if any(pattern.search(text) for text in texts):
                return f"mentions metadata: {name}"
        return ""

    def _gives_away(self, question: str, answer: str) -> str:
        if any(re.search(rf"\b{re.escape(value)}\b", question) for value in self._hidden):
            return "question says a known fact"
        content = content_words(answer)
        if len(content) < _LEAST_CONTENT:
            return ""
        share = len(content & content_words(question)) / len(content)
        return "question holds the answer" if share >= _GIVEN_AWAY else ""

    def _number(self, question: str, answer: str) -> str:
        for text in _NUMBER.findall(f"{question} {answer}"):
            if _plain(text) not in self._numbers:
                return "number that is not known"
        return ""

    def _class(self, pair: QuestionAnswer) -> str:
        """Say whether a sound is claimed that the clip lacks; texts know more than sounds."""
        if not self._has_sounds:
            return ""
        # "Is a cat heard?" claims no cat, "Why does the cat run?" does
        texts = [pair.answer] if _YES_OR_NO.match(pair.question) else [pair.question, pair.answer]
        for text in texts:
            for name in self._classes.claimed(_QUOTED.sub(" ", text)):
                if not self._is_known(name):
                    return "sound that is not known"
        return ""

    def _is_known(self, name: str) -> bool:
        words = frozenset(map(stem, _WORD.findall(name)))
        if words & self._stems:
            return True
        spelled = (words, *(frozenset((word,)) for word in words))
        return any(rules().synonyms.get(one, frozenset()) & self._groups for one in spelled)


def _lengths(question: str, answer: str, prompt: PromptFile) -> str:
    asked, said = len(question.split()), len(answer.split())
    if not LEAST_QUESTION <= asked <= MOST_QUESTION:
        return "question too short" if asked < LEAST_QUESTION else "question too long"
    if not prompt.least_answer <= said <= prompt.most_answer:
        return "answer too short" if said < prompt.least_answer else "answer too long"
    return "answer is the question" if question.strip("?. ") == answer.strip("?. ") else ""


def _language(question: str, answer: str) -> str:
    for text in (question, answer):
        text = _QUOTED.sub(" ", text)
        if not text.isascii():
            letters = [letter for letter in text if letter.isalpha()]
            foreign = sum(letter > "\u024f" for letter in letters)
            if foreign > _FOREIGN * len(letters):
                return "not English"
        words = _WORD.findall(text)
        if len(words) >= _LONG_ENOUGH and not rules().english & set(words):
            return "not English"
    return ""


def _loops(text: str) -> bool:
    words = _WORD.findall(text)
    threes = [tuple(words[place : place + 3]) for place in range(len(words) - 2)]
    return len(threes) - len(set(threes)) >= _LOOP


def content_words(text: str) -> set[str]:
    """Return the words that say something, by their stems."""
    return {stem(word) for word in _WORD.findall(text) if word not in rules().english}


def _values(value: Any) -> Sequence[str]:
    """Return texts of a fact that a question could give away."""
    values = value if isinstance(value, list) else [value]
    return [
        str(one).lower() for one in values if one and (len(str(one)) >= 4 or str(one).isdigit())
    ]


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts among facts."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value


def _plain(number: str) -> float:
    """Return the value of a number as written: 1,000 and 0.50 are numbers too."""
    text = re.sub(r",(?=\d{3}\b)", "", number)
    try:
        return float(text)
    except ValueError:  # 1.2.3
        return float("nan")


def _numbers_of(known: KnownClip, fields: Mapping[str, Any]) -> frozenset[float]:
    """Return the numbers that may be said: those of the record, durations, counts."""
    text = json.dumps(fields, ensure_ascii=False)
    numbers = {_plain(found) for found in _NUMBER.findall(text)}
    events = known.clip.events or ()
    for event in events:
        for value in (event.start, event.end, event.end - event.start):
            numbers |= {round(value, 1), float(round(value))}
    labels = [event.label for event in events] or list(known.clip.labels)
    numbers |= {float(labels.count(label)) for label in labels}
    numbers |= {float(len(labels)), float(len(set(labels)))}
    return frozenset(numbers)
