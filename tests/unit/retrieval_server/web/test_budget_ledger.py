"""The account of calls: budgets that hold across days, restarts, kills and servers."""

import asyncio
import signal
import subprocess
import sys

import pytest

from retrieval_server.sources import BudgetExhaustedError, UnavailableError
from retrieval_server.web.budget_ledger import Budget, Ledger
from seg_common.errors import UsageError

DAY_S = 86_400.0


@pytest.fixture
def open_ledger(tmp_path):
    opened = []

    def build(
        budget=None,
        *,
        provider="serper",
        usd=0.001,
        run="r",
        clock=lambda: 0.0,
        path=tmp_path / "state" / "spend.sqlite",
    ):
        opened.append(
            Ledger(
                path, provider, usd_per_call=usd, budget=budget or Budget(), run=run, clock=clock
            )
        )
        return opened[-1]

    yield build
    for ledger in opened:
        ledger.close()


async def charge(ledger, times=1):
    for _ in range(times):
        await ledger.charge()


async def test_calls_and_money_are_counted(open_ledger):
    ledger = open_ledger()
    await charge(ledger, 3)
    receipt = await ledger.charge()
    await ledger.refund(receipt)
    spent = await ledger.spent()
    assert (spent["day"].calls, spent["run"].calls) == (3, 3)
    assert spent["day"].micro_usd == 3_000


BUDGETS = [
    (Budget(calls_per_day=2), "today's search budget of 2 calls is used up"),
    (Budget(calls_per_run=2), "this run's search budget of 2 calls is used up"),
    (Budget(usd_per_day=0.0025), r"today's search budget of \$0\.0025 is used up"),
    (Budget(usd_per_run=0.002), r"this run's search budget of \$0\.002 is used up"),
]


@pytest.mark.parametrize(("budget", "said"), BUDGETS)
async def test_a_budget_ends(budget, said, open_ledger):
    ledger = open_ledger(budget)
    await charge(ledger, 2)
    with pytest.raises(BudgetExhaustedError, match=said):
        await ledger.charge()
    assert (await ledger.spent())["run"].calls == 2


async def test_nothing_may_be_spent_of_nothing(open_ledger):
    with pytest.raises(BudgetExhaustedError):
        await open_ledger(Budget(calls_per_day=0)).charge()


async def test_a_refund_makes_room(open_ledger):
    ledger = open_ledger(Budget(calls_per_day=1))
    await ledger.refund(await ledger.charge())
    await ledger.charge()


async def test_a_restart_forgets_nothing_and_a_new_day_begins_anew(open_ledger):
    budget = Budget(calls_per_day=2, calls_per_run=3)
    await charge(open_ledger(budget), 2)
    with pytest.raises(BudgetExhaustedError, match="today"):
        await open_ledger(budget).charge()
    tomorrow = open_ledger(budget, clock=lambda: DAY_S)
    await tomorrow.charge()
    with pytest.raises(BudgetExhaustedError, match="this run"):
        await tomorrow.charge()
    await open_ledger(budget, clock=lambda: DAY_S, run="another").charge()


async def test_providers_have_accounts_of_their_own(open_ledger):
    await charge(open_ledger(Budget(calls_per_day=1)))
    await charge(open_ledger(Budget(calls_per_day=1), provider="tavily"))


async def test_servers_that_share_the_file_share_the_budget(open_ledger):
    ledgers = [open_ledger(Budget(calls_per_day=50)) for _ in range(4)]
    answers = await asyncio.gather(
        *(ledgers[n % 4].charge() for n in range(80)), return_exceptions=True
    )
    assert sum(not isinstance(answer, Exception) for answer in answers) == 50
    assert {type(answer) for answer in answers if isinstance(answer, Exception)} == {
        BudgetExhaustedError
    }


KILLED = """
import asyncio, sys
from pathlib import Path
from retrieval_server.web.budget_ledger import Budget, Ledger
options = {"usd_per_call": 0.001, "budget": Budget(), "run": "r", "clock": lambda: 0.0}
ledger = Ledger(Path(sys.argv[1]), "serper", **options)
async def main():
    while True:
        await ledger.charge()
        print("paid", flush=True)
asyncio.run(main())
"""


async def test_a_killed_server_has_counted_what_it_paid(open_ledger, tmp_path):
    path = tmp_path / "killed.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE
    ) as process:
        for _ in range(50):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        paid = 50 + process.stdout.read().count(b"paid")
    counted = (await open_ledger(path=path).spent())["day"].calls
    assert paid <= counted <= paid + 1


async def test_an_account_that_cannot_be_written_pays_for_nothing(open_ledger, monkeypatch):
    import sqlite3

    ledger = open_ledger()

    class Locked:
        def execute(self, *args):
            raise sqlite3.OperationalError("database is locked")

        def close(self): ...

    monkeypatch.setattr(ledger, "_database", Locked())
    with pytest.raises(UnavailableError, match="database is locked"):
        await ledger.charge()


def test_a_file_that_is_no_account_is_a_usage_error(tmp_path):
    path = tmp_path / "spend.sqlite"
    path.write_bytes(
        b"this is text, and long enough to be looked at as a header of a database file" * 20
    )
    with pytest.raises(UsageError, match="--spend-file"):
        Ledger(path, "serper", usd_per_call=0, budget=Budget(), run="r")
