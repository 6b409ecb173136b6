"""A ledger that books nothing: it lets everybody in and acknowledges at once, so what is measured is the way there and back.

    python bench/echo_ledger.py ADDRESS [FILE]

With a file, it first appends what came meanwhile to it and waits for the disk: the least that an acknowledgement takes which is durable.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1 import ledger_service_pb2_grpc as pb_grpc
from joulegate.ledger.v1.reservation_pb2 import Amounts, Grant

# Some pages of a log, as a commit of the books writes them.
PAGES = b"\0" * (4096 * 11)
# The log begins anew there, as that of the books does: a file that grows has the disk do more.
LOG_BYTES = 32 * 2**20


class EchoServicer(pb_grpc.LedgerServiceServicer):
    """Acknowledges, after a write to the disk where there is a file."""

    def __init__(self, file: int | None) -> None:
        self._file = file

    async def Book(
        self, request_iterator: AsyncIterator[pb.BookRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        yield pb.BookResponse(ready=pb.Ready())
        came: asyncio.Queue[pb.BookRequest | None] = asyncio.Queue()
        reading = asyncio.create_task(_read(request_iterator, came))
        try:
            while (request := await came.get()) is not None:
                requests = [request]
                while not came.empty() and (more := came.get_nowait()) is not None:
                    requests.append(more)
                if self._file is not None:
                    await asyncio.get_running_loop().run_in_executor(None, _sync, self._file)
                answer = _answer(requests)
                if answer.ListFields():
                    yield answer
        finally:
            reading.cancel()

    async def GetTotals(self, request: pb.GetTotalsRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.GetTotalsResponse:
        return pb.GetTotalsResponse()


async def _read(requests: AsyncIterator[pb.BookRequest], came: asyncio.Queue[pb.BookRequest | None]) -> None:
    async for request in requests:
        came.put_nowait(request)
    came.put_nowait(None)


def _answer(requests: list[pb.BookRequest]) -> pb.BookResponse:
    answer = pb.BookResponse()
    for request in requests:
        for intent in request.intents:
            if intent.HasField("wishes"):
                answer.grants.append(Grant(request_id=intent.request_id, call_count=1, held=Amounts(tokens=140)))
            else:
                answer.intent_acks.add(request_id=intent.request_id)
        for settlement in request.settlements:
            answer.settlement_acks.add(request_id=settlement.request_id)
    return answer


def _sync(file: int) -> None:
    os.write(file, PAGES)
    os.fdatasync(file)
    if os.lseek(file, 0, os.SEEK_CUR) >= LOG_BYTES:
        os.lseek(file, 0, os.SEEK_SET)


async def main(address: str, path: str | None) -> None:
    file = None if path is None else os.open(path, os.O_CREAT | os.O_WRONLY)
    if file is not None:
        os.write(file, b"\0" * LOG_BYTES)
        os.fsync(file)
        os.lseek(file, 0, os.SEEK_SET)
    server = grpc.aio.server()
    pb_grpc.add_LedgerServiceServicer_to_server(EchoServicer(file), server)
    server.add_insecure_port(address)
    await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.stop(1)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
