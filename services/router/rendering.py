"""Answers as OpenAI's JSON and SSE, with the gateway's additions: headers, `x-gateway`, and `x-joulegate` on a final usage chunk."""

from collections.abc import AsyncIterator

import msgspec

from joulegate.chat.v1 import chat_pb2, receipt_pb2
from services.router import explanation
from services.router.answer import Answer, Source, completion_id
from services.router.decision import Decision
from services.router.question import Question
from services.runtime.errors import GatewayError
from services.wire import openai, sse
from services.wire.assemble import chunks_of

MAX_HEADER_TEXT = 4096
Headers = list[tuple[str, str]]

_STATUS = {
    receipt_pb2.CACHE_STATUS_HIT_EXACT: "hit-exact",
    receipt_pb2.CACHE_STATUS_HIT_SEMANTIC: "hit-semantic",
    receipt_pb2.CACHE_STATUS_MISS: "miss",
    receipt_pb2.CACHE_STATUS_BYPASS: "bypass",
    receipt_pb2.CACHE_STATUS_COALESCED: "coalesced",
}
_BASIS = {basis: name.removeprefix("ENERGY_BASIS_").lower() for name, basis in receipt_pb2.EnergyBasis.items()}


def source_headers(question: Question, source: Source) -> Headers:
    """What can be said before the answer: where it comes from."""
    headers = [
        ("x-request-id", question.request_id),
        ("x-joulegate-provider", _header_text(source.provider)),
        ("x-joulegate-model", _header_text(source.model)),
        ("x-joulegate-cache", _STATUS[source.cache_status]),
    ]
    if source.similarity is not None:
        headers.append(("x-joulegate-cache-similarity", f"{source.similarity:.3f}"))
    if source.age_s is not None:
        headers.append(("age", str(source.age_s)))
    if source.entry_id:
        headers.append(("x-joulegate-cache-entry", source.entry_id))
    if question.warnings or source.warnings:
        headers.append(("x-joulegate-warnings", _header_text(", ".join([*question.warnings, *source.warnings]))))
    if source.downgraded_to:
        headers.append(("x-joulegate-downgraded-to", _header_text(source.downgraded_to)))
    headers += question.ticket.rate_headers
    return headers


def figure_headers(receipt: receipt_pb2.Receipt) -> Headers:
    """What it cost, where the books have said."""
    headers: Headers = []
    if receipt.HasField("cost_nano_usd"):
        headers.append(("x-joulegate-cost-usd", usd(receipt.cost_nano_usd)))
    if receipt.HasField("energy"):
        headers.append(("x-joulegate-energy-joules", joules(receipt.energy.microjoules)))
    return headers


def usd(nano: int) -> str:
    """Billionths of a dollar as exact decimal text."""
    return f"{nano // 10**9}.{nano % 10**9:09d}"


def joules(micro: int) -> str:
    """Millionths of a joule as exact decimal text."""
    return f"{micro // 10**6}.{micro % 10**6:06d}"


def whole(completion: chat_pb2.ChatCompletion, source: Source, receipt: receipt_pb2.Receipt, latency_s: float) -> bytes:
    """The body of an unstreamed answer."""
    gateway: dict[str, object] = {
        "request_id": receipt.request_id,
        "provider": source.provider,
        "model": source.model,
        "routing_decision": source.decision,
        **_routing(source.routing),
        "latency_ms": round(latency_s * 1000, 1),
        "cost_usd": receipt.cost_nano_usd / 1e9 if receipt.HasField("cost_nano_usd") else None,
        **_energy(receipt),
        "cache_hit": source.age_s is not None or source.cache_status == receipt_pb2.CACHE_STATUS_COALESCED,
        "fallback_used": source.failed_attempts > 0,
    }
    if not completion.id:
        completion = _copy(completion)
        completion.id = completion_id(receipt.request_id)
    return openai.encode_completion(completion, additions={"x-gateway": msgspec.json.encode(gateway)})


def _routing(decision: Decision | None) -> dict[str, object]:
    """What the router found out, and, for who asked, all of it."""
    if decision is None:
        return {}
    told: dict[str, object] = {
        "routing_strategy": decision.strategy.value,
        "router_score": None if decision.complexity is None else decision.complexity.score,
        "relaxed": [criterion.value for criterion in decision.relaxed],
    }
    return told | {"explanation": explanation.document(decision)} if decision.wants_explanation else told


def _energy(receipt: receipt_pb2.Receipt) -> dict[str, object]:
    """The estimate, its range, and what it rests on: a figure without them says more than is known."""
    if not receipt.HasField("energy"):
        return {"energy_joules": None}
    energy = receipt.energy
    own = receipt.gateway_energy_microjoules / 1e6 if receipt.HasField("gateway_energy_microjoules") else None
    return {
        "energy_joules": energy.microjoules / 1e6,
        "energy_joules_low": energy.low_microjoules / 1e6,
        "energy_joules_high": energy.high_microjoules / 1e6,
        "energy_basis": _BASIS[energy.basis],
        "gateway_energy_joules": own,
    }


def _copy(completion: chat_pb2.ChatCompletion) -> chat_pb2.ChatCompletion:
    copied = chat_pb2.ChatCompletion()
    copied.CopyFrom(completion)
    return copied


async def frames(answer: Answer, with_usage: bool) -> AsyncIterator[bytes]:
    """A streamed answer as SSE bytes, one piece per batch. An error after the first frame becomes an SSE error event, and no `[DONE]`."""
    final: chat_pb2.ChatCompletionChunk | None = None
    try:
        async for events in answer.batches():
            piece = []
            for event in events:
                for chunk in [event.chunk] if event.HasField("chunk") else chunks_of(event.completion, with_usage=True):
                    if chunk.HasField("usage") and not chunk.choices:
                        final = chunk
                    else:
                        piece.append(sse.encode(openai.encode_chunk(chunk, with_usage=with_usage)))
            if piece:
                yield b"".join(piece)
    except GatewayError as error:
        yield sse.encode(error.openai_body())
        return
    receipt = await answer.receipt()
    if with_usage:
        yield sse.encode(_final_chunk(final or answer.usage_chunk(), receipt, answer.source.routing)) + sse.DONE
    else:
        yield sse.DONE


def _final_chunk(chunk: chat_pb2.ChatCompletionChunk, receipt: receipt_pb2.Receipt, routing: Decision | None) -> bytes:
    figures: dict[str, object] = {"request_id": receipt.request_id, "provider": receipt.provider, "model": receipt.model}
    if receipt.HasField("cost_nano_usd"):
        figures["cost_usd"] = receipt.cost_nano_usd / 1e9
    figures |= _energy(receipt)
    if routing is not None and routing.wants_explanation:
        figures |= {"routing_decision": routing.text, **_routing(routing)}
    return openai.encode_chunk(chunk, additions={"x-joulegate": msgspec.json.encode(figures)})


def _header_text(text: str) -> str:
    """Header values are printable ASCII of some length: a model's name, or that of a field, can be anything."""
    if not (text.isascii() and text.isprintable()):
        text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= MAX_HEADER_TEXT else f"{text[: MAX_HEADER_TEXT - 3]}..."
