"""What calls cost, kept in a file: budgets hold across restarts, kills, and several servers that
share the file.

A call is paid for in the ledger before it is made and refunded if the provider did not charge for
it, so that a killed server has counted too much rather than too little.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from retrieval_server.sources import BudgetExhaustedError, UnavailableError
from seg_common.errors import UsageError

_BUSY_S = 10.0
_MICRO = 1_000_000
_TABLE = """
CREATE TABLE IF NOT EXISTS spend (
  provider TEXT NOT NULL, period TEXT NOT NULL, calls INTEGER NOT NULL, micro_usd INTEGER NOT NULL,
  PRIMARY KEY (provider, period)
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent; None is no limit. A day is one of UTC, a run is whatever has its
    name.
    """

    calls_per_day: int | None = None
    usd_per_day: float | None = None
    calls_per_run: int | None = None
    usd_per_run: float | None = None


@dataclass(frozen=True, slots=True)
class Spending:
    """What was spent in one period."""

    calls: int = 0
    micro_usd: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """One call as it was entered."""

    periods: tuple[str, str]
    micro_usd: int


class Ledger:
    """Counts the calls to one provider. All disk work happens on one thread of its own."""

    def __init__(
        self,
        path: Path,
        provider: str,
        *,
        usd_per_call: float,
        budget: Budget,
        run: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open or make the file.

        Raises:
            UsageError: it cannot be used.
        """
        self._path, self._provider, self._budget, self._run, self._clock = (
            path,
            provider,
            budget,
            run,
            clock,
        )
        self._micro_usd = round(usd_per_call * _MICRO)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._database = self._thread.submit(self._open).result()

    async def charge(self) -> Receipt:
        """Enter one call.

        Raises:
            BudgetExhaustedError: it would exceed the budget.
            UnavailableError: it cannot be entered.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._charge)

    async def refund(self, receipt: Receipt) -> None:
        """Take a call back that was not charged for."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._refund, receipt)

    async def spent(self) -> dict[str, Spending]:
        """Tell what was spent in this day and this run."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._spent)

    def close(self) -> None:
        """Close the file."""
        self._thread.submit(self._database.close).result()
        self._thread.shutdown()

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            raise UsageError(
                f"{self._path}: cannot keep account of the calls there ({error}); choose another"
                " --spend-file"
            ) from None
        return database

    def _periods(self) -> tuple[str, str]:
        return time.strftime("day %Y-%m-%d", time.gmtime(self._clock())), f"run {self._run}"

    def _charge(self) -> Receipt:
        day, run = periods = self._periods()
        budget = self._budget
        with self._transaction():
            self._check_fits(day, "today's", budget.calls_per_day, budget.usd_per_day)
            self._check_fits(run, "this run's", budget.calls_per_run, budget.usd_per_run)
            for period in periods:
                self._add(period, 1, self._micro_usd)
        return Receipt(periods, self._micro_usd)

    def _check_fits(
        self, period: str, whose: str, max_calls: int | None, max_usd: float | None
    ) -> None:
        spent = self._read(period)
        if max_calls is not None and spent.calls + 1 > max_calls:
            raise BudgetExhaustedError(f"{whose} search budget of {max_calls} calls is used up")
        if max_usd is not None and spent.micro_usd + self._micro_usd > round(max_usd * _MICRO):
            raise BudgetExhaustedError(f"{whose} search budget of ${max_usd:g} is used up")

    def _refund(self, receipt: Receipt) -> None:
        with self._transaction():
            for period in receipt.periods:
                self._add(period, -1, -receipt.micro_usd)

    @contextmanager
    def _transaction(self) -> Generator[None]:
        try:
            # IMMEDIATE: nobody else may read between our look and our entry.
            self._database.execute("BEGIN IMMEDIATE")
            is_done = False
            try:
                yield
                is_done = True
            finally:
                self._database.execute("COMMIT" if is_done else "ROLLBACK")
        except sqlite3.Error as error:
            raise UnavailableError(f"the account of calls cannot be written ({error})") from None

    def _add(self, period: str, calls: int, micro_usd: int) -> None:
        self._database.execute(
            "INSERT INTO spend VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET calls = calls +"
            " excluded.calls, micro_usd = micro_usd + excluded.micro_usd",
            (self._provider, period, calls, micro_usd),
        )

    def _read(self, period: str) -> Spending:
        query = "SELECT calls, micro_usd FROM spend WHERE provider = ? AND period = ?"
        row = self._database.execute(query, (self._provider, period)).fetchone()
        return Spending(*row) if row else Spending()

    def _spent(self) -> dict[str, Spending]:
        day, run = self._periods()
        return {"day": self._read(day), "run": self._read(run)}
