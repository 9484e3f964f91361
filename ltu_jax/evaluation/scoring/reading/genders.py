"""The gender that an answer names."""

from collections.abc import Sequence

from ltu_jax.evaluation.scoring.reading import clauses, denial
from ltu_jax.evaluation.scoring.reading.clauses import Token
from ltu_jax.evaluation.scoring.reading.denial import Mention

# The words that name a gender; "she", "girl" and the like do not.
GENDER_WORDS = {
    "female": ["female", "females", "woman", "women", "lady", "ladies"],
    "male": ["male", "males", "man", "men", "gentleman", "gentlemen"],
}
_SIDES = {word: side for side, words in GENDER_WORDS.items() for word in words}
_NOBODY = ("made", "kind", "power", "hole", "cave")  # man-made, mankind


def gender(text: str) -> str | None:
    """Return "female" or "male" where the answer claims one side alone, else None.

    Whole words: "female" is not "male". "Not female" is no answer, "male, not female" is.
    """
    for part in (clauses.concluded(text), text):
        tokens = clauses.tokens(clauses.prepared(part))
        sides = denial.meant(tokens, _mentions(tokens))
        if len(sides) == 1:
            return str(sides[0])
        if sides:
            return None
    return None


def _mentions(tokens: Sequence[Token]) -> list[Mention]:
    result = []
    for place, token in enumerate(tokens):
        side = _SIDES.get(token.text.removesuffix("'s").removesuffix("'"))
        following = tokens[place + 1].text if place + 1 < len(tokens) else ""
        if side is not None and following not in _NOBODY:
            result.append(Mention(meaning=side, first=place, last=place + 1))
    return result
