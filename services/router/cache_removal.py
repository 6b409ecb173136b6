"""What a caller wants removed from the cache, as a JSON body or a query says it. Pure."""

import fnmatch
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, urlsplit

import msgspec

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ops.v1 import cache_ops_service_pb2 as pb
from services.runtime.errors import GatewayError

MAX_AGE_S = 10**9
_TEXTS = ("entry_id", "namespace", "model", "tag", "tenant")
_AGE = "older_than_seconds"
_PATTERN = "pattern"


def from_body(body: bytes, models: Iterable[str]) -> list[pb.RemoveEntriesRequest]:
    """The removals that a body asks for, which all apply. Raises GatewayError."""
    members = _object(body)
    pattern = members.pop(_PATTERN, None)
    if pattern is None or pattern == "*":
        return [_removal(members)]
    if not isinstance(pattern, str) or "model" in members:
        raise _invalid("pattern must be text over the names of models, and stands in place of model", _PATTERN)
    return [_removal(members | {"model": model}) for model in models if fnmatch.fnmatchcase(model, pattern)]


def from_query(request: pb.ClearCacheRequest, path: str | None) -> pb.RemoveEntriesRequest:
    """The removal that a query asks for. Raises GatewayError for a parameter that is not known: it was meant to spare something."""
    for name, _ in parse_qsl(urlsplit(path or "").query, keep_blank_values=True):
        if name not in (*_TEXTS, _AGE):
            raise _invalid(f"there is no parameter {name[:32]!r}: {', '.join((*_TEXTS, _AGE))} are known", name[:200])
    return _removal({field.name: value for field, value in request.ListFields()})


def _object(body: bytes) -> dict[str, object]:
    if not body.strip():
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        raise _invalid("the body must be a JSON object", "body") from None


def _removal(members: Mapping[str, object]) -> pb.RemoveEntriesRequest:
    removal = pb.RemoveEntriesRequest(all=not members)
    for name, value in members.items():
        if name in _TEXTS and isinstance(value, str):
            setattr(removal, name, value)
        elif name == _AGE and isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_AGE_S:
            removal.min_age.seconds = value
        else:
            raise _invalid(
                f"{name[:32]!r} must be one of {', '.join((*_TEXTS, _PATTERN))} with a text, or {_AGE} with a number", name[:200]
            )
    return removal


def _invalid(message: str, param: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, {"param": param})
