from dataclasses import replace

from prometheus_client import REGISTRY

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2
from services.router.decision import Decision
from services.router.learning import Arm, Learning, Posteriors, Proposal, cluster_of
from services.router.lessons import Lessons
from tests.unit.router.pictures import Scene, Served

TARGET = ("lab", "small")


class School:
    """Lessons over two equal candidates, and what they teach."""

    def __init__(self, remembered: int = 10) -> None:
        self.posteriors = Posteriors()
        self.lessons = Lessons(self.posteriors, remembered)
        served = [Served(name, "small", usd=1.0, joules_per_token=1.0, tier=2, seconds=1.0) for name in ("lab", "other")]
        self.decision: Decision = Scene(served).decide("auto")

    def mean(self, promised: float = 0.6) -> float:
        assert self.decision.complexity is not None
        return self.posteriors.belief(Arm(cluster_of(self.decision.complexity), *TARGET), promised).mean

    def finish(self, request_id: str, reason: chat_pb2.FinishReason.ValueType = chat_pb2.FINISH_REASON_STOP, refusal: str = "") -> None:
        choice = chat_pb2.Choice(finish_reason=reason, message=chat_pb2.Message(refusal=refusal) if refusal else None)
        self.lessons.finished(request_id, "me", self.decision, TARGET, chat_pb2.ChatCompletion(choices=[choice]))


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_the_first_report_about_an_answer_counts_and_only_its_own_tenants() -> None:
    school = School()
    school.finish("one")
    before = school.mean()
    assert school.lessons.report("one", "stranger", 0.0) is None
    assert school.lessons.report("never", "me", 0.0) is None
    assert school.mean() == before
    first = school.lessons.report("one", "me", 0.0)
    assert first is not None and not first.is_reported
    after = school.mean()
    assert after < before
    again = school.lessons.report("one", "me", 0.0)
    assert again is not None and again.is_reported
    assert school.mean() == after


def test_answers_that_end_badly_teach_without_a_report() -> None:
    for reason, refusal in (
        (chat_pb2.FINISH_REASON_LENGTH, ""),
        (chat_pb2.FINISH_REASON_CONTENT_FILTER, ""),
        (chat_pb2.FINISH_REASON_STOP, "No."),
    ):
        school = School()
        school.finish("one", reason, refusal)
        assert school.mean() < 0.6
    school = School()
    school.lessons.cut(school.decision, TARGET)
    assert school.mean() < 0.6


def test_a_request_whose_difficulty_nobody_looked_at_teaches_nothing() -> None:
    school = School()
    decision = Scene([Served(*TARGET)]).decide("small")
    assert decision.complexity is None
    school.lessons.finished("one", "me", decision, TARGET, chat_pb2.ChatCompletion())
    answered = school.lessons.report("one", "me", 0.0)
    assert answered is not None and answered.arm is None
    assert len(school.posteriors) == 0


def test_a_cached_answer_is_remembered_with_its_entry() -> None:
    school = School()
    school.lessons.served("one", "me", "entry", cache_pb.TIER_SEMANTIC)
    answered = school.lessons.report("one", "me", 0.0)
    assert answered is not None
    assert (answered.entry_id, answered.tier) == ("entry", cache_pb.TIER_SEMANTIC)
    assert len(school.posteriors) == 0


def test_the_oldest_answers_are_forgotten() -> None:
    school = School(remembered=2)
    for request_id in ("one", "two", "three"):
        school.finish(request_id)
    assert school.lessons.report("one", "me", 1.0) is None
    assert school.lessons.report("three", "me", 1.0) is not None


def test_answers_that_end_as_they_should_teach_a_little() -> None:
    """Else who answers most has the most against it, for what goes wrong is always heard of."""
    often, seldom = School(), School()
    for number in range(200):
        often.finish(f"r{number}", chat_pb2.FINISH_REASON_LENGTH if number % 100 == 0 else chat_pb2.FINISH_REASON_STOP)
    seldom.finish("one", chat_pb2.FINISH_REASON_LENGTH)
    assert often.mean() > 0.6 > seldom.mean()


def test_a_policy_without_learning_learns_nothing() -> None:
    school = School()
    school.decision = replace(school.decision, learning=Learning.OFF)
    school.finish("one", chat_pb2.FINISH_REASON_LENGTH)
    answered = school.lessons.report("one", "me", 0.0)
    assert answered is not None and answered.arm is None
    assert len(school.posteriors) == 0


def test_what_learning_would_choose_and_what_it_has_chosen_are_counted() -> None:
    school = School()
    names = ({"choice": "same"}, {"choice": "other"})
    before = [*(count("joulegate_router_proposals_total", **labels) for labels in names), count("joulegate_router_explored_total")]
    for decision in (
        replace(school.decision, proposal=None),
        replace(school.decision, proposal=Proposal(0)),
        replace(school.decision, proposal=Proposal(1)),
        replace(school.decision, proposal=Proposal(1), explored=True),
    ):
        school.lessons.decided(decision)
    after = [*(count("joulegate_router_proposals_total", **labels) for labels in names), count("joulegate_router_explored_total")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 2, 1]
