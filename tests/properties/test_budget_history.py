"""Hundreds of thousands of things that happen to budgets: nothing is overspent, all that is spent is in a row, nothing stays held.

Routers ask, let in under leases, settle, release, repeat, die and come back late; ledgers forget all that is not in the books; the wall's
clock jumps. What the books say is kept apart, as plain sums, and all balances are compared with it.
"""

import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from joulegate.ledger.v1 import budget_pb2, reservation_pb2
from services.ledger.budgets import Amounts, Balance, Budget, Sheet, is_counted
from services.ledger.funds import Funds
from services.ledger.leases import LIFETIME_S, MARGIN_S, Lease, Pace
from services.ledger.rate_windows import MINUTE, RateLimits, RateState
from services.ledger.records import Asked, OpenIntent, Row, lost_row
from services.ledger.reserving import Granted, reserve
from services.ledger.windows import DAY, SECOND
from tests.unit.ledger.samples import new_figurer

T = TypeVar("T")
# A tenth of a millisecond each. A million are for who changes how budgets work, and for the night.
OPERATIONS: Final = int(os.environ.get("BUDGET_HISTORY_OPERATIONS", "250000"))
FIGURER = new_figurer()
TARGETS = (("openai", "gpt-4o-mini"),)
LIMITS = RateLimits(requests_per_minute=30_000, tokens_per_minute=8_000_000)
ROUTERS = ("r1", "r2", "r3")
KEYS = ("k1", "k2", "k3", "anon")
TEAM = {"k1", "k2"}
NOON: Final = 1_700_000_000 // 86_400 * DAY + DAY // 2


def budget(name: str, scope: Any, scope_id: str, measure: Any, window: Any, bound: int, rolling_s: int = 0) -> Budget:
    return Budget(name, "", scope, scope_id, measure, window, rolling_s, bound, 1, "", True, 0, 0)


BUDGETS = [
    budget("own", budget_pb2.BUDGET_SCOPE_KEY, "k1", budget_pb2.BUDGET_MEASURE_TOKENS, budget_pb2.BUDGET_WINDOW_MONTH, 120_000_000),
    budget("team", budget_pb2.BUDGET_SCOPE_TEAM, "t", budget_pb2.BUDGET_MEASURE_JOULES, budget_pb2.BUDGET_WINDOW_ROLLING, 10**12, 600),
    budget("all", budget_pb2.BUDGET_SCOPE_GLOBAL, "", budget_pb2.BUDGET_MEASURE_USD, budget_pb2.BUDGET_WINDOW_DAY, 60 * 10**9),
]


def chain(key_id: str) -> Sequence[Budget]:
    own, team, everybody = BUDGETS
    return [*([own] if key_id == "k1" else []), *([team] if key_id in TEAM else []), everybody]


def fullest(found: Budget, buckets: Mapping[int, Balance]) -> int:
    """The most that is in any window."""
    starts = sorted(buckets)
    first = inside = most = 0
    for start in starts:
        inside += buckets[start].spent + buckets[start].held
        while starts[first] <= start - max(1, found.rolling_s) * SECOND:
            inside -= buckets[starts[first]].spent + buckets[starts[first]].held
            first += 1
        most = max(most, inside)
    return most


class World:
    """Some ledgers' books, and routers whose wishes are random."""

    def __init__(self, seed: int) -> None:
        # Plain draws, for those of the library take as long as what is tested.
        self.draw = random.Random(seed).random
        self.now_ns, self.tick = NOON, SECOND
        self.balances: dict[str, dict[int, Balance]] = {each.budget_id: {} for each in BUDGETS}
        self.rates = {key_id: RateState() for key_id in KEYS}
        self.paces: dict[str, Pace] = {}
        self.leases: dict[str, Lease] = {}
        self.lease_ends: dict[str, int] = {}
        self.open: dict[str, OpenIntent] = {}
        self.rows: dict[str, Row] = {}
        # Requests that were booked as lost, and whose router may still tell the truth.
        self.lost: dict[str, OpenIntent] = {}
        self.admitted: dict[str, list[int]] = {key_id: [] for key_id in KEYS}
        self.count = 0
        self.did: Counter[str] = Counter()
        self.spent: Counter[tuple[str, int]] = Counter()
        self.template = lost_row(self.intent("k1"), FIGURER)
        self.funds = self.begin()

    def one_of(self, choices: Sequence[T]) -> T:
        return choices[int(self.draw() * len(choices))]

    def intent(self, key_id: str) -> OpenIntent:
        self.count += 1
        router = self.one_of(ROUTERS)
        # Routers' clocks are not the ledger's.
        created_ns = self.now_ns + int(self.draw() * 3 * SECOND) - 2 * SECOND
        size, output = 10 + int(self.draw() * 3000), self.one_of((0, 16, 300, 2000))
        return OpenIntent(str(self.count), router, created_ns, key_id, "auto", *TARGETS[0], False, size, output, self.one_of((1, 2, 3)))

    def begin(self) -> Funds:
        sheet = Sheet(chain, self.balances, self.now_ns)
        budgets = {each.budget_id: each for each in BUDGETS}
        return Funds(sheet, budgets, lambda _: LIMITS, self.rates, self.leases, self.now_ns, self.tick, self.paces, self.lease_id, 1000)

    def lease_id(self) -> str:
        self.count += 1
        return f"lease-{self.count}"

    def commit(self) -> None:
        """Ends a transaction and begins the next."""
        sheet = self.funds.sheet
        assert sheet.overshoots == []
        for budget_id, buckets in sheet.changed.items():
            self.balances[budget_id].update(buckets)
            self.prune(self.funds.budgets[budget_id])
            assert fullest(self.funds.budgets[budget_id], self.balances[budget_id]) <= self.funds.budgets[budget_id].bound, budget_id
        for lease_id in self.funds.put_leases:
            self.lease_ends.setdefault(lease_id, self.tick + LIFETIME_S * SECOND)
        self.funds = self.begin()

    def prune(self, found: Budget) -> None:
        """As the store does."""
        window, buckets = found.window, self.balances[found.budget_id]
        if window.is_rolling and len(buckets) > 300:
            oldest = window.oldest(window.oldest(window.oldest(window.oldest(self.now_ns))))
            for bucket in [each for each in buckets if each < oldest]:
                del buckets[bucket]

    # What happens.

    def ask(self) -> None:
        key_id = self.one_of(KEYS)
        asked = Asked(self.intent(key_id), TARGETS, self.draw() < 0.5)
        answer = reserve(asked, self.funds, FIGURER)
        if isinstance(answer, reservation_pb2.Denial):
            self.did["denied"] += 1
            assert answer.WhichOneof("cause")
            return
        assert isinstance(answer, Granted)
        self.did["granted"] += 1
        self.open[asked.intent.request_id] = answer.intent
        self.admitted[key_id].append(self.tick)

    def use(self) -> None:
        """A router lets a request in by itself, as long as its lease holds."""
        if not self.leases:
            return self.ask()
        lease = next(reversed(self.leases.values())) if self.draw() < 0.7 else next(iter(self.leases.values()))
        intent = self.intent(lease.key_id)._replace(router_id=lease.router_id)
        wanted = Amounts(
            *(int(self.draw() * (1 + min(left, most))) for left, most in zip(lease.left, (10**6, 3000, 10**9, 10**6), strict=True))
        )
        is_usable = self.tick < self.lease_ends.get(lease.lease_id, 0) and lease.requests >= 1 and lease.rate_tokens >= wanted.tokens
        if not is_usable or not all(each == 0 or each <= left for each, left in zip(wanted, lease.left, strict=True)):
            return self.settle()
        self.did["leased"] += 1
        self.open[intent.request_id] = self.funds.take_up(intent, lease.lease_id, wanted)
        self.admitted[lease.key_id].append(self.tick)
        return None

    def take_one(self) -> OpenIntent | None:
        if not self.open:
            return None
        # Mostly the oldest, at times the newest.
        request_id = next(iter(self.open)) if self.draw() < 0.8 else next(reversed(self.open))
        return self.open.pop(request_id)

    def settle(self) -> None:
        if (intent := self.take_one()) is None:
            return self.ask()
        self.book(intent, (), self.took(intent), intent)
        self.did["settled"] += 1
        return None

    def took(self, intent: OpenIntent) -> Row:
        """What a request took: never more than it held, and at times nothing."""
        part = self.one_of((0.0, 0.2, 0.7, 1.0))
        return self.row(intent, Amounts(*(int(each * part) for each in intent.held)))

    def row(self, intent: OpenIntent, amounts: Amounts) -> Row:
        return self.template._replace(
            request_id=intent.request_id,
            created_ns=intent.created_ns,
            key_id=intent.key_id,
            input_tokens=amounts.tokens,
            output_tokens=0,
            cost_nano_usd=amounts.nano_usd,
            energy_microjoules=amounts.microjoules,
            carbon_micrograms=amounts.micrograms,
        )

    def book(self, intent: OpenIntent, before: Sequence[Row], after: Row, opened: OpenIntent | None) -> None:
        self.funds.book(before, [after], opened)
        for each, sign in (*((row, -1) for row in before), (after, 1)):
            amounts = Amounts(each.cost_nano_usd, each.input_tokens + each.output_tokens, each.energy_microjoules, each.carbon_micrograms)
            for found in chain(each.key_id):
                self.spent[found.budget_id, found.window.bucket(each.created_ns)] += sign * amounts.of(found.measure)

    def release(self) -> None:
        if (intent := self.take_one()) is None:
            return self.ask()
        self.funds.book((), (), intent)
        self.did["released"] += 1
        return None

    def tell_late(self) -> None:
        """A router that was given up comes back with what really happened."""
        if not self.lost:
            return self.settle()
        request_id, intent = self.lost.popitem()
        self.book(intent, [self.rows.pop(request_id)], self.took(intent), None)
        self.did["late"] += 1
        return None

    def lose(self, router_id: str) -> None:
        """A router is given up: its requests are lost, and its leases end."""
        for request_id, intent in [each for each in self.open.items() if each[1].router_id == router_id]:
            del self.open[request_id]
            row = self.row(intent, intent.held)
            self.book(intent, (), row, intent)
            self.rows[request_id], self.lost[request_id] = row, intent
        for lease in list(self.leases.values()):
            if lease.router_id == router_id:
                self.funds.end_lease(lease.lease_id)
        self.did["lost"] += 1

    def restart(self) -> None:
        """A ledger dies in the middle of a transaction: what it has not committed never was."""
        self.commit()
        self.paces.clear()
        for key_id, state in self.rates.items():
            recent = [[tick, requests, tokens] for tick, requests, tokens in state.entries]
            self.rates[key_id] = fresh = RateState()
            fresh.entries.extend(recent)
            fresh._requests, fresh._tokens = sum(each[1] for each in recent), sum(each[2] for each in recent)
            fresh.leased_requests = sum(lease.requests for lease in self.leases.values() if lease.key_id == key_id)
            fresh.leased_tokens = sum(lease.rate_tokens for lease in self.leases.values() if lease.key_id == key_id)
        self.funds = self.begin()
        self.did["restarted"] += 1

    def pass_time(self) -> None:
        step = self.one_of((10, 40, 100, 400)) * SECOND // 1000
        self.tick += step
        self.now_ns += step
        if self.draw() < 0.002:
            # By hours ahead, and by less than leases care for back.
            self.now_ns += self.one_of((7200 * SECOND, 40_000 * SECOND, -3 * SECOND))
            self.did["jumped"] += 1
        for lease_id, end in list(self.lease_ends.items()):
            if self.tick >= end + MARGIN_S * SECOND or (self.tick >= end - SECOND and self.draw() < 0.5):
                self.funds.end_lease(lease_id)
                del self.lease_ends[lease_id]

    def check(self) -> None:
        """Compares all balances with the sums of what is in the books."""
        held: Counter[tuple[str, int]] = Counter()
        holding = [(each.key_id, each.created_ns, each.held) for each in self.open.values()]
        for key_id, created_ns, amounts in (*holding, *((each.key_id, each.created_ns, each.left) for each in self.leases.values())):
            for found in chain(key_id):
                held[found.budget_id, found.window.bucket(created_ns)] += amounts.of(found.measure)
        for found in BUDGETS:
            for bucket, balance in self.balances[found.budget_id].items():
                # What is older counts for nothing any more.
                if is_counted(found, bucket, self.now_ns):
                    name = (found.budget_id, bucket)
                    assert (balance.spent, balance.held) == (self.spent[name], held[name]), name
        for key_id, times in self.admitted.items():
            # The rates of a minute, as brute force counts them.
            self.admitted[key_id] = times = [each for each in times if each > self.tick - 2 * MINUTE]
            assert sum(each > self.tick - MINUTE for each in times) <= LIMITS.requests_per_minute  # type: ignore[operator]


def test_no_history_overspends_or_leaves_anything_held() -> None:
    world = World(seed=20)
    acts = [world.use] * 14 + [world.ask] + [world.settle] * 10 + [world.release, world.tell_late]
    for number in range(OPERATIONS):
        world.one_of(acts)()
        if number % 32 == 0:
            world.pass_time()
            world.commit()
        if number % 2_003 == 0:
            world.lose(world.one_of(ROUTERS))
        if number % 33_331 == 0:
            world.restart()
        if number % 25_013 == 0:
            world.commit()
            world.check()
    for router_id in ROUTERS:
        world.lose(router_id)
    for lease_id in list(world.leases):
        world.funds.end_lease(lease_id)
    world.commit()
    world.check()
    held = [
        balance.held
        for found in BUDGETS
        for bucket, balance in world.balances[found.budget_id].items()
        if is_counted(found, bucket, world.now_ns)
    ]
    assert held and not any(held)
    # All of it happened, often.
    assert min(world.did[name] for name in ("granted", "denied", "leased", "settled", "released", "late", "lost")) > OPERATIONS // 10_000, (
        world.did
    )
    assert min(world.did["jumped"], world.did["restarted"]) > OPERATIONS // 100_000, world.did
