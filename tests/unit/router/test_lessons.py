import random

from prometheus_client import REGISTRY

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2
from services.router.decision import Decision
from services.router.learning import Arm, Explorer, Posteriors, cluster_of
from services.router.lessons import Lessons
from tests.unit.router.pictures import Scene, Served

TARGET = ("lab", "small")


class School:
    """Lessons over two equal candidates, and what they teach."""

    def __init__(self, remembered: int = 10) -> None:
        self.posteriors = Posteriors()
        self.lessons = Lessons(self.posteriors, Explorer(self.posteriors, random.Random(5)), remembered)
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
    assert school.mean() == 0.6
    assert school.lessons.report("one", "stranger", 0.0) is None
    assert school.lessons.report("never", "me", 0.0) is None
    assert school.mean() == 0.6
    first = school.lessons.report("one", "me", 0.0)
    assert first is not None and not first.is_reported
    after = school.mean()
    assert after < 0.6
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


def test_what_learning_would_have_chosen_is_counted_and_not_done() -> None:
    school = School()
    worse, better = school.decision.contenders
    assert (worse.provider, worse.model) == school.decision.ranked[0].target
    assert school.decision.complexity is not None
    cluster = cluster_of(school.decision.complexity)
    for _ in range(200):
        school.posteriors.observe(Arm(cluster, worse.provider, worse.model), 0.0)
        school.posteriors.observe(Arm(cluster, better.provider, better.model), 1.0)
    before = {choice: count("joulegate_router_proposals_total", choice=choice) for choice in ("same", "other")}
    for _ in range(1000):
        school.lessons.consider(school.decision, may_explore=True)
    for _ in range(1000):
        school.lessons.consider(school.decision, may_explore=False)
    assert count("joulegate_router_proposals_total", choice="other") - before["other"] == 20
    assert count("joulegate_router_proposals_total", choice="same") - before["same"] == 1980
