"""What a router remembers of keys, and for how long."""

from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.ledger.v1.key_pb2 import ApiKey
from services.router.key_cache import CAPACITY, STALE_S, UNKNOWN_S, UNWATCHED_S, WATCHED_S, KeyCache, Standing, standing_of
from services.runtime.identity import Caller

STANDING = Standing(Caller("key_1", "key:key_1"))


def watched() -> KeyCache:
    cache = KeyCache()
    cache.is_watched = True
    return cache


def test_known_key_holds_long_while_changes_are_told_and_shortly_while_not() -> None:
    cache = watched()
    cache.put(b"d", STANDING, 100.0, cache.epoch)
    assert cache.fresh(b"d", 100 + WATCHED_S - 0.1) == (STANDING, 100.0)
    assert cache.fresh(b"d", 100 + WATCHED_S) is None
    cache.is_watched = False
    assert cache.fresh(b"d", 100 + UNWATCHED_S - 0.1) is not None
    assert cache.fresh(b"d", 100 + UNWATCHED_S) is None


def test_unknown_key_is_asked_for_again_soon_and_never_serves_stale() -> None:
    cache = watched()
    cache.put(b"d", None, 100.0, cache.epoch)
    assert cache.fresh(b"d", 100 + UNKNOWN_S - 0.1) == (None, 100.0)
    assert cache.fresh(b"d", 100 + UNKNOWN_S) is None
    assert cache.stale(b"d", 100.0) is None


def test_known_key_may_serve_stale_but_not_for_ever() -> None:
    cache = watched()
    cache.put(b"d", STANDING, 100.0, cache.epoch)
    assert cache.stale(b"d", 100 + STALE_S - 1) is not None
    assert cache.stale(b"d", 100 + STALE_S) is None


def test_changed_key_is_forgotten_whether_it_was_known_or_not() -> None:
    cache = watched()
    cache.put(b"known", STANDING, 100.0, cache.epoch)
    cache.put(b"unknown", None, 100.0, cache.epoch)
    cache.drop([b"known", b"unknown", b"never heard of"])
    assert [cache.fresh(digest, 100.0) for digest in (b"known", b"unknown")] == [None, None]
    assert cache.stale(b"known", 100.0) is None


def test_answer_that_was_on_its_way_during_a_change_does_not_hold() -> None:
    cache = watched()
    epoch = cache.epoch
    cache.drop([b"d"])
    assert cache.put(b"d", STANDING, 100.0, epoch).standing == STANDING
    assert cache.fresh(b"d", 100.0) is None


def test_after_a_gap_all_keys_are_asked_for_again_and_may_still_serve_stale() -> None:
    cache = watched()
    cache.put(b"known", STANDING, 100.0, cache.epoch)
    cache.put(b"unknown", None, 100.0, cache.epoch)
    cache.age(101.0)
    assert [cache.fresh(digest, 101.0) for digest in (b"known", b"unknown")] == [None, None]
    assert cache.stale(b"known", 101.0) is not None


def test_flood_of_unknown_keys_drives_no_known_one_out() -> None:
    cache = KeyCache(capacity=3)
    cache.put(b"known", STANDING, 100.0, cache.epoch)
    for number in range(10):
        cache.put(b"%d" % number, None, 100.0, cache.epoch)
    assert cache.fresh(b"known", 100.0) is not None
    assert [number for number in range(10) if cache.fresh(b"%d" % number, 100.0)] == [7, 8, 9]
    for number in range(3):
        assert cache.fresh(b"known", 100.0) is not None
        cache.put(b"%d" % number, STANDING, 100.0, cache.epoch)
    # The key that is used stays; the one that was put first goes.
    assert cache.fresh(b"known", 100.0) is not None and cache.fresh(b"0", 100.0) is None
    assert CAPACITY > 1000


def test_tenant_is_the_widest_that_the_key_names() -> None:
    tenants = [
        standing_of(ApiKey(key_id="key_1", enabled=True, organisation=organisation, team=team)).caller.tenant
        for organisation, team in (("acme", "red"), ("", "red"), ("", "acme"), ("", ""))
    ]
    assert tenants == ["organisation:acme", "team:red", "team:acme", "key:key_1"]


def test_standing_says_why_a_key_is_refused_and_until_when_it_holds() -> None:
    time = Timestamp(seconds=2_000_000_000, nanos=500_000_000)
    assert standing_of(ApiKey(enabled=True, expire_time=time)).expires_at == 2_000_000_000.5
    assert standing_of(ApiKey(enabled=True)).refusal == ""
    assert "revoked" in standing_of(ApiKey(enabled=True, revoke_time=time)).refusal
    assert "disabled" in standing_of(ApiKey(enabled=False)).refusal
