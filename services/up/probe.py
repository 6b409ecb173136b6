"""Whether something answers: gRPC health and HTTP, over a socket or a port."""

from pathlib import Path

import grpc
import httpx
from grpc_health.v1 import health_pb2


async def is_serving(address: str, service: str = "", timeout_s: float = 1.0) -> bool:
    """Whether grpc.health.v1 at `address` says SERVING for `service`; empty means the process."""
    async with grpc.aio.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING


async def succeeds(method: str, url: str, socket: Path | None = None, timeout_s: float = 1.0) -> bool:
    """Whether an HTTP request, over a Unix socket if one is given, is answered with 2xx."""
    # A transport of our own keeps the machine's proxies out. Nothing here speaks TLS; to load its certificates takes longer than to ask.
    transport = httpx.AsyncHTTPTransport(uds=str(socket) if socket else None, verify=False)
    async with httpx.AsyncClient(transport=transport, timeout=timeout_s) as client:
        try:
            return (await client.request(method, url)).is_success
        except httpx.TransportError:
            return False
