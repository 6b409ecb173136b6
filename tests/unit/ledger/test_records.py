"""Records that cannot be booked are named; what clients and providers make up is bounded, not refused."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1.receipt_pb2 import CostBasis, EnergyBasis
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.entry_pb2 import Outcome, TokenCounts
from services.ledger import intake
from services.ledger.booking import Batch
from services.ledger.records import LOST_OUTPUT_TOKENS, LetIn, acknowledgement, entry, lost_row
from services.runtime.errors import GatewayError
from services.runtime.own_cpu import OwnCpu
from tests.unit.ledger.samples import BEGAN, attempt, hit, intent, new_figurer, opened, settled_rows_of, settlement

FIGURER = new_figurer()


@pytest.mark.parametrize(
    ("record", "param"),
    [
        (intent(""), "intents[1].request_id"),
        (intent("x" * 257), "intents[1].request_id"),
        (intent("r", estimated_input_tokens=-1), "intents[1].estimated_input_tokens"),
        (intent("r", max_output_tokens=-1), "intents[1].max_output_tokens"),
        (intent("r", create_time=Timestamp(seconds=-1)), "intents[1].create_time"),
        (intent("r", create_time=Timestamp(seconds=2**34)), "intents[1].create_time"),
        (intent("r", create_time=None), "intents[1].create_time"),
        (settlement("r", create_time=None), "settlements[1].create_time"),
        (settlement(""), "settlements[1].request_id"),
        (pb.Settlement(request_id="r", create_time=BEGAN), "settlements[1].attempts"),
        (settlement("r", attempt(1), attempt(1)), "settlements[1].attempts"),
        (settlement("r", attempt(1), attempt(-2)), "settlements[1].attempts[1].attempt"),
        (settlement("r", attempt(tokens=TokenCounts(input_tokens=-1))), "settlements[1].attempts[0].tokens.input_tokens"),
        (settlement("r", attempt(tokens=TokenCounts(output_tokens=2**62))), "settlements[1].attempts[0].tokens.output_tokens"),
        (settlement("r", attempt(outcome=Outcome.OUTCOME_UNSPECIFIED)), "settlements[1].attempts[0].outcome"),
        (settlement("r", attempt(outcome=Outcome.OUTCOME_LOST)), "settlements[1].attempts[0].outcome"),
        (settlement("r", attempt(1, Outcome.OUTCOME_CACHE_HIT)), "settlements[1].attempts[0].attempt"),
        (settlement("r", attempt(reported_cost_nano_usd=-1)), "settlements[1].attempts[0].reported_cost_nano_usd"),
        (settlement("r", hit(saved_energy_microjoules=2**62)), "settlements[1].attempts[0].saved_cost_nano_usd, saved_energy_microjoules"),
    ],
)
def test_record_that_cannot_be_booked_is_named(record: pb.Intent | pb.Settlement, param: str) -> None:
    request = (
        pb.BookRequest(intents=[intent("ok"), record])
        if isinstance(record, pb.Intent)
        else pb.BookRequest(settlements=[settlement("ok"), record])
    )
    with pytest.raises(GatewayError) as caught:
        Batch().add(request, "router")
    assert caught.value.metadata["param"] == param
    assert record.request_id.startswith(caught.value.metadata["request_id"])


def test_ordinary_records_pass() -> None:
    sent = pb.BookRequest(
        intents=[intent("a")], settlements=[settlement("a"), settlement("b", hit()), settlement("c", attempt(2), attempt(1))]
    )
    batch = Batch()
    batch.add(sent, "router")
    assert [key.request_id for key in batch.keys()] == ["a", "a", "b", "c"]  # noqa: SIM118


def test_names_and_bounds_that_clients_make_up_are_cut_to_size() -> None:
    let_in = intake.intent(intent("r", requested_model="m" * 10_000 + "\0", max_output_tokens=2**62, key_id="a\0b"), "router")
    assert isinstance(let_in, LetIn)
    kept = let_in.intent
    assert (len(kept.requested_model), kept.max_output_tokens, kept.key_id) == (512, 10**9, "ab")


def test_row_keeps_what_was_reported() -> None:
    tokens = TokenCounts(input_tokens=10, cached_input_tokens=4, output_tokens=7, reasoning_tokens=2, estimated=True)
    [row] = settled_rows_of(
        settlement("r", attempt(3, Outcome.OUTCOME_CLIENT_LEFT, tokens=tokens), streamed=True, create_time=Timestamp(seconds=5, nanos=7)),
        FIGURER,
    )
    shown = entry(row)
    assert (shown.request_id, shown.attempt, shown.key_id, shown.requested_model, shown.model) == ("r", 3, "k1", "auto", "gpt-4o")
    assert (shown.outcome, shown.streamed, shown.tokens_estimated) == (Outcome.OUTCOME_CLIENT_LEFT, True, True)
    assert (shown.input_tokens, shown.cached_input_tokens, shown.output_tokens, shown.reasoning_tokens) == (10, 4, 7, 2)
    assert shown.create_time == Timestamp(seconds=5, nanos=7)
    assert shown.zone == "USA"
    assert 0 < shown.carbon_low_micrograms < shown.carbon_micrograms < shown.carbon_high_micrograms


def test_carbon_spans_what_its_energy_spans() -> None:
    [row] = settled_rows_of(settlement("r"), FIGURER)
    shown = entry(row._replace(energy_low_microjoules=50, energy_microjoules=100, energy_high_microjoules=333, carbon_micrograms=1000))
    assert (shown.carbon_low_micrograms, shown.carbon_high_micrograms) == (500, 3330)
    shown = entry(row._replace(energy_low_microjoules=0, energy_microjoules=0, energy_high_microjoules=0, carbon_micrograms=0))
    assert (shown.carbon_low_micrograms, shown.carbon_high_micrograms) == (0, 0)


def test_hit_that_took_more_than_its_answer_saved_nothing() -> None:
    [row] = settled_rows_of(settlement("r", hit(saved_energy_microjoules=7000)), FIGURER)
    assert (row.saved_energy_microjoules, row.saved_carbon_micrograms) == (0, 0)


def test_what_the_provider_billed_beats_the_list() -> None:
    [row] = settled_rows_of(settlement("r", attempt(reported_cost_nano_usd=0)), FIGURER)
    assert (row.cost_nano_usd, row.cost_basis) == (0, CostBasis.COST_BASIS_REPORTED)


def test_cache_hit_costs_only_its_lookup() -> None:
    [row] = settled_rows_of(settlement("r", hit()), FIGURER)
    assert (row.cost_nano_usd, row.cost_basis) == (0, CostBasis.COST_BASIS_FREE)
    assert (row.energy_low_microjoules, row.energy_microjoules, row.energy_high_microjoules) == (5000, 7071, 10_000)
    assert (row.saved_cost_nano_usd, row.saved_energy_microjoules) == (650_000, 90_000_000 - 7071)
    # OpenAI's grid is that of the United States; 384 g/kWh by the table, and the look-up was made here.
    assert row.saved_carbon_micrograms == pytest.approx(90 / 3.6e6 * 384e6, rel=0.01)
    assert row.is_hit


def test_failed_attempt_without_tokens_took_nothing_and_one_with_a_prompt_took_its_prefill() -> None:
    failed, read = settled_rows_of(
        settlement(
            "r",
            attempt(1, Outcome.OUTCOME_FAILED, tokens=None),
            attempt(2, Outcome.OUTCOME_FAILED, tokens=TokenCounts(input_tokens=1000)),
        ),
        FIGURER,
    )
    assert (failed.energy_microjoules, failed.carbon_micrograms, failed.cost_nano_usd) == (0, 0, 0)
    assert read.energy_microjoules > 0


def test_acknowledgement_adds_up_the_attempts_and_takes_the_basis_of_the_last() -> None:
    rows = settled_rows_of(settlement("r", attempt(2, provider="demo", model="demo"), attempt(1)), FIGURER)
    ack = acknowledgement("r", rows)
    assert [row.attempt for row in rows] == [1, 2]
    assert ack.cost_nano_usd == rows[0].cost_nano_usd
    assert ack.cost_basis == CostBasis.COST_BASIS_FREE
    assert ack.energy.microjoules == rows[0].energy_microjoules + rows[1].energy_microjoules
    assert ack.energy.basis == EnergyBasis.ENERGY_BASIS_DEFAULT


def test_one_unknown_price_makes_the_sum_unknown() -> None:
    rows = settled_rows_of(settlement("r", attempt(1, provider="lab", model="x"), attempt(2)), FIGURER)
    assert acknowledgement("r", rows).cost_basis == CostBasis.COST_BASIS_UNKNOWN


@pytest.mark.parametrize(("bound", "booked"), [(77, 77), (0, LOST_OUTPUT_TOKENS)])
def test_lost_request_is_booked_as_if_it_had_run_to_its_bound(bound: int, booked: int) -> None:
    row = lost_row(opened(intent("r", max_output_tokens=bound, estimated_input_tokens=12)), FIGURER)
    assert (row.outcome, row.attempt, row.input_tokens, row.output_tokens) == (Outcome.OUTCOME_LOST, 1, 12, booked)
    assert row.tokens_estimated
    assert row.cost_nano_usd > 0


def test_the_gateways_own_joules_are_on_the_last_row_and_in_no_other_figure() -> None:
    figurer, tried_twice = new_figurer(), settlement("r1", attempt(2), attempt(1, Outcome.OUTCOME_FAILED), gateway_cpu_nanos=3_000_000)
    without = settled_rows_of(tried_twice, figurer)
    figurer.watts_per_core, figurer.own_cpu = 10.0, OwnCpu(lambda: 0, lambda: 0, 500_000)
    rows = settled_rows_of(tried_twice, figurer)
    # 3.5 milliseconds at 10 watts are 35 millijoules.
    assert [row.gateway_energy_microjoules for row in rows] == [0, 35_000]
    assert [row._replace(gateway_energy_microjoules=0) for row in rows] == without
    told = acknowledgement("r1", rows)
    assert told.gateway_energy_microjoules == 35_000
    assert told.energy == acknowledgement("r1", without).energy
