"""Why a call to a provider gave no answer, or only a piece of one: a value that decisions and error messages are made from."""

from collections.abc import Callable
from enum import Enum, auto

MAX_TEXT = 600
MAX_WORD = 100


class Kind(Enum):
    """What went wrong, as far as deciding what to do next needs to know."""

    UNREACHABLE = auto()  # no connection, or it broke before the first byte of the answer
    TIMEOUT = auto()  # no byte of an answer in time
    LATE = auto()  # the answer began and then took too long
    REFUSED = auto()  # the provider said no; `http_status` says how, 0 where it did not say
    BROKEN = auto()  # the answer was cut, or makes no sense
    UNSUPPORTED = auto()  # the dialect cannot say what `param` asks for; no call was made
    WITHHELD = auto()  # no call was made: an open circuit (`http_status` 503) or a full limit (429), until `retry_after_s`
    SUPERSEDED = auto()  # broken off, because another call for the same request gave its first event


# Where no call was made, there is nothing to report or to book.
CALLLESS = frozenset({Kind.UNSUPPORTED, Kind.WITHHELD})


class Failure(Exception):  # noqa: N818 - a value that is raised, named for what it is
    """One failed call. `type`, `param` and `code` are the vendor's own words, empty when it had none."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        http_status: int = 0,
        type: str = "",
        param: str = "",
        code: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.http_status = http_status
        self.type = type
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def summary(self) -> str:
        """What happened without the vendor's own text, which may quote the prompt: for logs and status pages."""
        if self.kind is Kind.UNSUPPORTED:
            return "the dialect cannot say what is asked"
        if self.kind is not Kind.REFUSED:
            return self.message
        return f"HTTP {self.http_status}" if self.http_status else "an error instead of an answer"

    def presentable(self, redact: Callable[[str], str], retry_after_s: float | None = None) -> "Failure":
        """The same, fit to be shown: providers echo keys in their errors, and bodies of any length."""

        def fit(text: str, most: int) -> str:
            text = redact(text)
            return text if len(text) <= most else text[: most - 1] + "…"

        return Failure(
            self.kind,
            fit(self.message, MAX_TEXT),
            http_status=self.http_status,
            type=fit(self.type, MAX_WORD),
            param=fit(self.param, MAX_WORD),
            code=fit(self.code, MAX_WORD),
            retry_after_s=self.retry_after_s if retry_after_s is None else retry_after_s,
        )
