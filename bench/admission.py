"""What letting a request in by a lease costs the router, in microseconds of CPU for each miss: `python bench/admission.py`.

`announce` is what every call costs without limits and budgets: its intent, made and put on the stream. The rows after it include that.
"""

import asyncio
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "gen")]

from google.protobuf.duration_pb2 import Duration  # noqa: E402

from joulegate.cache.v1 import cache_service_pb2 as cache_pb  # noqa: E402
from joulegate.chat.v1 import chat_pb2  # noqa: E402
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb  # noqa: E402
from joulegate.ledger.v1 import ledger_service_pb2 as pb  # noqa: E402
from joulegate.ledger.v1 import reservation_pb2  # noqa: E402
from services.router import tokens  # noqa: E402
from services.router.books import Verdict  # noqa: E402
from services.router.controls import CacheControls  # noqa: E402
from services.router.leases import Accounts  # noqa: E402
from services.router.question import Question  # noqa: E402
from services.router.reservations import Reservations  # noqa: E402
from services.runtime.clock import SystemClock  # noqa: E402
from services.runtime.identity import ANONYMOUS  # noqa: E402

ROUNDS, REQUESTS = 9, 4000
PLENTY = 2**60
TARGETS = [dispatch_pb.Target(provider=provider, model="small") for provider in ("lab", "spare")]
PAIRS = [(target.provider, target.model) for target in TARGETS]
MESSAGES = [chat_pb2.Message(role=chat_pb2.ROLE_USER, text="What is a joule? " * 60)]
RATES = reservation_pb2.RateStatus(
    requests=reservation_pb2.RateStanding(limit=10**9, remaining=10**9), tokens=reservation_pb2.RateStanding(limit=10**9, remaining=10**9)
)
AMOUNTS = reservation_pb2.Amounts(nano_usd=150_000_000, microjoules=9_000_000, micrograms=4_000)
PRICED = [
    reservation_pb2.PricedTarget(
        provider=target.provider,
        model=target.model,
        fixed=AMOUNTS,
        per_million_input_tokens=AMOUNTS,
        per_million_output_tokens=AMOUNTS,
        max_input_tokens=10**6,
    )
    for target in TARGETS
]
LEASES = {
    "unlimited": (reservation_pb2.Lease(), reservation_pb2.RateStatus()),
    "requests and tokens a minute": (reservation_pb2.Lease(requests=PLENTY, rate_tokens=PLENTY, unbounded_output_tokens=4096), RATES),
    "those, and budgets of everything": (
        reservation_pb2.Lease(
            nano_usd=PLENTY,
            tokens=PLENTY,
            microjoules=PLENTY,
            micrograms=PLENTY,
            requests=PLENTY,
            rate_tokens=PLENTY,
            targets=PRICED,
            unbounded_output_tokens=4096,
        ),
        RATES,
    ),
}


class Stream:
    """Books that take every record as it is."""

    is_connected = True

    def __init__(self, future: "asyncio.Future[Verdict]") -> None:
        self._future = future

    def intend(self, intent: pb.Intent) -> "asyncio.Future[Verdict]":
        return self._future


def question() -> Question:
    request = chat_pb2.ChatRequest(model="small", messages=MESSAGES, max_tokens=500)
    return Question("r", request, "small", cache_pb.EntryKey(), ANONYMOUS, CacheControls(), (), (), 0.0, 10.0)


def announced(stream: Stream, asked: Question) -> None:
    stream.intend(
        pb.Intent(
            request_id=asked.request_id,
            key_id=asked.caller.key_id,
            requested_model=asked.model,
            provider=TARGETS[0].provider,
            model=TARGETS[0].model,
            estimated_input_tokens=tokens.quick_prompt_estimate(asked.request),
            max_output_tokens=asked.request.max_tokens,
        )
    )


async def main() -> None:
    future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    stream, clock = Stream(future), SystemClock()
    figures: dict[str, list[float]] = {name: [] for name in ("announce", *LEASES)}
    for _ in range(ROUNDS):
        questions = [question() for _ in range(REQUESTS)]
        began = time.process_time()
        for asked in questions:
            announced(stream, asked)
        figures["announce"].append((time.process_time() - began) / REQUESTS * 1e6)
        for name, (lease, rates) in LEASES.items():
            accounts = Accounts()
            lease.lifetime.CopyFrom(Duration(seconds=3600))
            now = clock.monotonic()
            accounts.of("").granted(reservation_pb2.Grant(lease=lease, rates=rates), now, now, is_current=True)
            reservations = Reservations(stream, accounts, clock)  # type: ignore[arg-type]
            questions = [question() for _ in range(REQUESTS)]
            began = time.process_time()
            for asked in questions:
                await reservations.admit(asked, PAIRS)
            figures[name].append((time.process_time() - began) / REQUESTS * 1e6)
    print("| caller is bound by | CPU us/request, median | least |\n|---|---|---|")
    for name, values in figures.items():
        print(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} |")


if __name__ == "__main__":
    asyncio.run(main())
