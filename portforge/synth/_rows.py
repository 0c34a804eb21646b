"""Collect rows as arrays and make one frame of contract 1 of them. Knows no traffic."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from portforge.schema import COLUMNS, SORT_COLUMNS
from portforge.synth._pods import NODES, Ints, Pods

__all__ = ["ORDER", "Rows"]

ORDER = [*SORT_COLUMNS, "peer_ip", "last_seen", "pod", "verdict"]
"""The columns that the rows of a frame are sorted by."""

Texts = npt.NDArray[np.object_]
_CONSTANT = (
    *("direction", "protocol", "target_port", "verdict", "what", "truth", "peer_name"),
    *("peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload"),
)
_TEXT = [c.name for c in COLUMNS if str(c.type).startswith("dictionary")]


class Rows:
    """Grows by :meth:`add`; :meth:`frame` ends it."""

    def __init__(self, pods: Pods, rng: np.random.Generator) -> None:
        self._pods, self._rng = pods, rng
        self._plans: list[tuple[Any, ...]] = []
        self._parts: list[tuple[Any, ...]] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(
        self,
        pod: Ints,
        at: Ints,
        peer_ip: Texts,
        *,
        connections: Ints | int = 1,
        sent: Ints | int = 0,
        received: Ints | int = 0,
        lasts: int = 3,
        port: Ints | int,
        **constant: Any,
    ) -> None:
        """Rows of these pods at these seconds.

        Parameters
        ----------
        lasts: most seconds from the first to the last event.
        constant: the columns that all rows share; ``what`` they are, and ``truth``, the number
            of the needed item, -1 for none.
        """
        if not len(pod):
            return
        size = len(pod)
        self._plans.append(tuple(constant.get(name) for name in _CONSTANT))
        wide = [np.broadcast_to(np.asarray(v), size) for v in (port, connections, sent, received)]
        last = at + self._rng.integers(0, lasts + 1, size)
        plan = np.full(size, len(self._plans) - 1)
        self._parts.append((plan, pod, at, last, peer_ip, *wide))

    def frame(self, start: datetime, end: int, cluster: str) -> pd.DataFrame:
        """All rows that begin before ``end`` seconds, sorted, with ``what`` and ``truth``."""
        plan, pod, first, last, peer_ip, port, connections, sent, received = (
            np.concatenate(part) for part in zip(*self._parts, strict=True)
        )
        table = pd.DataFrame(self._plans, columns=list(_CONSTANT)).astype(object)
        pods = self._pods
        owner = np.array(pods.owner)[pod]
        names = np.array([tuple(w) for w in pods.workloads], dtype=object)[owner]
        jitter = self._rng.integers(0, 1_000_000, len(first))
        base = pd.Timestamp(start).tz_convert("UTC").as_unit("us")
        frame = pd.DataFrame(
            {
                "first_seen": base + pd.to_timedelta(first * 1_000_000 + jitter, unit="us"),
                "last_seen": base + pd.to_timedelta(last * 1_000_000 + jitter, unit="us"),
                "node": np.array(NODES, dtype=object)[np.array(pods.node)[pod]],
                "namespace": names[:, 0],
                "workload_kind": names[:, 1],
                "workload": names[:, 2],
                "pod": np.array(pods.names, dtype=object)[pod],
                "peer_ip": peer_ip,
                "connections": connections.astype(np.int64),
                "bytes_sent": sent.astype(np.int64),
                "bytes_received": received.astype(np.int64),
                "retransmits": 0,
                "rule": None,
            }
        )
        for name in _CONSTANT:
            frame[name] = table[name].to_numpy()[plan]
        frame["port"] = port.astype(np.int32)
        frame["target_port"] = frame["target_port"].astype("Int32")
        frame["rtt_us"] = pd.array([pd.NA] * len(frame), dtype="Int64")
        frame["truth"] = frame["truth"].astype(np.int64)
        frame["cluster"], frame["date"] = cluster, frame["first_seen"].dt.date
        frame = frame[first < end]
        frame = frame.astype(dict.fromkeys([*_TEXT, "what"], "str"))
        frame = frame.sort_values(ORDER, kind="stable", ignore_index=True)
        return frame[[*(c.name for c in COLUMNS), "cluster", "date", "what", "truth"]]
