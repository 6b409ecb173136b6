"""Budgets for operators: makes and changes them, shows what is used of them, and has routers told that what they go by has changed."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import budget_pb2 as pb
from services.ledger import budget_messages
from services.ledger.budget_changes import BudgetReader, BudgetWriter, View
from services.ledger.budgets import Amounts
from services.ledger.windows import month_start
from services.runtime import logs
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError

log = logs.get(__name__)

T = TypeVar("T")
_ID_BYTES: Final = 8


class BudgetKeeper:
    """Everything that operators do with budgets. `changed` is awaited after each change."""

    def __init__(
        self, writer: BudgetWriter, reader: BudgetReader, thread: Executor, clock: Clock, changed: Callable[[], Awaitable[None]]
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._thread = thread
        self._clock = clock
        self._changed = changed

    async def create(self, message: pb.Budget) -> View:
        """A new budget, which counts what is booked in its window already. Raises GatewayError INVALID_REQUEST or NOT_FOUND."""
        now_ns = self._now_ns()
        budget = budget_messages.budget_of(message, f"budget_{secrets.token_hex(_ID_BYTES)}", now_ns)
        if not await self._ask(lambda: self._writer.insert(budget, now_ns)):
            raise GatewayError(ErrorReason.ERROR_REASON_NOT_FOUND, "there is no such key", {"param": "scope_id"})
        await self._note("budget_created", budget.budget_id)
        return await self.get(budget.budget_id)

    async def get(self, budget_id: str) -> View:
        """Raises GatewayError NOT_FOUND."""
        view = await self._ask(lambda: self._reader.view(budget_id, self._now_ns()))
        if view is None:
            raise _not_found()
        return view

    async def page(self, limit: int, after: str) -> list[View]:
        """Budgets by their ids, from the one after `after`."""
        return await self._ask(lambda: self._reader.views(limit, after, self._now_ns()))

    async def update(self, message: pb.Budget, paths: list[str]) -> View:
        """The budget with what the paths name changed. Raises GatewayError, NOT_FOUND among others."""
        changed = await self._ask(
            lambda: self._writer.change(message.budget_id, lambda budget: budget_messages.amended(budget, message, paths))
        )
        if changed is None:
            raise _not_found()
        await self._note("budget_changed", changed.budget_id)
        return await self.get(changed.budget_id)

    async def delete(self, budget_id: str) -> None:
        """Forgets a budget. Raises GatewayError INVALID_REQUEST or NOT_FOUND."""
        budget_messages.check_is_changeable(budget_id)
        if "\0" in budget_id or not await self._ask(lambda: self._writer.delete(budget_id)):
            raise _not_found()
        await self._note("budget_deleted", budget_id)

    async def everybody(self) -> tuple[Amounts, dict[int, int]]:
        """What everybody's calls took this month, and the limits of it by their measures."""
        return await self._ask(lambda: self._reader.everybody(month_start(self._now_ns())))

    async def _note(self, event: str, budget_id: str) -> None:
        log.info(event, budget_id=budget_id)
        await self._changed()

    def _now_ns(self) -> int:
        return int(self._clock.now() * 1e9)

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question)
        except SQLAlchemyError as error:
            log.error("budgets_unavailable", error=type(error).__name__)
            raise GatewayError(
                ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, "the budgets cannot be read or written", retry_after_s=1
            ) from None


def _not_found() -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_NOT_FOUND, "there is no such budget")
