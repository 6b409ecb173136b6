"""Turns what arrives on a public method into a Question."""

import time
from collections.abc import Collection
from functools import cache, partial

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router.callers import Callers
from services.router.controls import SEMANTIC, cache_controls, preferred_provider, routing_strategy, unmet_wishes, wants_hedge
from services.router.question import Question, entry_key, extensions, for_providers, wording
from services.router.ranking import Strategy
from services.runtime import interceptors
from services.runtime.errors import GatewayError
from services.runtime.identity import Caller
from services.runtime.interceptors import Context
from services.runtime.tracing import carried_metadata
from services.wire import openai
from services.wire.errors import InvalidRequest
from services.wire.fields import without_extra


class Intake:
    """Reads requests: who asks, what, and under which conditions."""

    def __init__(
        self,
        callers: Callers,
        cache_enabled: bool,
        request_timeout_s: float,
        default_strategy: Strategy = Strategy.FALLBACK,
        cache_mode: str = SEMANTIC,
        public_namespaces: Collection[str] = (),
    ) -> None:
        self._callers = callers
        self._cache_enabled = cache_enabled
        self._request_timeout_s = request_timeout_s
        self.default_strategy = default_strategy
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
        controls = cache_controls(headers, taken, self._cache_enabled, self._cache_mode)
        strategy = routing_strategy(taken, self.default_strategy)
        remaining = context.time_remaining()
        timeout = self._request_timeout_s if remaining is None else min(remaining, self._request_timeout_s)
        return Question(
            request_id=interceptors.request_id.get(),
            request=for_providers(request, taken),
            model=request.model,
            key=entry_key(request, caller, controls, self.public_namespaces),
            caller=caller,
            controls=controls,
            preferred_provider=preferred_provider(taken),
            strategy=strategy,
            warnings=unmet_wishes(taken, self.default_strategy),
            trace=carried_metadata(context),
            arrived_at=time.monotonic(),
            timeout_s=timeout,
            wants_hedge=wants_hedge(headers, strategy),
            wording=cache(partial(wording, request, controls)),
        )


def _headers(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _invalid(error: InvalidRequest) -> GatewayError:
    metadata = {"param": error.param} if error.param else {}
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, str(error), metadata)
