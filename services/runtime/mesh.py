"""What a service is built on: a place for its handlers and channels to the others, whether they live in this process or behind a socket."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Protocol

import grpc

from services.runtime.local import LocalChannel
from services.runtime.own_cpu import NO_CPU, OwnCpu
from services.runtime.registry import Registry
from services.runtime.session import SessionChannel
from services.runtime.tracing import Tracing

# Image inputs travel inside requests: Envoy takes bodies of 32 MiB, and base64 in JSON in protobuf adds nothing much.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Channels to one address share no state: a peer's restart is seen by each on its own.
    ("grpc.use_local_subchannel_pool", 1),
]


class Mesh(Protocol):
    """The surroundings of a service."""

    @property
    def registry(self) -> Registry:
        """Where servicers are added."""
        ...

    @property
    def draining(self) -> asyncio.Event:
        """Set when the process was told to stop: end long-lived streams of other processes soon."""
        ...

    @property
    def tracing(self) -> Tracing: ...

    def channel(self, service: str) -> grpc.aio.Channel:
        """A channel to `router`, `cache`, `dispatch` or `ledger`. The mesh closes it."""
        ...

    def own_cpu(self, service: str) -> OwnCpu:
        """Where a service takes what falls to a request; each second of a process is taken once."""
        ...


class RemoteMesh:
    """Each service in a process of its own."""

    def __init__(self, registry: Registry, addresses: Mapping[str, str], tracing: Tracing, stack: AsyncExitStack) -> None:
        self.registry = registry
        self.draining = asyncio.Event()
        self.tracing = tracing
        self._addresses = addresses
        self._stack = stack
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._own_cpu = OwnCpu(time.process_time_ns, time.monotonic_ns)

    def own_cpu(self, service: str) -> OwnCpu:
        return self._own_cpu

    def channel(self, service: str) -> grpc.aio.Channel:
        channel = self._channels.get(service)
        if channel is None:
            channel = connect(self._addresses[service], self.tracing)
            self._channels[service] = channel
            self._stack.push_async_callback(channel.close)
        return channel


class LocalMesh:
    """All services in one process: every channel leads to the one registry."""

    def __init__(self, registry: Registry, tracing: Tracing) -> None:
        self.registry = registry
        self.draining = asyncio.Event()
        self.tracing = tracing
        self._own_cpu = OwnCpu(time.process_time_ns, time.monotonic_ns)

    def channel(self, service: str) -> grpc.aio.Channel:
        return LocalChannel(self.registry)

    def own_cpu(self, service: str) -> OwnCpu:
        return self._own_cpu if service == "router" else NO_CPU


def connect(address: str, tracing: Tracing) -> grpc.aio.Channel:
    """A channel to another process: a session, or plain RPCs where they are to be traced."""
    interceptors = tracing.client_interceptors()
    channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS, interceptors=interceptors)
    return channel if tracing.is_enabled else SessionChannel(channel)
