"""Put it all together: a cluster's flows over days, what of them was needed, and what was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from portforge.errors import WriteError
from portforge.schema import FLOW_SCHEMA, LOSS_PREFIX, LOSS_SCHEMA, LossReason, Workload
from portforge.synth._attacks import beacon, exfiltration, intruder, regular
from portforge.synth._graph import STORES, Call, Graph, Member
from portforge.synth._noise import (
    SCANNER,
    background,
    failures,
    listeners,
    open_ports,
    probes,
    scans,
)
from portforge.synth._pods import DAY, NODES, Pods
from portforge.synth._rows import ORDER, Rows
from portforge.synth._surroundings import with_surroundings
from portforge.synth._traffic import Truth, play

__all__ = ["MONDAY", "Synthetic", "cluster"]

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Synthetic:
    """A made-up capture and the truth about it.

    Attributes
    ----------
    flows: contract 1 with ``cluster`` and ``date``.
    truth: what is needed: workload, direction, protocol, ``port`` to ``end_port``, the peer (a
        workload, or ``peer_cidr``), ``kind``, ``first_needed`` (null: not in this window) and
        ``days``, the number of days it was needed on.
    losses: as ``Capture.losses()`` gives them.
    what: for each flow, what it is: needed, probe, listener, failure, background or scan; where
        asked for, also beacon, intruder and exfiltration.
    needed: for each flow, the row of ``truth`` it belongs to; -1 for none.
    """

    flows: pd.DataFrame = field(repr=False)
    truth: pd.DataFrame = field(repr=False)
    losses: pd.DataFrame = field(repr=False)
    what: pd.Series[str] = field(repr=False)
    needed: pd.Series[int] = field(repr=False)

    def __repr__(self) -> str:
        days = self.flows["date"].nunique()
        return f"Synthetic({len(self.flows)} flows, {len(self.truth)} needed, {days} days)"

    def write(self, folder: str | Path) -> Path:
        """Write it as a capture that ``open_capture`` reads; returns ``folder``.

        Raises
        ------
        WriteError: the folder is not empty, or cannot be written.
        """
        root = Path(folder)
        try:
            root.mkdir(parents=True, exist_ok=True)
            if any(root.iterdir()):
                raise WriteError("is not empty", place=str(root), remedy="choose another folder")
            for frame, schema, prefix in (
                (self.flows, FLOW_SCHEMA, ""),
                (self.losses, LOSS_SCHEMA, LOSS_PREFIX),
            ):
                parts = frame.groupby(["cluster", "date", "node"], sort=True)
                for (name, day, node), part in parts:
                    place = root / "v1" / f"cluster={name}" / f"date={day}"
                    place.mkdir(parents=True, exist_ok=True)
                    table = pa.Table.from_pandas(
                        part[schema.names], schema=schema, preserve_index=False
                    )
                    pq.write_table(
                        table.replace_schema_metadata(schema.metadata),
                        place / f"{prefix}{node}-{str(day).replace('-', '')}T000000Z-0.parquet",
                        compression="zstd",
                    )
        except OSError as wrong:
            raise WriteError(
                f"cannot be written ({wrong.strerror})",
                place=str(root),
                remedy="make room or check the permissions",
            ) from None
        return root


def cluster(
    graph: Graph,
    *,
    seed: int,
    days: int = 30,
    start: datetime = MONDAY,
    name: str = "synthetic",
    surroundings: bool = True,
    rollouts_per_week: float = 0.7,
    restarts_per_week: float = 0.3,
    scans_per_week: float = 1.5,
    strangers_per_day: float = 40.0,
    losses_per_week: float = 0.1,
    beacons: int = 0,
    intruders: int = 0,
    exfiltrations: int = 0,
    regular_calls: bool = False,
) -> Synthetic:
    """Days of traffic of a made-up cluster; the same arguments give the same rows.

    Parameters
    ----------
    start: a Monday at midnight, with time zone: the weekends and Sunday jobs are counted from it.
    surroundings: add DNS, monitoring, jobs, the outside and an FTP server.
    rollouts_per_week, restarts_per_week: means per workload, and per replica.
    scans_per_week, strangers_per_day: how much there is that must not be learned.
    losses_per_week: mean number of hours in which a node's recorder loses flows.
    beacons, intruders, exfiltrations: attacks that are answered, within the first week; they
        leave the other rows as they are, and the recorder loses none of them.
    regular_calls: add what is needed and as regular as a beacon: the time, metrics, a licence.

    >>> from portforge.synth import SOCK_SHOP
    >>> made = cluster(SOCK_SHOP, seed=1, days=2)
    >>> sorted(made.what.unique())[:3]
    ['background', 'failure', 'listener']
    """
    if days < 1 or start.tzinfo is None:
        raise ValueError("at least one day, and a start with a time zone")
    rng = np.random.default_rng([seed, days])
    plan = with_surroundings(graph, rng) if surroundings else graph
    entry = graph.members[0].workload
    plan = plan.add((Member(SCANNER, 1),), ())
    pods = Pods(
        plan.members,
        days,
        rng,
        rollouts_per_week=rollouts_per_week,
        restarts_per_week=restarts_per_week,
    )
    rows, truth, end = Rows(pods, rng), Truth(), days * DAY
    none = np.zeros(0, dtype=np.int64)
    jobs = {m.workload for m in plan.members if not m.replicas}
    for call in plan.calls:
        runs = none
        if call.client in jobs and call.kind != "rare":
            weekly = call.kind == "weekly"
            runs = np.arange(3 * 3600 + weekly * 6 * DAY, end, 7 * DAY if weekly else DAY)
            if not len(runs):
                continue
        play(call, pods, rows, truth, runs, end, rng)
    listening = open_ports(plan.members, plan.calls)
    probes(pods, rows, listening, end, rng)
    listeners(pods, rows, listening, end)
    failures(pods, rows, graph.members, end)
    background(pods, rows, entry, end, strangers_per_day, rng)
    scans(pods, rows, listening, end, scans_per_week, rng)
    frame = rows.frame(start, end, name)
    known, losses = _lose(frame, start, days, losses_per_week, name, rng)
    own = np.random.default_rng([seed, days, 1])
    more = Rows(pods, own)
    for n in range(beacons):
        beacon(pods, more, graph.members, end, n, own)
    stores = _stores(plan.calls)
    for _ in range(intruders):
        intruder(pods, more, stores, end, own)
    for n in range(exfiltrations):
        exfiltration(pods, more, graph.members, end, n, own)
    if regular_calls:
        regular(pods, more, graph.members, truth, end)
    if more:
        added = more.frame(start, end, name)
        frame, known = (pd.concat([old, added]) for old in (frame, known))
        known = known.sort_values(ORDER, kind="stable", ignore_index=True)
    return Synthetic(
        known.drop(columns=["what", "truth"]),
        _times(frame, truth),
        losses,
        known["what"],
        known["truth"].rename("needed"),
    )


def _stores(calls: Sequence[Call]) -> list[tuple[Workload, int]]:
    """Workloads called on a port that a database or cache is called on, and that port."""
    inside = [(c.server, c.pod_port) for c in calls if isinstance(c.server, Workload)]
    return sorted({(w, port) for w, port in inside if port in STORES}) or sorted(set(inside))


def _lose(
    frame: pd.DataFrame,
    start: datetime,
    days: int,
    per_week: float,
    name: str,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drop a third of the rows of some hours of some nodes, and say so in loss rows."""
    kept = np.ones(len(frame), dtype=bool)
    rows = []
    base = pd.Timestamp(start).tz_convert("UTC").as_unit("us")
    for hour in np.sort(rng.integers(0, days * 24, rng.poisson(per_week * days / 7))):
        node = NODES[int(rng.integers(len(NODES)))]
        left, right = base + pd.Timedelta(hours=hour), base + pd.Timedelta(hours=hour + 1)
        within = ((frame["node"] == node) & frame["first_seen"].between(left, right)).to_numpy()
        lost = within & (rng.random(len(frame)) < 0.33)
        kept &= ~lost
        if lost.any():
            reason = str(LossReason.FLOWS_OVERFLOWED)
            rows.append((node, left, right, reason, int(lost.sum()), name, left.date()))
    losses = pd.DataFrame(rows, columns=[*LOSS_SCHEMA.names, "cluster", "date"])
    losses = losses.astype(
        {
            **dict.fromkeys(["node", "reason", "cluster"], "str"),
            **dict.fromkeys(["interval_start", "interval_end"], "datetime64[us, UTC]"),
            "count": "int64",
        }
    )
    return frame[kept].reset_index(drop=True), losses


def _times(frame: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """The items with the first day and the number of days they were needed, lost rows included."""
    used = frame[frame["truth"] >= 0].groupby("truth")
    table = pd.DataFrame(truth.items)
    text = [name for name in table if name not in ("port", "end_port")]
    table = table.astype(dict.fromkeys(text, "str"))
    table["first_needed"] = used["first_seen"].min().reindex(table.index)
    table["days"] = used["date"].nunique().reindex(table.index).fillna(0).astype("int64")
    return table
