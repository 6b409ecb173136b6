"""The gate on a fixed sample: no near miss passes, and most other wordings do."""

from services.cache.gate import analyse, compare
from tests.unit.cache.gate.questions import groups

# Of the sample 85 % are served; below this a rule broke.
MIN_SERVED_SHARE = 0.80


def test_no_near_miss_is_served() -> None:
    wrong = []
    for group in groups():
        near_misses = [(text, analyse(text)) for text in group.different]
        for asked in group.same:
            analysis = analyse(asked)
            wrong += [(asked, text) for text, kept in near_misses if compare(analysis, kept) is None]
    assert wrong == []


def test_most_other_wordings_are_served() -> None:
    served = asked = 0
    for group in groups():
        kept = [analyse(group.same[0])]
        for text in group.same[1:]:
            analysis = analyse(text)
            asked += 1
            served += any(compare(analysis, other) is None for other in kept)
            kept.append(analysis)
    assert served >= MIN_SERVED_SHARE * asked


def test_order_of_comparison_does_not_matter() -> None:
    for group in groups():
        analyses = [analyse(text) for text in (*group.same, *group.different)]
        for one in analyses:
            assert [compare(one, other) is None for other in analyses] == [compare(other, one) is None for other in analyses]
