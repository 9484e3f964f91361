"""A conversation as the model reads it: the paper's prompt, once for every turn.

All clips stand in front, in order. Each turn of the user is the prompt of a single question
(`preprocessing.text.prompt`), the answer to it follows, then a blank line and the next turn:

    ### Instruction:\\n{question}\\n\\n### Input:\\n{spoken text}\\n\\n### Response:\\n
    {answer}\\n\\n### Instruction:\\n{question}\\n\\n### Response:\\n

The spoken text of a clip stands in the turn that the clip came with, nowhere else. Where there are
several clips its line begins "Audio 2: ". Instructions of the system stand in front of the first
question, a blank line between. With one turn and one clip this is exactly the paper's prompt.
"""

from collections.abc import Sequence

from ltu_jax.preprocessing.text import prompt
from ltu_jax.preprocessing.tokenizer import Tokenizer
from ltu_jax.serving.api_error import bad
from ltu_jax.serving.chat_messages import ChatTurn


def conversation_text(turns: Sequence[ChatTurn], spoken_texts: Sequence[str]) -> str:
    """Return the text of a conversation whose clips say `spoken_texts`.

    Raises:
        ApiError: a turn of the user without a question.
    """
    remaining, several = iter(enumerate(spoken_texts, start=1)), len(spoken_texts) > 1
    parts, instructions = [], ""
    for turn in turns:
        if turn.role == "system":
            instructions = f"{turn.text}\n\n"
            continue
        if turn.role == "assistant":
            parts.append(f"{turn.text}\n\n")
            continue
        if not turn.text.strip():
            raise bad("messages", "a turn of the user has no text; ask something about the clip")
        heard = [next(remaining) for _ in turn.clips]
        lines = [f"Audio {number}: {text}" if several else text for number, text in heard if text]
        parts.append(prompt(instructions + turn.text, "\n".join(lines)))
        instructions = ""
    return "".join(parts)


def conversation_ids(
    turns: Sequence[ChatTurn], spoken_texts: Sequence[str], *, tokenizer: Tokenizer
) -> tuple[int, ...]:
    """Return BOS and the ids of `conversation_text`."""
    return (tokenizer.bos_id, *tokenizer.encode(conversation_text(turns, spoken_texts)))
