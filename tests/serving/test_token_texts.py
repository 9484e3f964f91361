"""The text and bytes of single tokens."""

from ltu_jax.preprocessing.tokenizer import load_tokenizer
from ltu_jax.serving.token_texts import TokenTexts


def test_tokens_have_the_bytes_of_their_text(golden):
    tokenizer = load_tokenizer(golden / "text_cases" / "spm320.model")
    texts = TokenTexts(tokenizer)
    said = " caf\u00e9 \u4f60 \U0001f3b5"
    ids = tokenizer.encode(said[1:])  # sentencepiece puts a space in front
    assert b"".join(texts.data(one) for one in ids) == said.encode()
    assert texts.special(tokenizer.eos_id) and not texts.special(ids[-1])
