"""Whisper's tokens: ids of the special ones, languages, and the signs that are not speech.

The numbering is that of openai/whisper (`tokenizer.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from ltu_jax.core.errors import UserError

_TIMESTAMPS = 1501  # <|0.00|> ... <|30.00|>
_ENGLISH_TEXT, _MULTILINGUAL_TEXT = 50256, 50257  # byte-pair tokens before <|endoftext|>
_MULTILINGUAL_FROM = 51865  # vocabularies from this size on have language tokens in use
_PUBLISHED = (51864, 51865, 51866)  # English, multilingual, large-v3
# <|nospeech|> is not among them: some files call it <|nocaptions|>
_NAMED = (
    "endoftext", "startoftranscript", "translate", "transcribe", "startoflm", "startofprev",
    "notimestamps",
)  # fmt: skip

# In the order of their tokens.
_LANGUAGE_CODES = """
en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr
bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn
yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su
yue
"""
LANGUAGES = tuple(_LANGUAGE_CODES.split())

# Annotations that are not speech. Notes are suppressed by their first byte token even where they
# need several; the others only where they are one token, with or without a space before them.
_NOTES = "♩♪♫♬♭♮♯"
_SIGNS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("'),
    *("((", "))", "(((", ")))", "[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ids of Whisper's special tokens; `size` tokens, which may be fewer than the table's rows."""

    size: int
    multilingual: bool
    end: int
    start: int
    languages: range
    translate: int
    transcribe: int
    start_of_lm: int
    previous: int
    no_speech: int
    no_timestamps: int
    timestamp: int  # <|0.00|>; all later ids are timestamps

    @classmethod
    def of_size(cls, n_vocab: int) -> Self:
        """The layout of OpenAI's tokenizers: 51864 English, 51865 multilingual, 51866 large-v3.

        Raises `ValueError` for any other size.
        """
        if n_vocab not in _PUBLISHED:
            raise ValueError(
                f"a Whisper vocabulary of {n_vocab} tokens is unknown; known are 51864 (English), "
                "51865 (multilingual) and 51866 (large-v3, turbo)"
            )
        return cls._numbered(n_vocab, multilingual=n_vocab >= _MULTILINGUAL_FROM)

    @classmethod
    def of_names(cls, id_of: Callable[[str], int | None], *, rows: int) -> Self:
        """The layout of a tokenizer, for a model whose table may have spare rows behind it.

        Args:
            id_of: a token's id by its name, None where there is no such token.
            rows: of the model's token table. 51864 to 51866 are OpenAI's sizes, whose layout is
                known; any other table is one of them with rows added.

        Raises `ValueError` for a tokenizer that is not Whisper's, or not of this table.
        """
        ids = {name: id_of(f"<|{name}|>") for name in _NAMED}
        lost = [name for name, index in ids.items() if index is None]
        if lost:
            raise ValueError(f"it lacks the special tokens of Whisper: <|{lost[0]}|>")
        count = ids["translate"] - ids["startoftranscript"] - 1
        texts = ids["endoftext"]
        if texts not in (_ENGLISH_TEXT, _MULTILINGUAL_TEXT) or not 0 < count <= len(LANGUAGES):
            raise ValueError(
                f"<|endoftext|> is {texts} and there are {count} languages, which no Whisper has"
            )
        size = ids["notimestamps"] + 1 + _TIMESTAMPS
        # OpenAI's numbering rule: everything follows from the number of languages
        vocabulary = cls._numbered(size, multilingual=texts == _MULTILINGUAL_TEXT)
        rule = {
            "endoftext": vocabulary.end,
            "startoftranscript": vocabulary.start,
            "translate": vocabulary.translate,
            "transcribe": vocabulary.transcribe,
            "startoflm": vocabulary.start_of_lm,
            "startofprev": vocabulary.previous,
            "notimestamps": vocabulary.no_timestamps,
        }
        wrong = [name for name in _NAMED if ids[name] != rule[name]]
        if wrong:
            raise ValueError(f"<|{wrong[0]}|> is {ids[wrong[0]]}, expected {rule[wrong[0]]}")
        for code, index in zip(LANGUAGES, vocabulary.languages, strict=False):
            if id_of(f"<|{code}|>") not in (None, index):
                raise ValueError(f"<|{code}|> is {id_of(f'<|{code}|>')}, expected {index}")
        if size > rows or (rows in _PUBLISHED and vocabulary != cls.of_size(rows)):
            raise ValueError(f"it has {size} tokens, timestamps included, the table {rows} rows")
        return vocabulary

    @classmethod
    def _numbered(cls, size: int, *, multilingual: bool) -> Self:
        end = _MULTILINGUAL_TEXT if multilingual else _ENGLISH_TEXT
        task = size - _TIMESTAMPS - 6
        return cls(
            size=size,
            multilingual=multilingual,
            end=end,
            start=end + 1,
            languages=range(end + 2, task),
            translate=task,
            transcribe=task + 1,
            start_of_lm=task + 2,
            previous=task + 3,
            no_speech=task + 4,
            no_timestamps=task + 5,
            timestamp=task + 6,
        )

    def prompt(
        self, *, language: str | None, timestamps: bool, task: str = "transcribe"
    ) -> list[int]:
        """The prompt of a task, "transcribe" or "translate".

        English-only models take no language and no task token. Raises `UserError` for a language
        the model does not know.
        """
        ids = [self.start]
        if self.multilingual:
            ids += [
                self.language_id(language),
                self.translate if task == "translate" else self.transcribe,
            ]
        return ids if timestamps else [*ids, self.no_timestamps]

    def language_id(self, language: str | None) -> int:
        """The token of a language code such as "en"."""
        known = LANGUAGES[: len(self.languages)]
        if language not in known:
            raise UserError(f"language {language!r} is unknown; known are {', '.join(known)}")
        return self.languages[known.index(language)]


def non_speech_ids(encode: Callable[[str], list[int]]) -> list[int]:
    """Tokens of brackets, quotes and notes, with which Whisper annotates, not transcribes."""
    # Fine inside a word; at the start of one, a dash or an apostrophe opens a line of dialogue.
    ids = {encode(" -")[0], encode(" '")[0]}
    for sign in (*_SIGNS, *_NOTES):
        for tokens in (encode(sign), encode(f" {sign}")):
            if len(tokens) == 1 or sign in _NOTES:
                ids.add(tokens[0])
    return sorted(ids)
