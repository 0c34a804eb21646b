"""In which hours something was seen: a set of hours since the epoch, held as bits. Pure.

Ninety days are 2,160 hours for every edge; what is asked of them is nearly always how many there
are, on how many days, and the union of several. With bits that is one step each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Hours", "all_hours"]

_DAY = 24


class Hours:
    """A set of whole hours since the epoch; days are days of UTC.

    >>> hours = Hours([25, 24, 3])
    >>> list(hours), len(hours), hours.days, hours.first, hours.last
    ([3, 24, 25], 3, 2, 3, 25)
    >>> hours.runs()
    [(3, 3), (24, 25)]
    >>> Hours([4]) | hours == Hours([3, 4, 24, 25]), 24 in hours, bool(Hours())
    (True, True, False)
    """

    __slots__ = ("_base", "_bits")

    def __init__(self, hours: Iterable[int] | npt.NDArray[Any] = ()) -> None:
        some = np.asarray(hours if isinstance(hours, np.ndarray) else list(hours), np.int64)
        self._base, self._bits = 0, 0
        if len(some):
            self._base = int(some.min()) // _DAY * _DAY
            marks = np.zeros(int(some.max()) - self._base + 1, bool)
            marks[some - self._base] = True
            packed = np.packbits(marks, bitorder="little").tobytes()
            self._bits = int.from_bytes(packed, "little")

    @property
    def first(self) -> int:
        """The first hour; there must be one."""
        return self._base + (self._bits & -self._bits).bit_length() - 1

    @property
    def last(self) -> int:
        """The last hour; there must be one."""
        return self._base + self._bits.bit_length() - 1

    @property
    def days(self) -> int:
        """On how many days."""
        size = -(-self._bits.bit_length() // _DAY) * 3
        whole = np.frombuffer(self._bits.to_bytes(size, "little"), np.uint8)
        return int(whole.reshape(-1, 3).any(axis=1).sum())

    def runs(self) -> list[tuple[int, int]]:
        """First and last hour of each stretch without a break."""
        found = self._array()
        if not len(found):
            return []
        breaks = np.flatnonzero(np.diff(found) > 1)
        starts, ends = np.r_[found[0], found[breaks + 1]], np.r_[found[breaks], found[-1]]
        return list(zip(starts.tolist(), ends.tolist(), strict=True))

    def since(self, hour: int) -> Hours:
        """Those from ``hour`` on."""
        found = self._array()
        return Hours(found[found >= hour])

    def __or__(self, other: Hours) -> Hours:
        if not other._bits or not self._bits:
            return self if self._bits else other
        low, high = (self, other) if self._base <= other._base else (other, self)
        made = Hours()
        made._base = low._base
        made._bits = low._bits | high._bits << (high._base - low._base)
        return made

    def __contains__(self, hour: int) -> bool:
        return hour >= self._base and bool(self._bits >> (hour - self._base) & 1)

    def __iter__(self) -> Iterator[int]:
        return iter(self._array().tolist())

    def __len__(self) -> int:
        return self._bits.bit_count()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hours):
            return NotImplemented
        return (self._base, self._bits) == (other._base, other._bits)

    def __hash__(self) -> int:
        return hash((self._base, self._bits))

    def __repr__(self) -> str:
        return f"Hours({list(self)})"

    def _array(self) -> npt.NDArray[np.int64]:
        size = -(-self._bits.bit_length() // 8)
        whole = np.frombuffer(self._bits.to_bytes(size, "little"), np.uint8)
        return np.flatnonzero(np.unpackbits(whole, bitorder="little")) + self._base


def all_hours(some: Iterable[Hours]) -> Hours:
    """The hours of all of them together.

    >>> all_hours([Hours([1, 2]), Hours([2, 49])])
    Hours([1, 2, 49])
    """
    made = Hours()
    for one in some:
        made |= one
    return made
