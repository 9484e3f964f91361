"""Text that comes in pieces, against the whole text decoded at once."""

import numpy as np
import pytest

from ltu_jax.generation.answer_text import AnswerText
from ltu_jax.preprocessing.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(golden):
    return load_tokenizer(golden / "text_cases" / "spm320.model")


def pieces(tokenizer, ids, *, stop=()):
    """All pieces up to the end or the stop string, and that string."""
    text, made = AnswerText(tokenizer, stop=stop), []
    for token in ids:
        made.append(text.push(token))
        if text.stopped is not None:
            break
    return [*made, text.flush()], text.stopped


def test_pieces_joined_are_the_decoded_text(tokenizer):
    rng = np.random.default_rng(0)
    spoken = tokenizer.encode("  A man says: caf\u00e9 \u4f60\u597d, \U0001f3b5 \n and stops. \n ")
    for _ in range(60):
        cut = sorted(rng.integers(0, len(spoken), size=2))
        plain = rng.integers(3, tokenizer.vocab_size, size=rng.integers(0, 9)).tolist()
        plain = [one for one in plain if not (tokenizer.token(one) or "").startswith("<0x")]
        ids = [*spoken[cut[0] :], *plain, *spoken[: cut[1]], *spoken]
        ids = ids[: int(rng.integers(1, len(ids) + 1))]
        if tokenizer.decode(ids).count("\ufffd") > tokenizer.decode(ids[-3:]).count("\ufffd"):
            continue  # a character cut in the middle of the text: no prefix of it is settled
        got, _ = pieces(tokenizer, ids)
        assert "".join(got) == tokenizer.decode(ids).strip()


def test_only_the_newest_tokens_are_decoded(tokenizer):
    class Counting:
        longest = 0

        def decode(self, ids):
            self.longest = max(self.longest, len(ids))
            return tokenizer.decode(ids)

    counting = Counting()
    ids = tokenizer.encode("one two three four five six seven \u4f60\u597d " * 8)
    got, _ = pieces(counting, ids)
    assert "".join(got) == tokenizer.decode(ids).strip()
    assert counting.longest < 24 < len(ids)


def test_what_is_shown_is_never_half_a_character_or_a_stop_string_begun(tokenizer):
    ids = tokenizer.encode("so\U0001f3b5 it ENDs or ENDS here")
    got, stopped = pieces(tokenizer, ids, stop=("ENDS",))
    assert stopped == "ENDS"
    assert "".join(got) == "so\U0001f3b5 it ENDs or"
    shown = ""
    for piece in got:
        shown += piece
        assert "\ufffd" not in shown and not shown.endswith(("E", "EN", "END", " "))


def test_stop_strings_end_the_text_where_the_first_is_complete(tokenizer):
    """However tokens cut the text: against a search in the whole of it, letter by letter."""
    rng = np.random.default_rng(1)
    whole = "the cat sat on the mat and then the other cat sat there too"
    for _ in range(60):
        stop = tuple(
            whole[start : start + size]
            for start, size in zip(
                rng.integers(4, 50, size=3), rng.integers(1, 7, size=3), strict=True
            )
            if whole[start : start + size].strip()
        )
        first = [(whole.find(one) + len(one), whole.find(one), one) for one in stop]
        got, stopped = pieces(tokenizer, tokenizer.encode(whole), stop=stop)
        if first:
            _, start, _ = min(first)
            assert "".join(got) == whole[:start].rstrip(), stop
            assert stopped in stop
        else:
            assert stopped is None and "".join(got) == whole
