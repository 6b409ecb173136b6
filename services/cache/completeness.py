"""Which answers are whole, so that serving them again is no lie."""

from joulegate.cache.v1 import cache_service_pb2 as pb
from joulegate.chat.v1 import chat_pb2

# A tool call ends an answer as a full stop does: the model said all it had to say. LENGTH is an answer cut short, CONTENT_FILTER one that
# a filter stopped, which may decide otherwise the next time; a reason we do not know says nothing about the answer.
_COMPLETE = frozenset(
    (
        chat_pb2.FINISH_REASON_STOP,
        chat_pb2.FINISH_REASON_TOOL_CALLS,
        chat_pb2.FINISH_REASON_FUNCTION_CALL,
    )
)


def shortcoming(entry: pb.Entry) -> str | None:
    """Why an entry's answer is not complete; None when it is."""
    choices = entry.completion.choices
    if not choices:
        return "the answer has no choices"
    for choice in choices:
        if choice.finish_reason not in _COMPLETE:
            return f"choice {choice.index} is not complete: finish_reason is {_name(choice.finish_reason)}"
    return None


def _name(reason: int) -> str:
    return chat_pb2.FinishReason.Name(reason) if reason in chat_pb2.FinishReason.values() else str(reason)  # type: ignore[arg-type]
