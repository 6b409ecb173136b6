"""The seam between attempts and whatever answers: a provider over HTTP, or the demo."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb


class Batch(NamedTuple):
    """Events that arrived together; none follow after the last batch."""

    events: Sequence[chat_pb2.ChatEvent]
    is_last: bool


class Answer(Protocol):
    """One call, from before it goes out until its answer is complete."""

    @property
    def warnings(self) -> Sequence[str]:
        """What of the request did not reach the provider, and why. Known after the first read."""
        ...

    async def read(self) -> Batch:
        """The next events, at least one unless it is the last batch. The first read makes the call. Raises Failure."""
        ...

    def close(self) -> None:
        """Ends the call; one that is not complete is broken off at once."""
        ...


class Backend(Protocol):
    """Whatever answers for a provider."""

    def call(self, request: chat_pb2.ChatRequest, model: str, headers: Mapping[str, str]) -> Answer:
        """A call that has not gone out yet. `headers` are sent with it: the trace context."""
        ...

    async def list_models(self) -> Sequence[pb.Model]:
        """The models that can be asked for. Raises Failure."""
        ...
