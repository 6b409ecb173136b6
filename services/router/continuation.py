"""A second answer for somebody who has read the beginning of a first: only what follows that beginning, and only if it begins alike.

Words of two answers are never mixed: where the second one differs from what was read, or what was read is more than plain text, it ends.
Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router.answer import Events
from services.runtime.errors import GatewayError
from services.wire.assemble import chunks_of
from services.wire.fields import NULL, decode_members

# All that a delta or a choice may have to be compared by its text; besides, nulls that say nothing.
_PLAIN_DELTA = frozenset({"role", "text", "extra_json"})
_PLAIN_CHOICE = frozenset({"index", "delta", "finish_reason", "extra_json"})


@dataclass(slots=True)
class _Read:
    """What was read of one choice and has not come again yet."""

    text: str = ""
    finish_reason: int = chat_pb2.FINISH_REASON_UNSPECIFIED
    has_role: bool = False


class Continuation:
    """Takes the second answer from its first event."""

    def __init__(self, said: Iterable[chat_pb2.ChatEvent]) -> None:
        self._read: dict[int, _Read] = {}
        self._has_usage = False
        for chunk in _chunks(said):
            self._has_usage |= not chunk.choices
            for choice in chunk.choices:
                self._note(choice)

    def _note(self, choice: chat_pb2.ChunkChoice) -> None:
        if not _is_plain(choice):
            raise _differs()
        read = self._read.setdefault(choice.index, _Read())
        read.text += choice.delta.text
        read.finish_reason = choice.finish_reason or read.finish_reason
        read.has_role |= bool(choice.delta.role)

    def rest(self, events: Events) -> list[chat_pb2.ChatEvent]:
        """What of these events has not been read yet. Raises GatewayError where they differ from what was."""
        rest = []
        for chunk in _chunks(events):
            if not chunk.choices:
                self.finish()
                if not self._has_usage:
                    rest.append(chat_pb2.ChatEvent(chunk=chunk))
                continue
            left = [choice for choice in map(self._unread, chunk.choices) if choice is not None]
            if left:
                new = chat_pb2.ChatCompletionChunk()
                new.CopyFrom(chunk)
                del new.choices[:]
                new.choices.extend(left)
                rest.append(chat_pb2.ChatEvent(chunk=new))
        return rest

    def finish(self) -> None:
        """The second answer is over. Raises GatewayError when it is shorter than what was read."""
        if any(read.text or read.finish_reason for read in self._read.values()):
            raise _differs()

    def _unread(self, choice: chat_pb2.ChunkChoice) -> chat_pb2.ChunkChoice | None:
        read = self._read.get(choice.index)
        if read is None:
            return choice
        is_behind = bool(read.text) or bool(read.finish_reason)
        if is_behind and not _is_plain(choice):
            raise _differs()
        repeats_role = read.has_role and bool(choice.delta.role)
        if not is_behind and not repeats_role:
            return choice
        new = chat_pb2.ChunkChoice()
        new.CopyFrom(choice)
        if repeats_role:
            new.delta.role = chat_pb2.ROLE_UNSPECIFIED
        if is_behind:
            self._match(read, new)
        return None if _is_plain(new) and not new.delta.text and not new.finish_reason else new

    @staticmethod
    def _match(read: _Read, new: chat_pb2.ChunkChoice) -> None:
        """Takes from `new` what was read. Raises GatewayError where the two differ."""
        text = new.delta.text
        size = min(len(read.text), len(text))
        if read.text[:size] != text[:size]:
            raise _differs()
        read.text = read.text[size:]
        if len(text) > size and read.finish_reason:
            raise _differs()
        new.delta.text = text[size:]
        if not new.finish_reason:
            return
        if read.text or (read.finish_reason and read.finish_reason != new.finish_reason):
            raise _differs()
        if read.finish_reason:
            new.finish_reason = chat_pb2.FINISH_REASON_UNSPECIFIED
            read.finish_reason = chat_pb2.FINISH_REASON_UNSPECIFIED


def _chunks(events: Iterable[chat_pb2.ChatEvent]) -> Iterable[chat_pb2.ChatCompletionChunk]:
    for event in events:
        if event.HasField("chunk"):
            yield event.chunk
        else:
            yield from chunks_of(event.completion, with_usage=True)


def _is_plain(choice: chat_pb2.ChunkChoice) -> bool:
    fields = {field.name for field, _ in choice.ListFields()}
    delta_fields = {field.name for field, _ in choice.delta.ListFields()}
    if not (fields <= _PLAIN_CHOICE and delta_fields <= _PLAIN_DELTA):
        return False
    extras = [extra for extra in (choice.extra_json, choice.delta.extra_json) if extra]
    return all(raw == NULL for extra in extras for raw in decode_members(extra).values())


def _differs() -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_STREAM_CUT, "The answer broke off, and the next one did not begin as this one did.")
