"""Whether a chain is what was booked: what can be said of it link by link, and how that is told."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from services.ledger.booking import Totals
from services.ledger.chain import Checkpoint, Head, Link, hash_of
from services.ledger.records import Row

_SHOWN: Final = 50


class Anchor(NamedTuple):
    """A link that somebody has noted outside of the books, to be found there again."""

    chain: int
    link: int
    hash: str


class Findings:
    """What an audit found. Of many faults the first are kept, and all are counted."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.fault_count = 0
        self.notes: list[str] = []

    def fault(self, text: str) -> None:
        self.fault_count += 1
        if len(self.faults) < _SHOWN:
            self.faults.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def text(self) -> str:
        """The findings for people."""
        hidden = self.fault_count - len(self.faults)
        faults = [f"FAULT: {fault}" for fault in self.faults] + ([f"FAULT: and {hidden} more"] if hidden else [])
        return "\n".join([*self.notes, *(faults or ["no fault found"])])


def anchor(text: str) -> Anchor:
    """An anchor as `chain:link:hash`, as an audit prints the ends of chains. Raises ValueError."""
    chain, link, digest = text.split(":")
    if len(bytes.fromhex(digest)) != 32:
        raise ValueError("the hash of a link has 64 hexadecimal digits")
    return Anchor(int(chain), int(link), digest.lower())


def faults_of_chain(chain: int, start: Head, links: Iterable[Link], end: Head) -> Iterator[str]:
    """What is wrong with a chain, whose links come in order. A changed one is told once: the next goes on from what is stored."""
    links_so_far, before = start
    for link, digest, content in links:
        if link <= links_so_far:
            yield f"chain {chain}: there are two links {link}, or one that was deleted for its age is there again ({_name(content)})"
            continue
        if link > links_so_far + 1:
            yield f"chain {chain}: {_span(links_so_far + 1, link - 1)} missing, before link {link} ({_name(content)})"
        elif hash_of(before, content) != digest:
            yield f"chain {chain}, link {link} ({_name(content)}): not what was booked there"
        links_so_far, before = link, digest
    if links_so_far < end.links:
        yield f"chain {chain}: {_span(links_so_far + 1, end.links)} missing at the end"
    elif links_so_far > end.links:
        yield f"chain {chain}: {_span(end.links + 1, links_so_far)} there beyond the end that the totals know"
    elif before != end.hash:
        yield f"chain {chain}: its last link is not the one that the totals know"


def faults_of_sums(kept: Totals, added: Totals) -> Iterator[str]:
    """Sums that differ from what the rows come to."""
    for name, have, want in zip(Totals._fields, kept, added, strict=True):
        if have != want:
            yield f"totals: {name} is {have}, and the rows come to {want}"


def faults_of_anchors(anchors: Iterable[Anchor], found: Mapping[tuple[int, int], str]) -> Iterator[str]:
    """Anchors that are not in the books; `found` has hashes by chain and link."""
    for chain, link, digest in anchors:
        present = found.get((chain, link))
        if present is None:
            yield f"chain {chain}: link {link}, which was noted as {digest}, is not there"
        elif present != digest:
            yield f"chain {chain}: link {link} was noted as {digest} and is {present}"


def _name(content: Row | Checkpoint) -> str:
    if isinstance(content, Row):
        return f"request {content.request_id!r}, attempt {content.attempt}"
    return f"checkpoint through link {content.through_link}"


def _span(first: int, last: int) -> str:
    return f"link {first} is" if first == last else f"links {first} to {last} are"
