"""From when an edge was seen, as engines give it, to its hours. Vectors, no SQL."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["with_hours"]

_DAY = 24
_Ints = npt.NDArray[np.int64]


def with_hours(edges: pa.Table) -> pa.Table:
    """``seen`` replaced by ``hours``: a sorted list of hours since the epoch for each edge.

    Parameters
    ----------
    edges: with a column ``seen``, lists of {day, bits, first, last}: bit n is hour n of the day
        (above 23, of the next); where ``first`` is not null, every hour from it to ``last`` too.
    """
    place = edges.schema.get_field_index("seen")
    lists = edges.column(place).combine_chunks()
    items = lists.flatten()
    edge = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    day, bits = (_ints(items.field(name)) for name in ("day", "bits"))
    parts = [(edge, day, bits & 0xFFFFFF), (edge, day + 1, bits >> _DAY)]
    long = np.flatnonzero(np.asarray(items.field("first").is_valid()))
    for at in long.tolist():
        hours = np.arange(items.field("first")[at].as_py(), items.field("last")[at].as_py() + 1)
        parts.append((np.full(len(hours), edge[at]), hours // _DAY, 1 << (hours % _DAY)))
    column = _lists(len(lists), *(np.concatenate(part) for part in zip(*parts, strict=True)))
    return edges.set_column(place, "hours", column)


def _lists(edges: int, edge: _Ints, day: _Ints, bits: _Ints) -> pa.ListArray:
    """One list for each edge; the same edge and day may come several times, in any order."""
    used = bits != 0
    edge, day, bits = edge[used], day[used], bits[used]
    order = np.lexsort((day, edge))
    edge, day, bits = edge[order], day[order], bits[order]
    first = np.flatnonzero(np.r_[True, (np.diff(edge) != 0) | (np.diff(day) != 0)][: len(edge)])
    bits = np.bitwise_or.reduceat(bits, first) if len(first) else bits
    edge, day = edge[first], day[first]
    row, hour = np.nonzero((bits[:, None] >> np.arange(_DAY)) & 1)
    offsets = np.r_[0, np.cumsum(np.bincount(edge[row], minlength=edges))]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(day[row] * _DAY + hour))


def _ints(column: pa.Array) -> _Ints:
    found: _Ints = column.to_numpy(zero_copy_only=False).astype(np.int64)
    return found
