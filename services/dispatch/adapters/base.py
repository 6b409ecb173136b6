"""What a dialect is: a typed request becomes bytes, and the bytes of the answer become events."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.failure import Failure


class WireRequest(NamedTuple):
    """An HTTP request less what belongs to the provider: its address and its key."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    # What was left out because the dialect has no word for it and the answer is as good without: for `x-joulegate-warnings`.
    warnings: tuple[str, ...] = ()


class Reply(NamedTuple):
    """What is known of an answer before its body; all but the type is for dialects whose answers do not say it."""

    content_type: str
    id: str
    # Seconds since 1970.
    created: int
    # The target's, as it was asked; empty where the caller cannot tell.
    model: str = ""


class StreamDecoder(Protocol):
    """Reads one answer. Both methods raise Failure where the answer is an error, is cut, or makes no sense."""

    @property
    def is_done(self) -> bool:
        """Whether the answer said itself that it is complete; what follows is of no interest."""
        ...

    def feed(self, data: bytes) -> Iterator[chat_pb2.ChatEvent]:
        """The events that `data`, any piece of the body, completes. Events before a failure are given first."""
        ...

    def close(self) -> Iterator[chat_pb2.ChatEvent]:
        """The events that the end of the body completes."""
        ...


class Adapter(Protocol):
    """One dialect. It never adds, drops or reorders what the user said, but for what its docstring says."""

    @property
    def models_path(self) -> str:
        """Where models are listed."""
        ...

    def authorization(self, key: str) -> Mapping[str, str]:
        """The headers that show the key."""
        ...

    def encode(self, request: chat_pb2.ChatRequest, model: str) -> WireRequest:
        """The request for `model`; its own model may be a name that only the gateway knows.

        Raises Failure of kind UNSUPPORTED, with `param`, for what the dialect cannot say and that matters.
        """
        ...

    def decoder(self, request: chat_pb2.ChatRequest, reply: Reply) -> StreamDecoder:
        """For the answer to `request`, once its headers came."""
        ...

    def decode_error(self, status: int, body: bytes) -> Failure:
        """What an answer with an error status says, whatever its body looks like."""
        ...

    def decode_models(self, body: bytes) -> Sequence[pb.Model]:
        """The listed models. Raises Failure when the body is no list of models."""
        ...
