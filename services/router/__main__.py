"""The router process: where its parts are made and joined."""

import random
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from joulegate.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from joulegate.cache.v1.flight_service_pb2_grpc import FlightServiceStub
from joulegate.chat.v1.chat_service_pb2_grpc import add_ChatServiceServicer_to_server
from joulegate.dispatch.v1.dispatch_service_pb2_grpc import DispatchServiceStub
from joulegate.ledger.v1.key_service_pb2_grpc import KeyServiceStub
from joulegate.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from joulegate.ledger.v1.policy_service_pb2_grpc import PolicyServiceStub
from joulegate.ledger.v1.rates_service_pb2_grpc import RatesServiceStub
from joulegate.openai.v1.openai_service_pb2_grpc import add_OpenAIServiceServicer_to_server
from joulegate.ops.v1.cache_ops_service_pb2_grpc import add_CacheOpsServiceServicer_to_server
from joulegate.ops.v1.ops_service_pb2_grpc import add_OpsServiceServicer_to_server
from joulegate.ops.v1.routing_service_pb2_grpc import add_RoutingServiceServicer_to_server
from joulegate.router.v1.feedback_service_pb2_grpc import add_FeedbackServiceServicer_to_server
from joulegate.router.v1.router_service_pb2_grpc import add_RouterServiceServicer_to_server
from services.router.books import open_books
from services.router.cache_ops_servicer import CacheOpsServicer
from services.router.callers import open_callers
from services.router.chat_servicer import ChatServicer
from services.router.complexity import Scorer
from services.router.decision_log import RecordedSelection, open_log
from services.router.families import Families, read_declared
from services.router.feedback_servicer import FeedbackServicer
from services.router.forecast import Forecast
from services.router.intake import Intake
from services.router.learning import Explorer, Posteriors
from services.router.leases import Accounts
from services.router.lessons import Lessons
from services.router.live_policy import PolicyVersion, open_policy
from services.router.near_cache import NearCache
from services.router.openai_servicer import OpenAIServicer
from services.router.ops_servicer import OpsServicer
from services.router.output_lengths import OutputLengths
from services.router.pipeline import LookupBounds, Pipeline
from services.router.policy import configured, document_of
from services.router.provider_watch import watch_providers
from services.router.ranking import Ranking
from services.router.rates import Rates, watch_rates
from services.router.relay import open_relay
from services.router.reservations import open_reservations
from services.router.router_servicer import RouterServicer
from services.router.routing_servicer import RoutingServicer
from services.router.selection import Selection
from services.router.settings import RouterSettings
from services.router.slate import Slates
from services.runtime import app
from services.runtime.admin_key import AdminKey
from services.runtime.clock import Clock, SystemClock
from services.runtime.config_file import read_config
from services.runtime.identity import StaticKey
from services.runtime.mesh import Mesh
from services.runtime.settings import SettingsError


@asynccontextmanager
async def build(settings: RouterSettings, mesh: Mesh) -> AsyncIterator[None]:
    """The router on a mesh."""
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        ledger = LedgerServiceStub(mesh.channel("ledger"))
        dispatch = DispatchServiceStub(mesh.channel("dispatch"))
        cache = CacheServiceStub(mesh.channel("cache"))
        accounts = Accounts()
        router_id = str(uuid.uuid4())
        books = await stack.enter_async_context(
            open_books(ledger, router_id, settings.ledger_wait_s, accounts.revoke, mesh.own_cpu("router"))
        )
        reservations = await stack.enter_async_context(open_reservations(books, accounts, clock))
        watch = await stack.enter_async_context(watch_providers(dispatch))
        near_cache = NearCache(settings.near_cache_bytes, settings.near_cache_ttl_s)
        rates = await stack.enter_async_context(watch_rates(RatesServiceStub(mesh.channel("ledger")), watch))
        lengths, policies = OutputLengths(), PolicyServiceStub(mesh.channel("ledger"))
        posteriors = Posteriors()
        learner = Explorer(posteriors, random.Random())
        selection, version = await _selection(settings, rates, lengths, learner, clock, stack)
        live = await stack.enter_async_context(open_policy(policies, version, selection.apply))
        lessons = Lessons(posteriors)
        lookup_s = LookupBounds(exact=settings.cache_lookup_s, reworded=settings.rewording_s)
        pipeline = Pipeline(
            watch,
            selection,
            lengths,
            cache,
            dispatch,
            books,
            reservations,
            near_cache,
            lessons,
            clock,
            lookup_s,
            settings.request_timeout_s,
            settings.verified_share,
        )
        stack.push_async_callback(pipeline.close)
        exchange = FlightServiceStub(mesh.channel("cache"))
        await stack.enter_async_context(open_relay(exchange, router_id, pipeline.flights, mesh.draining, settings.drain_s))
        keys, static_key = KeyServiceStub(mesh.channel("ledger")), StaticKey(settings.gateway_api_key)
        callers = await stack.enter_async_context(open_callers(static_key, settings.auth_required, keys, clock, settings.ledger_wait_s))
        intake = Intake(callers, settings.cache_enabled, settings.request_timeout_s, settings.cache_mode, settings.public_namespaces)
        add_OpenAIServiceServicer_to_server(OpenAIServicer(intake, pipeline, watch, selection.slates), mesh.registry)
        add_ChatServiceServicer_to_server(ChatServicer(intake, pipeline), mesh.registry)
        add_RouterServiceServicer_to_server(RouterServicer(intake, watch, selection), mesh.registry)
        add_FeedbackServiceServicer_to_server(FeedbackServicer(intake, lessons, cache, near_cache), mesh.registry)
        cache_ops = CacheOpsServicer(intake, watch, cache, ledger, near_cache, AdminKey(settings.admin_api_key))
        add_CacheOpsServiceServicer_to_server(cache_ops, mesh.registry)
        routing = RoutingServicer(live, policies, AdminKey(settings.admin_api_key))
        add_RoutingServiceServicer_to_server(routing, mesh.registry)
        ops = OpsServicer(intake, watch, books, ledger, clock, settings.environment_name, settings.cache_enabled)
        add_OpsServiceServicer_to_server(ops, mesh.registry)
        yield


async def _selection(
    settings: RouterSettings, rates: Rates, lengths: OutputLengths, learner: Explorer, clock: Clock, stack: AsyncExitStack
) -> tuple[Selection, PolicyVersion]:
    """Who chooses, and by which policy at first. Raises SettingsError for what joulegate.toml says wrong."""
    config = read_config(settings.config)
    policy, document = configured(config, settings.routing_strategy, settings.router_weights), document_of(config)
    declared = read_declared(config)
    slates, scorer = Slates(policy, Families(declared), rates), Scorer.load()
    version = PolicyVersion(policy, 0, document)
    if settings.routing_log is None:
        ranking = Ranking(clock.monotonic, random.random)
        return Selection(slates, ranking, Forecast(rates, lengths), scorer, learner, clock.monotonic), version
    try:
        decisions = await stack.enter_async_context(open_log(settings.routing_log))
    except OSError as error:
        raise SettingsError([f"ROUTING_LOG={str(settings.routing_log)!r}: {error.strerror}"]) from None
    return RecordedSelection(policy, document, declared, slates, rates, lengths, scorer, learner, clock.monotonic, decisions), version


def main() -> int:
    return app.run("router", RouterSettings, build)


if __name__ == "__main__":
    sys.exit(main())
