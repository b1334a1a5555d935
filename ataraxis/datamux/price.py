"""What a request costs, and the account that is charged before it is granted.

Code that is about to use resources calls `charge`. While a server answers a client, an
account of that client is set, which may refuse; elsewhere `charge` does nothing.
"""

from __future__ import annotations

import contextlib
import operator
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

from ataraxis.errors import TooExpensive

if TYPE_CHECKING:
    from ataraxis.config.limits import Limits


@dataclass(frozen=True)
class Price:
    """What something costs while it runs."""

    bytes_s: float = 0.0
    """Bytes generated per second."""
    samples_hz: float = 0.0
    """Samples generated per second."""
    memory_bytes: int = 0
    """Memory in which they are generated."""
    recording_bytes: int = 0
    """Memory of recordings that are read."""
    files: int = 0
    """Open files."""
    streams: int = 0
    """Streams, each with a thread."""

    def __add__(self, other: Price) -> Price:
        return Price(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: Price) -> Price:
        return Price(*map(operator.sub, astuple(self), astuple(other)))


# The unit of each part of a price, and what to ask for instead.
_WORDS = {
    "bytes_s": ("bytes per second", "a lower rate or speed, or fewer channels"),
    "samples_hz": ("samples per second", "a lower rate or speed"),
    "memory_bytes": ("bytes of memory", "smaller samples, or fewer channels"),
    "recording_bytes": ("bytes of recordings in memory", "fewer recordings at a time"),
    "files": ("open files", "fewer recordings at a time"),
    "streams": ("streams", "fewer: stop one"),
}


class Ledger:
    """The expenses of all clients of a server, and their limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.spent = Price()
        self.lock = threading.Lock()


class Account:
    """The expenses of one client, also counted in the server's ledger.

    Examples
    --------
    >>> from ataraxis.config.limits import Limits
    >>> account = Account(Ledger(Limits(memory_bytes=10)))
    >>> with account.bill() as bill:
    ...     charge(Price(memory_bytes=8))
    >>> bill.price.memory_bytes, account.spent.memory_bytes
    (8, 8)
    >>> bill.pay_back()
    >>> account.spent.memory_bytes
    0
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.spent = Price()

    def _take(self, price: Price) -> None:
        ledger = self._ledger
        with ledger.lock:
            mine = self.spent + price
            for item in fields(price):
                name = item.name
                asked, total = getattr(price, name), getattr(mine, name)
                if not asked:
                    continue
                most = getattr(ledger.limits, name, None)
                if most is not None and not total <= most:
                    raise _refused(name, asked, total, most, name)
                everyone = getattr(ledger.limits, f"all_{name}", None)
                if everyone is None:
                    continue
                # A client may use as much of the total as it leaves free: half, if it
                # is alone. So each client leaves a share to the next.
                free = everyone - getattr(ledger.spent, name)
                if not total <= free:
                    raise _refused(name, asked, total, free, f"all_{name}")
            self.spent, ledger.spent = mine, ledger.spent + price

    def _give(self, price: Price) -> None:
        with self._ledger.lock:
            self.spent = self.spent - price
            self._ledger.spent = self._ledger.spent - price

    @contextlib.contextmanager
    def bill(self) -> Iterator[Bill]:
        """Charge this account for everything inside a ``with``, in this thread.

        If it fails, everything is paid back at once.
        """
        made = Bill(self)
        token = _bill.set(made)
        try:
            yield made
        except BaseException:
            made.pay_back()
            raise
        finally:
            _bill.reset(token)


def _refused(
    name: str, asked: float, total: float, most: float, limit: str
) -> TooExpensive:
    what, cure = _WORDS[name]
    return TooExpensive(
        f"the request needs {asked:.6g} {what}, {total:.6g} with the client's others: "
        f"at most {max(0, most):.6g} now ({limit}). Ask for {cure}"
    )


class Bill:
    """The expenses of one request, until they are paid back."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._lock = threading.Lock()
        self.price = Price()

    def add(self, price: Price) -> None:
        """Charge the account, or raise."""
        self._account._take(price)  # noqa: SLF001 - two halves of one mechanism
        with self._lock:
            self.price = self.price + price

    def pay_back(self, price: Price | None = None) -> None:
        """Pay a part back, or everything; a second call does nothing."""
        with self._lock:
            given = self.price if price is None else price
            self.price = self.price - given
        self._account._give(given)  # noqa: SLF001


_bill: ContextVar[Bill | None] = ContextVar("ataraxis_bill", default=None)


def charge(price: Price) -> None:
    """Charge the current bill, if one is set, for what follows.

    Raises `TooExpensive`, with nothing charged, if it exceeds the client's limits.
    """
    bill = _bill.get()
    if bill is not None:
        bill.add(price)


def refund(price: Price) -> None:
    """Pay back to the current bill what was charged."""
    bill = _bill.get()
    if bill is not None:
        bill.pay_back(price)
