"""Keeps the lists of models that providers offer up to date, in the background."""

import asyncio
from collections.abc import Awaitable, Callable

from services.dispatch import metrics
from services.dispatch.failure import Failure
from services.dispatch.roster import Provider, Roster
from services.runtime import logs

INTERVAL_S = 60.0

log = logs.get(__name__)


async def keep_listed(roster: Roster, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
    """Asks at once and every minute, until cancelled."""
    while True:
        await asyncio.gather(*(refresh(provider, roster) for provider in roster if provider.is_listed_by_itself))
        await sleep(INTERVAL_S)


async def refresh(provider: Provider, roster: Roster) -> None:
    """Asks one provider. One that does not answer keeps what it had, and may be asked for anything."""
    before = (provider.models, provider.accepts_unlisted_models, provider.is_present)
    try:
        models = await provider.backend.list_models()
    except Failure as failure:
        if not provider.is_present:
            # It was only looked for, and is not there.
            return
        metrics.LISTING_FAILURES.labels(provider.name).inc()
        if not provider.accepts_unlisted_models or not provider.models:
            log.warning("models_not_listed", provider=provider.name, summary=failure.summary)
        provider.accepts_unlisted_models = True
    else:
        provider.models = list(models)
        provider.accepts_unlisted_models = False
        provider.is_present = True
    if before != (provider.models, provider.accepts_unlisted_models, provider.is_present):
        roster.touch()
