"""Forms of words: what may stand for a word of a class name, and where a noun is none."""

import functools

import simplemma
import snowballstemmer

from ltu_jax.evaluation.scoring.reading import lexicon

_STEMMER = snowballstemmer.stemmer("english")


@functools.lru_cache(maxsize=65_536)
def keys(word: str) -> frozenset[str]:
    """Return what two forms of one word share: a lemma, or the stem of a gerund.

    Lemmas (simplemma) know that "teeth" is "tooth" and keep "engineer" from "engine"; stems
    (Snowball) join "breathing", which has a lemma of its own, with "breathes". Adverbs and nouns of
    an adjective, "sadly" and "sadness", have its lemma, too.
    """
    word = word.removesuffix("'s").removesuffix("'")
    stems = {_lemma(word)}
    for ending in ("ly", "ness"):
        bare = word.removesuffix(ending)
        if bare != word and len(bare) > 2:
            stems.add(_lemma(bare[:-1] + "y" if bare.endswith("i") else bare))
    stems |= {lexicon.FAMILIES[form] for form in stems if form in lexicon.FAMILIES}
    for form in (*stems, word):
        stem = _STEMMER.stemWord(form)
        if len(form) - len(stem) <= 1 or form.endswith("ing"):
            stems.add(f"~{stem}")
    return frozenset(stems)


def _lemma(word: str) -> str:
    return simplemma.lemmatize(word, lang="en").lower()


def same(word: str, other: str) -> bool:
    """Tell whether two words are forms of one."""
    return not keys(word).isdisjoint(keys(other))


def names(word: str, label: str) -> bool:
    """Tell whether a word of an answer may stand for a label of one word.

    A noun's plural does. Of a verb and what it is to do it ("sneezing", "rain") all forms do; of
    other nouns no verb does: who trains is no train.
    """
    if not same(word, label):
        return False
    verb = label.endswith("ing") or adjective(label)
    verb |= not {form.removesuffix("s") for form in keys(label)}.isdisjoint(lexicon.VERBS)
    return verb or not word.endswith(("ing", "ed")) or word == label


def adjective(word: str) -> bool:
    """Tell whether a word goes before nouns without making a compound of them."""
    if word in lexicon.ADJECTIVES:
        return True
    return word.endswith(lexicon.ADJECTIVE_ENDINGS) and simplemma.is_known(f"{word}ly", lang="en")


def compound(noun: str, following: str) -> bool:
    """Tell whether two words are a noun of which the first only tells the kind: "cow bell".

    Not where the noun is a plural ("dogs bark") or the second word cannot head such a noun, names a
    sound ("dog bark") or says what the first does.
    """
    noun = noun.removesuffix("'s")
    singular = _lemma(noun) == noun and noun not in lexicon.FAMILIES
    if not singular or noun.endswith("ing") or adjective(noun):
        return False
    if lexicon.function_word(following) or following[:1].isdigit():
        return False
    if following.endswith(("ly", "ing", "ed")):
        return False
    return following in lexicon.TOOLS or _lemma(following) not in lexicon.HEADS_AND_VERBS
