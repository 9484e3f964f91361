"""Whether an answer says that nothing is heard, or noise alone, and invents nothing besides."""

from collections.abc import Iterator, Sequence

from ltu_jax.evaluation.scoring.reading import clauses, denial, forms, lexicon
from ltu_jax.evaluation.scoring.reading.clauses import Token
from ltu_jax.evaluation.scoring.reading.denial import Mention

_NOTHING = "nothing"
# Where they are claimed, nothing happens.
_QUIET = ("silence", "silent", "quiet", "empty", "noise", "noisy", "hiss", "hum", "static")
# Where they are denied, nothing happens; where they are claimed, nothing is named.
_ANYTHING = ("sound", "noise", "anything", "event", "activity", "audible")
# What may stand beside them without telling of a thing.
_PLAIN = lexicon.words_of(
    "hear hears listen recording recordings clip audio file label labels contains contain all "
    "background white pink brown faint low soft slight steady constant pure plain complete total "
    "absolute just completely totally entirely very quite mere seems"
)
# Words of phrases that turn a sentence ("nothing except rain") tell of nothing themselves.
_TURNING = lexicon.words_of(
    " ".join((*lexicon.TOGGLES, *lexicon.DENYING_PHRASES, *lexicon.EMPHASIS, *lexicon.DOUBTS))
) - {"anything"}


def says_quiet(text: str) -> bool:
    """Tell whether an answer says that there is silence or noise, and nothing else.

    Whatever else it claims is something that it hears: "Wind noise", "Nothing but a dog",
    "Silence, then a door". What it denies is not: "Noise. Nobody speaks."
    """
    tokens = clauses.tokens(clauses.prepared(text))
    found = denial.claims(tokens, [*_content(tokens)])
    quiet = any(_one_of(word, _QUIET) for word in found.claimed)
    silent = any(_one_of(word, _ANYTHING) for word in found.denied)
    invented = any(not _one_of(word, (*_QUIET, *_ANYTHING)) for word in found.claimed)
    return (quiet or silent or _nothing(tokens)) and not invented


def _content(tokens: Sequence[Token]) -> Iterator[Mention]:
    """Yield the words that tell of something."""
    for place, token in enumerate(tokens):
        plain = token.text in _PLAIN or token.text in _TURNING or lexicon.function_word(token.text)
        plain |= [one.text for one in tokens[place : place + 2]] == ["anything", "but"]
        if token.word and not plain:
            yield Mention(meaning=token.text, first=place, last=place + 1)


def _nothing(tokens: Sequence[Token]) -> bool:
    said = [part for part in clauses.clauses(tokens) if not part.asked]
    return any(token.text == _NOTHING for part in said for token in tokens[part.first : part.last])


def _one_of(word: str | float, words: Sequence[str]) -> bool:
    return any(forms.same(str(word), other) for other in words)
