"""What a policy would have chosen for requests that were routed before: the very code that chooses, on what it was told then. Pure.

The same lines and the same policy give the same choices to the bit. What they would have cost, used and emitted is expected, not measured,
on both sides of the comparison: by the rates of the time, and by the length that answers were expected to have.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any, Final, NamedTuple

from joulegate.chat.v1 import chat_pb2
from services.router import decision_record
from services.router.catalogue import Candidate, Catalogue
from services.router.complexity import Complexity, quality
from services.router.decision_record import VERSION, Target
from services.router.demand import Demand
from services.router.families import Families
from services.router.forecast import Forecast
from services.router.learning import Contender, Posteriors, Proposal, proved_worse
from services.router.load import Load
from services.router.output_lengths import OutputLengths
from services.router.policy import RoutingPolicy, parse
from services.router.prospect import Prospect
from services.router.ranking import Ranking
from services.router.rates import Rate
from services.router.selection import Selection
from services.router.slate import Asked, Slates
from services.runtime.errors import GatewayError

NOTHING_KNOWN: Final = Prospect()


class LogError(Exception):
    """The lines are not a log of decisions, or one of another version; the words are for the operator."""


class Choice(NamedTuple):
    """Who came first, and what was expected of it."""

    target: Target
    prospect: Prospect


class Replayed(NamedTuple):
    """One decision as it was and as it would be; None: nobody would have been left to ask."""

    request_id: str
    recorded: Choice
    chosen: Choice | None
    # Whether all who would be tried are the same, in the same order.
    is_same: bool


@dataclass(slots=True)
class Sums:
    """Of the first choices. Figures that are not known count as nothing, and are counted."""

    cost_usd: float = 0.0
    energy_joules: float = 0.0
    carbon_grams: float = 0.0
    unknown_count: int = 0

    def add(self, prospect: Prospect) -> None:
        self.cost_usd += prospect.cost_usd or 0.0
        self.energy_joules += prospect.energy_j or 0.0
        self.carbon_grams += prospect.carbon_g or 0.0
        self.unknown_count += None in (prospect.cost_usd, prospect.energy_j, prospect.carbon_g)


@dataclass(slots=True)
class Summary:
    """All decisions of a log together."""

    decision_count: int = 0
    same_count: int = 0
    refused_count: int = 0
    recorded: Sums = field(default_factory=Sums)
    replayed: Sums = field(default_factory=Sums)
    _digest: Any = field(default_factory=sha256)

    def add(self, one: Replayed) -> None:
        self.decision_count += 1
        self.same_count += one.is_same
        self.recorded.add(one.recorded.prospect)
        if one.chosen is None:
            self.refused_count += 1
        else:
            self.replayed.add(one.chosen.prospect)
        chosen = "" if one.chosen is None else "\t".join(one.chosen.target)
        self._digest.update(f"{one.request_id}\t{chosen}\n".encode())

    @property
    def digest(self) -> str:
        """Equal for equal choices."""
        return str(self._digest.hexdigest())


class _Recorded:
    """What the code that chooses asks for, as it was."""

    def __init__(self) -> None:
        self.rates: Mapping[Target, Rate] = {}
        self.lengths: Mapping[str, float] = {}
        self.complexity = Complexity(0, 0.5, 0.5, 0.5)
        self.posteriors = Posteriors()
        self.explored: Target | None = None
        self.now = 0.0

    @property
    def known(self) -> Mapping[Target, Rate]:
        return self.rates

    def of(self, provider: str, model: str) -> Rate | None:
        return self.rates.get((provider, model))

    def expected(self, model: str, bound: int | None) -> float:
        return OutputLengths.bounded(self.lengths.get(model, self.lengths[""]), bound)

    def score(self, request: chat_pb2.ChatRequest) -> Complexity:
        return self.complexity

    def proved_worse(self, complexity: Complexity, contenders: Sequence[Contender]) -> frozenset[int]:
        return proved_worse(self.posteriors.beliefs(complexity, contenders))

    def propose(self, complexity: Complexity, contenders: Sequence[Contender], *, may_explore: bool = True) -> Proposal:
        """Nothing is drawn: what was tried is tried again where it may be."""
        targets = [(contender.provider, contender.model) for contender in contenders]
        return Proposal(targets.index(self.explored)) if self.explored in targets else Proposal()


class Replay:
    """Makes decisions again. Without a policy: by those of the log."""

    def __init__(self, policy: RoutingPolicy | None) -> None:
        self._is_fixed = policy is not None
        self._policy = policy or RoutingPolicy()
        self._recorded = _Recorded()
        self._load = Load()
        self._catalogue = Catalogue()
        self._families = Families()
        self._draw = Random()
        self._ranking = self._new_ranking()
        self._selection = self._new_selection()

    def run(self, lines: Iterable[Mapping[str, Any]]) -> Iterator[Replayed]:
        """Raises LogError."""
        for number, line in enumerate(lines, 1):
            try:
                replayed = self._line(line)
            except (KeyError, TypeError, ValueError) as error:
                raise LogError(f"line {number}: not a line of a decision log ({type(error).__name__})") from error
            if replayed is not None:
                yield replayed

    def _line(self, line: Mapping[str, Any]) -> Replayed | None:
        match line["kind"]:
            case "start":
                if line["version"] != VERSION:
                    raise LogError(f"the log is of version {line['version']}; this program reads {VERSION}")
                self._ranking = self._new_ranking()
            case "picture":
                self._load = Load()
                self._catalogue, self._recorded.rates, declared = decision_record.read_picture(line, self._load)
                self._families = Families(declared)
            case "policy" if not self._is_fixed:
                self._policy = parse(line["document"])
            case "decision":
                return self._decide(line)
            case _:
                return None
        self._selection = self._new_selection()
        return None

    def _decide(self, line: Mapping[str, Any]) -> Replayed:
        recorded = self._recorded
        asked, demand, recorded.complexity = decision_record.read_asked(line)
        recorded.lengths, recorded.now = line["lengths"], line["now"]
        recorded.posteriors = decision_record.read_evidence(line, recorded.complexity)
        recorded.explored = decision_record.read_explored(line)
        begun = decision_record.tell(line, self._load)
        self._draw.seed(line["seed"])
        try:
            return self._decide_now(line, asked, demand)
        finally:
            for live in begun:
                live.ended()

    def _decide_now(self, line: Mapping[str, Any], asked: Asked, demand: Demand) -> Replayed:
        tried: list[Target] = [(provider, model) for provider, model in line["tried"]]
        before = Choice(tried[0], self._expected(tried[0], demand))
        try:
            decision = self._selection.choose(self._selection.gather(self._catalogue, asked))
        except GatewayError:
            return Replayed(line["request_id"], before, None, is_same=False)
        targets = [candidate.target for candidate in decision.tried]
        return Replayed(line["request_id"], before, Choice(targets[0], self._expected(targets[0], demand)), targets == tried)

    def _expected(self, target: Target, demand: Demand) -> Prospect:
        found: list[Candidate] = self._catalogue.candidates("/".join(target))
        if not found:
            return NOTHING_KNOWN
        traits = [self._families.traits(target)]
        complexity = self._recorded.complexity
        forecast = Forecast(self._recorded, self._recorded)
        outlook = forecast.outlook(found[:1], traits, demand, lambda tier: quality(tier, complexity) if tier else None, self._recorded.now)
        return outlook.prospect(0)

    def _new_ranking(self) -> Ranking:
        return Ranking(lambda: self._recorded.now, self._draw.random)

    def _new_selection(self) -> Selection:
        recorded = self._recorded
        slates = Slates(self._policy, self._families, recorded)
        return Selection(slates, self._ranking, Forecast(recorded, recorded), recorded, recorded, lambda: recorded.now)
