"""Which request a record is of: the id that the client chose, and when the request began.

Clients may send one id for several requests. A record keeps both over all its repeats, so together they name a request for good, over
restarts and for any number of routers: the first request that is booked has its id in the books, each other one an id made of the two.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

# Routers take no client's id with this in it, so nothing that is derived can meet an id that was sent.
MARK: Final = "~"
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class RequestKey(NamedTuple):
    """`created_ns` is in nanoseconds since 1970."""

    request_id: str
    created_ns: int

    @property
    def derived_id(self) -> str:
        """The id in the books when the plain one is another request's."""
        return f"{self.request_id}{MARK}{_base_36(self.created_ns)}"


def booked_ids(keys: Iterable[RequestKey], began: Mapping[str, int]) -> dict[RequestKey, str]:
    """The id of each request in the books; `began` says when the requests that have the plain ids there began."""
    owners = dict(began)
    return {key: key.request_id if owners.setdefault(*key) == key.created_ns else key.derived_id for key in keys}


def _base_36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
