"""What is asked of a model about many subjects, and how far the ledger has got with each."""

import dataclasses
import enum
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from ltu_jax.clients.call_ledger import CallLedger, RequestRecord
from ltu_jax.clients.chat import ChatReply, CompletionRequest

_CHUNK = 256  # conversations that are looked up together


class Conversation(Protocol):
    """What is asked about one subject, one request after the other."""

    def next_request(self, replies: Sequence[ChatReply]) -> CompletionRequest | None:
        """Return what to ask after these replies; None when all was asked."""

    def problem(self, reply: ChatReply) -> str:
        """Return why a reply cannot be used; "" if it can."""


class ConversationState(enum.Enum):
    """How far a conversation is."""

    DONE = enum.auto()  # all was asked and answered
    WAITING = enum.auto()  # in a batch file
    GIVEN_UP = enum.auto()  # too many replies that cannot be used
    OPEN = enum.auto()  # there is something to ask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """A conversation as the ledger has it: its replies, and the request that comes next."""

    conversation: Conversation
    replies: tuple[ChatReply, ...]
    request: CompletionRequest | None
    record: RequestRecord
    state: ConversationState


def standings(
    conversations: Iterable[Conversation], ledger: CallLedger, *, tries: int
) -> Iterator[Standing]:
    """Yield how far each conversation is; many are looked up at once.

    Args:
        conversations: in any order, which is kept.
        ledger: with the replies.
        tries: replies that cannot be used after which a request is given up.
    """
    source = iter(conversations)
    while chunk := list(itertools.islice(source, _CHUNK)):
        first = [(conversation, conversation.next_request(())) for conversation in chunk]
        records = ledger.look_up([asked.key for _, asked in first if asked is not None])
        for conversation, asked in first:
            record = None if asked is None else records[asked.key]
            yield _follow(conversation, (), asked, record, ledger=ledger, tries=tries)


def advanced(standing: Standing, ledger: CallLedger, *, tries: int) -> Standing:
    """Return how far a conversation is now that its request has a record."""
    return _follow(
        standing.conversation, standing.replies, standing.request, None, ledger=ledger, tries=tries
    )


def _follow(
    conversation: Conversation,
    replies: tuple[ChatReply, ...],
    request: CompletionRequest | None,
    record: RequestRecord | None,
    *,
    ledger: CallLedger,
    tries: int,
) -> Standing:
    while request is not None:
        if record is None:
            record = ledger.look_up([request.key])[request.key]
        if record.answer is None:
            break
        replies = (*replies, record.answer)
        request, record = conversation.next_request(replies), None
    if request is None:
        state = ConversationState.DONE
    elif record.batch:
        state = ConversationState.WAITING
    else:
        state = ConversationState.GIVEN_UP if record.refused >= tries else ConversationState.OPEN
    return Standing(
        conversation=conversation,
        replies=replies,
        request=request,
        record=record or RequestRecord(),
        state=state,
    )
