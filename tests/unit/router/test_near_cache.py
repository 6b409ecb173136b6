from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.router.near_cache import NearCache


def _key(name: str, tenant: str = "") -> pb.EntryKey:
    return pb.EntryKey(tenant=tenant, digest=name.encode())


def _entry(provider: str = "p", expires: int = 1000) -> pb.Entry:
    return pb.Entry(provider=provider, expire_time=Timestamp(seconds=expires))


def test_an_entry_is_found_by_its_whole_key_only() -> None:
    cache = NearCache(10_000, ttl_s=30)
    cache.put(_key("a", tenant="one"), _entry(), monotonic=0)
    assert cache.get(_key("a", tenant="one"), monotonic=1, now=1) is not None
    assert cache.get(_key("a", tenant="two"), monotonic=1, now=1) is None


def test_an_entry_leaves_after_the_near_ttl_and_after_its_own() -> None:
    cache = NearCache(10_000, ttl_s=30)
    cache.put(_key("a"), _entry(), monotonic=0)
    assert cache.get(_key("a"), monotonic=30, now=1) is None
    cache.put(_key("a"), _entry(expires=5), monotonic=0)
    assert cache.get(_key("a"), monotonic=1, now=5) is None


def test_the_least_recently_used_entry_makes_room() -> None:
    cache = NearCache(4 * _entry().ByteSize(), ttl_s=30)
    for name in "abcd":
        cache.put(_key(name), _entry(), monotonic=0)
    assert cache.get(_key("a"), 1, 1) is not None
    cache.put(_key("e"), _entry(), monotonic=1)
    assert cache.get(_key("b"), 1, 1) is None
    assert all(cache.get(_key(name), 1, 1) is not None for name in "acde")


def test_an_entry_too_large_for_the_cache_is_not_kept_and_throws_nothing_out() -> None:
    cache = NearCache(4 * _entry().ByteSize(), ttl_s=30)
    cache.put(_key("a"), _entry(), monotonic=0)
    cache.put(_key("b"), _entry(provider="p" * 1000), monotonic=0)
    assert cache.get(_key("a"), 1, 1) is not None
    assert cache.get(_key("b"), 1, 1) is None


def test_replacing_an_entry_does_not_count_it_twice() -> None:
    cache = NearCache(4 * _entry().ByteSize(), ttl_s=30)
    cache.put(_key("a"), _entry(), monotonic=0)
    for _ in range(100):
        cache.put(_key("b"), _entry(), monotonic=0)
    assert cache.get(_key("a"), 1, 1) is not None
