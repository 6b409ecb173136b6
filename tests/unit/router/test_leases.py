"""A lease lets in no more than it says, no longer than it may, whatever is asked of it in whichever order."""

import math

from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from joulegate.ledger.v1 import reservation_pb2 as pb
from services.router.leases import ASKING_S, KNOWN_S, MANY_REQUESTS, MAX_LEASES, RENEW_S, Account, Accounts, Lease, Need

LAB, SPARE = ("lab", "small"), ("spare", "small")
MEASURES = ("nano_usd", "tokens", "microjoules", "micrograms")
COUNTS = st.integers(0, 10_000)
AMOUNTS = st.builds(pb.Amounts, nano_usd=COUNTS, microjoules=COUNTS, micrograms=COUNTS)
PRICED = st.builds(
    pb.PricedTarget,
    fixed=AMOUNTS,
    per_million_input_tokens=AMOUNTS,
    per_million_output_tokens=AMOUNTS,
    max_input_tokens=st.just(5000),
)
NEEDS = st.builds(Need, st.sampled_from([[LAB], [SPARE], [LAB, SPARE]]), st.integers(0, 6000), st.integers(0, 3000), st.integers(1, 4))
LIMITS = st.dictionaries(st.sampled_from([*MEASURES, "rate_tokens", "requests"]), st.integers(0, 100_000))


def lease(**members: object) -> pb.Lease:
    return pb.Lease(**{"lease_id": "l", "lifetime": Duration(seconds=5)} | members)  # type: ignore[arg-type]


def worst(message: pb.Lease, need: Need) -> dict[str, int]:
    """What a need may be booked with at most, call by call, as PricedTarget says."""
    priced = {(target.provider, target.model): target for target in message.targets}

    def of_call(target: pb.PricedTarget, name: str, output_tokens: int) -> int:
        by_tokens: int = need.input_tokens * getattr(target.per_million_input_tokens, name)
        by_tokens += output_tokens * getattr(target.per_million_output_tokens, name)
        return int(getattr(target.fixed, name)) + math.ceil(by_tokens / 1_000_000)

    targets = [priced[name] for name in need.targets]
    booked = {
        name: max((need.calls - 1) * of_call(each, name, 0) + of_call(each, name, need.output_tokens) for each in targets)
        for name in ("nano_usd", "microjoules", "micrograms")
    }
    return booked | {"tokens": need.tokens, "rate_tokens": need.tokens, "requests": 1}


@given(LIMITS, PRICED, PRICED, st.lists(NEEDS, max_size=30))
def test_no_more_is_let_in_than_the_lease_says(
    limits: dict[str, int], lab: pb.PricedTarget, spare: pb.PricedTarget, needs: list[Need]
) -> None:
    lab.provider, lab.model = LAB
    spare.provider, spare.model = SPARE
    message = lease(targets=[lab, spare], **limits)
    granted, sums, held_sums = Lease(message, 0.0), dict.fromkeys(limits, 0), dict.fromkeys(MEASURES, 0)
    for need in needs:
        held = granted.take(need)
        if held is None:
            continue
        booked = worst(message, need)
        for name in limits:
            sums[name] += booked[name]
        # Of a prompt that is longer than the prices reach nothing is known, and nothing of what it may cost is limited.
        if not granted.is_open and need.input_tokens <= min(each.max_input_tokens for each in message.targets):
            assert all(getattr(held, name) >= booked[name] for name in MEASURES)
        for name in MEASURES:
            held_sums[name] += getattr(held, name)
    assert all(sums[name] <= limit for name, limit in limits.items())
    assert all(held_sums[name] <= limit for name, limit in limits.items() if name in MEASURES)


@given(LIMITS.filter(lambda limits: limits.keys() != {"requests"} and limits), NEEDS)
def test_refused_need_takes_nothing(limits: dict[str, int], need: Need) -> None:
    message = lease(targets=[pb.PricedTarget(provider="lab", model="small", max_input_tokens=1)], **limits)
    tried, fresh = Lease(message, 0.0), Lease(message, 0.0)
    if tried.take(Need([LAB, SPARE], 10**9, 10**9, 4)) is None:
        assert (tried.take(need) is None) == (fresh.take(need) is None)


def test_unlimited_lease_takes_anything_and_holds_nothing() -> None:
    granted = Lease(lease(), 0.0)
    assert granted.is_open
    for _ in range(3):
        assert granted.take(Need([LAB], 10**9, 10**9, 4)) == pb.Amounts()


def test_without_a_bound_of_its_targets_the_ledger_is_asked() -> None:
    priced = pb.PricedTarget(provider="lab", model="small", max_input_tokens=100)
    limited = Lease(lease(nano_usd=10**9, targets=[priced]), 0.0)
    assert limited.take(Need([SPARE], 1, 1, 1)) is None
    assert limited.take(Need([LAB, SPARE], 1, 1, 1)) is None
    assert limited.take(Need([LAB], 101, 1, 1)) is None
    assert limited.take(Need([LAB], 100, 1, 1)) is not None
    # Where only tokens are limited, nothing else has to be known.
    assert Lease(lease(rate_tokens=1000), 0.0).take(Need([SPARE], 101, 1, 1)) == pb.Amounts(tokens=102)


def grant(**members: object) -> pb.Grant:
    rates = pb.RateStatus(requests=pb.RateStanding(limit=60, remaining=50, reset=Duration(seconds=60)))
    return pb.Grant(rates=rates, lease=lease(**members))


def test_lease_lives_from_when_it_was_asked_for() -> None:
    account = Account([])
    account.granted(grant(requests=3), asked_at=100.0, now=102.0, is_current=True)
    assert len(account.leases(104.999)) == 1
    assert not account.leases(105.0)
    assert account.returned == ["l"]


def test_lease_that_was_revoked_on_its_way_is_not_used() -> None:
    account = Account([])
    account.granted(grant(requests=3), asked_at=100.0, now=100.0, is_current=False)
    assert not account.leases(100.0)


def test_revocation_ends_every_lease_and_all_that_was_known() -> None:
    accounts = Accounts()
    account = accounts.of("key")
    account.granted(pb.Grant(lease=lease(nano_usd=1)), asked_at=0.0, now=0.0, is_current=True)
    account.denied(pb.Denial(rate=pb.RateDenial(limit=pb.RATE_LIMIT_BUCKET), retry_after=Duration(seconds=9)), 0.0)
    epoch = accounts.epoch
    accounts.revoke()
    assert accounts.epoch > epoch
    fresh = accounts.of("key")
    assert (list(fresh.leases(1.0)), fresh.denial(1.0), fresh.counts_requests(1.0)) == ([], None, True)
    # The ledger knows.
    assert not accounts.returned(1.0)


def test_unused_leases_go_back_once_and_unlimited_ones_never() -> None:
    accounts = Accounts()
    accounts.of("a").granted(grant(requests=1), asked_at=0.0, now=0.0, is_current=True)
    accounts.of("b").granted(pb.Grant(lease=lease(lease_id="unlimited")), asked_at=0.0, now=0.0, is_current=True)
    assert not accounts.returned(4.9)
    assert list(accounts.returned(5.1)) == ["l"]
    assert not accounts.returned(5.2)
    accounts.of("c").granted(grant(requests=1, lease_id="late"), asked_at=5.0, now=5.0, is_current=True)
    assert list(accounts.give_up()) == ["late"]


def test_caller_has_a_few_leases_and_the_oldest_goes_back() -> None:
    account = Account([])
    for number in range(MAX_LEASES + 1):
        account.granted(grant(requests=1, lease_id=str(number)), asked_at=float(number), now=float(number), is_current=True)
    assert [each.lease_id for each in account.leases(MAX_LEASES + 0.5)] == ["4", "3", "2", "1"]
    assert account.returned == ["0"]


def test_callers_beyond_the_capacity_are_forgotten_with_their_leases() -> None:
    accounts = Accounts(capacity=2)
    accounts.of("a").granted(grant(requests=1), asked_at=0.0, now=0.0, is_current=True)
    accounts.of("b")
    accounts.of("c")
    assert list(accounts.returned(0.0)) == ["l"]
    assert not accounts.of("a").leases(0.0)


def test_one_lease_at_a_time_is_asked_for() -> None:
    account = Account([])
    assert account.asks(10.0)
    assert not account.asks(10.5)
    # The answer may have been lost.
    assert account.asks(10.0 + ASKING_S)
    account.granted(pb.Grant(), asked_at=11.0, now=11.1, is_current=True)
    assert account.asks(11.2)


def used(account: Account, count: int, now: float) -> bool:
    """Whether so many requests find a lease, the oldest first."""
    return all(any(lease.take_request() for lease in reversed(account.leases(now))) for _ in range(count))


def test_lease_of_many_requests_is_renewed_when_half_of_it_is_gone() -> None:
    account = Account([])
    account.granted(grant(requests=100), asked_at=10.0, now=10.0, is_current=True)
    assert used(account, 50, 11.0) and not account.renews(11.0)
    assert used(account, 1, 11.0) and account.renews(11.0)
    # By one at a time.
    account.asks(11.0)
    assert not account.renews(11.5)
    account.granted(grant(requests=100, lease_id="next"), asked_at=11.0, now=11.6, is_current=True)
    assert not account.renews(11.6)
    assert used(account, 149, 11.6) and account.renews(11.6)
    assert not used(account, 1, 11.6)


def test_lease_of_many_requests_is_renewed_before_its_end() -> None:
    account = Account([])
    account.granted(pb.Grant(lease=lease(lease_id="unlimited")), asked_at=10.0, now=10.0, is_current=True)
    assert used(account, MANY_REQUESTS, 14.0)
    assert not account.renews(14.9 - RENEW_S) and account.renews(15.0 - RENEW_S)
    # There is nothing to renew any more.
    assert not account.renews(15.0)


def test_lease_that_is_used_up_goes_back_when_the_next_takes_over() -> None:
    account = Account([])
    account.granted(grant(requests=20, lease_id="old"), asked_at=10.0, now=10.0, is_current=True)
    account.granted(grant(requests=20, lease_id="new"), asked_at=11.0, now=11.0, is_current=True)
    new, old = account.leases(11.0)
    for _ in range(20):
        assert old.take_request()
        account.goes_on_with(old, 11.0)
    assert account.returned == []
    assert new.take_request() and not old.take_request()
    account.goes_on_with(new, 11.0)
    assert (list(account.leases(11.0)), account.returned) == ([new], ["old"])


def test_lease_for_other_models_stays_beside_one_that_lets_in() -> None:
    account = Account([])
    account.granted(grant(requests=20, lease_id="other"), asked_at=10.0, now=10.0, is_current=True)
    account.granted(grant(requests=20, lease_id="new"), asked_at=11.0, now=11.0, is_current=True)
    assert used(account, 15, 11.0)
    account.goes_on_with(account.leases(11.0)[0], 11.0)
    assert [each.lease_id for each in account.leases(11.0)] == ["new", "other"]


def test_lease_of_few_requests_is_used_to_its_end() -> None:
    account = Account([])
    account.granted(grant(requests=MANY_REQUESTS // 2), asked_at=10.0, now=10.0, is_current=True)
    assert used(account, MANY_REQUESTS // 2 - 1, 11.0) and not account.renews(11.0)


def test_lease_that_is_not_renewed_is_used_up_and_asked_for_again_later() -> None:
    account = Account([])
    account.granted(grant(requests=100), asked_at=10.0, now=10.0, is_current=True)
    used(account, 60, 11.0)
    assert account.asks(11.0)
    too_many = pb.Denial(rate=pb.RateDenial(limit=pb.RATE_LIMIT_REQUESTS_PER_MINUTE), retry_after=Duration(seconds=9))
    account.denied(too_many, 11.1, was_renewal=True)
    assert account.denial(11.2) is None
    assert not account.renews(11.2) and account.renews(11.1 + ASKING_S)
    account.granted(pb.Grant(), asked_at=12.2, now=12.2, is_current=True)
    assert not account.renews(12.3)
    assert used(account, 40, 12.3)


def test_too_many_requests_are_refused_without_asking_until_it_makes_sense() -> None:
    account = Account([])
    account.denied(pb.Denial(rate=pb.RateDenial(limit=pb.RATE_LIMIT_REQUESTS_PER_MINUTE), retry_after=Duration(seconds=3)), 10.0)
    denied = account.denial(11.5)
    assert denied is not None and denied[1] == 1.5
    assert account.denial(13.0) is None
    # Tokens come back when a request settles, at any time.
    account.denied(pb.Denial(rate=pb.RateDenial(limit=pb.RATE_LIMIT_TOKENS_PER_MINUTE), retry_after=Duration(seconds=3)), 20.0)
    assert account.denial(20.0) is None


def test_hits_are_counted_unless_the_ledger_said_that_nothing_limits_requests() -> None:
    account = Account([])
    assert account.counts_requests(0.0)
    account.granted(pb.Grant(), asked_at=0.0, now=1.0, is_current=True)
    assert not account.counts_requests(KNOWN_S)
    assert account.counts_requests(1.0 + KNOWN_S)
    account.granted(grant(), asked_at=40.0, now=40.0, is_current=True)
    assert account.counts_requests(40.0 + KNOWN_S)


def test_what_is_left_counts_down_under_a_lease() -> None:
    account = Account([])
    account.granted(grant(requests=5), asked_at=0.0, now=0.0, is_current=True)
    assert account.requests is not None
    # The ledger has set five aside; they are there yet.
    assert (account.requests.limit, account.requests.remaining, account.requests.reset_s(10.0)) == (60, 55, 50.0)
    account.requests.took(1, 20.0)
    assert (account.requests.remaining, account.requests.reset_s(20.0)) == (54, 60.0)
