"""Asks providers for their lists of models, in the background: to know the models, and to know who can be reached again.

A list costs nothing, so a provider that is not well is asked for it every few seconds. That shows that the way to it is open, not that it
answers questions: if it could not be reached before, the breakers let their probes go out at once, and a probe has to close them. Who
lists models all along while its answers fail gets no probe sooner.
"""

import asyncio
from collections.abc import Awaitable, Callable

from services.dispatch import metrics
from services.dispatch.breaker import State
from services.dispatch.failure import Failure, Kind
from services.dispatch.roster import Provider, Roster
from services.runtime import logs

CHECK_S = 5.0
# Every so many checks, all lists are asked for: once a minute.
CHECKS_PER_LISTING = 12

log = logs.get(__name__)


async def keep_listed(roster: Roster, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
    """Asks at once and every minute, and who is not well in between, until cancelled."""
    while True:
        for check in range(CHECKS_PER_LISTING):
            now = roster.now()
            due = [provider for provider in roster if _is_due(provider, now, is_listing=check == 0)]
            await asyncio.gather(*(refresh(provider, roster) for provider in due))
            await sleep(CHECK_S)


async def refresh(provider: Provider, roster: Roster) -> None:
    """Asks one provider. One that does not answer keeps what it had, and may be asked for anything."""
    before = (provider.models, provider.accepts_unlisted_models, provider.is_present)
    try:
        models = await provider.backend.list_models()
    except Failure as failure:
        if not provider.is_present:
            # It was only looked for, and is not there.
            return
        _missed(provider, failure, roster)
    else:
        if provider.is_listed_by_itself:
            provider.models = list(models)
            provider.accepts_unlisted_models = False
        provider.is_present = True
        _reached(provider, roster)
    if before != (provider.models, provider.accepts_unlisted_models, provider.is_present):
        roster.touch()


def _is_due(provider: Provider, now: float, *, is_listing: bool) -> bool:
    if is_listing and provider.is_listed_by_itself:
        return True
    return provider.is_present and not provider.is_well(now)


def _missed(provider: Provider, failure: Failure, roster: Roster) -> None:
    metrics.LISTING_FAILURES.labels(provider.name).inc()
    if provider.is_listed_by_itself:
        if not provider.accepts_unlisted_models or (provider.is_reachable and not provider.models):
            log.warning("models_not_listed", provider=provider.name, summary=failure.summary)
        provider.accepts_unlisted_models = True
    if failure.kind is Kind.REFUSED and 0 < failure.http_status < 500:
        # Who has no list, or none for this key, has said so.
        _reached(provider, roster)
    elif failure.kind is not Kind.WITHHELD:
        provider.is_reachable = False


def _reached(provider: Provider, roster: Roster) -> None:
    if provider.is_reachable:
        return
    provider.is_reachable = True
    now = roster.now()
    waiting = [breaker for _, breaker in provider.breakers if breaker.state(now) is State.OPEN]
    for breaker in waiting:
        breaker.hasten(now)
    if waiting:
        log.info("provider_reached_again", provider=provider.name)
        roster.touch()
