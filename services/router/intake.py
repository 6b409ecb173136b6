"""Turns what arrives on a public method into a Question."""

import time
from collections.abc import Collection

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router import controls, wishes
from services.router.callers import Callers
from services.router.controls import SEMANTIC, cache_controls
from services.router.question import Question, Rewordable, entry_key, extensions, for_providers
from services.router.wishes import read_wishes, unmet
from services.runtime import interceptors
from services.runtime.errors import GatewayError
from services.runtime.identity import Caller
from services.runtime.interceptors import Context
from services.runtime.tracing import carried_metadata
from services.wire import openai
from services.wire.errors import InvalidRequest
from services.wire.fields import without_extra

_HONOURED = controls.FIELDS | wishes.FIELDS


class Intake:
    """Reads requests: who asks, what, and under which conditions."""

    def __init__(
        self,
        callers: Callers,
        cache_enabled: bool,
        request_timeout_s: float,
        cache_mode: str = SEMANTIC,
        public_namespaces: Collection[str] = (),
    ) -> None:
        self._callers = callers
        self._cache_enabled = cache_enabled
        self._request_timeout_s = request_timeout_s
        self._cache_mode = cache_mode
        self.public_namespaces = frozenset(public_namespaces)

    async def caller(self, context: Context) -> Caller:
        """Who calls a method that takes no question. Raises GatewayError as Callers does."""
        return await self._callers.caller(_headers(context))

    async def from_json(self, body: bytes, context: Context) -> Question:
        """The question in an OpenAI body. Raises GatewayError."""
        headers = _headers(context)
        # Identity first: a stranger learns nothing of what is wrong with a body.
        caller = await self._callers.caller(headers)
        try:
            request = openai.decode_request(body)
        except InvalidRequest as error:
            raise _invalid(error) from None
        return self._question(request, caller, headers, context)

    async def from_message(self, request: chat_pb2.ChatRequest, wants_stream: bool, context: Context) -> Question:
        """The question in a typed request. Raises GatewayError."""
        headers = _headers(context)
        caller = await self._callers.caller(headers)
        try:
            checked = openai.checked_request(request)
        except InvalidRequest as error:
            raise _invalid(error) from None
        # Which method was called decides; what was written beside the typed field would win over it.
        checked.extra_json = without_extra(checked.extra_json, {"stream"})
        checked.stream = wants_stream
        return self._question(checked, caller, headers, context)

    def _question(self, request: chat_pb2.ChatRequest, caller: Caller, headers: dict[str, str], context: Context) -> Question:
        taken = extensions(request)
        cached = cache_controls(headers, taken, self._cache_enabled, self._cache_mode)
        wished = read_wishes(headers, taken)
        remaining = context.time_remaining()
        timeout = self._request_timeout_s if remaining is None else min(remaining, self._request_timeout_s)
        return Question(
            request_id=interceptors.request_id.get(),
            request=for_providers(request, taken),
            model=request.model,
            key=entry_key(request, caller, cached, self.public_namespaces, wished.pinned),
            caller=caller,
            controls=cached,
            wishes=wished,
            warnings=unmet(taken, _HONOURED),
            trace=carried_metadata(context),
            arrived_at=time.monotonic(),
            timeout_s=timeout,
            wording=Rewordable(request, cached, wished.pinned),
        )


def _headers(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _invalid(error: InvalidRequest) -> GatewayError:
    metadata = {"param": error.param} if error.param else {}
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, str(error), metadata)
