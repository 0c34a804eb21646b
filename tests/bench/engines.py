"""Seconds and memory of summing up a capture, as it grows, beside DuckDB's bare aggregation.

    .venv/bin/python tests/bench/engines.py 1 10 50

The numbers are millions of records: 90 days of one cluster, made by DuckDB from a seed in a
temporary folder that is removed at the end (about 25 bytes a record). Every arm is a process of
its own; the arms take turns, so that what else the machine does hits all of them. A ratio is
taken turn by turn, in processor seconds, to the bare aggregation of that turn. Peak memory is
what the kernel counted, with Spark's Java. Prints one Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DAYS, PARTS = 90, 4
KEYS = (
    "namespace, workload_kind, workload, direction, protocol, port, target_port, peer_ip, "
    "peer_kind, peer_namespace, peer_workload_kind, peer_workload, verdict"
)
REST = "pod, node, peer_name"
SUMS = "connections, bytes_sent, bytes_received"
READ = f"{KEYS}, {REST}, {SUMS}, first_seen, last_seen"
"""The columns that ``recommend`` sums up."""
PANDAS_MOST, SPARK_MOST = 10, 50
"""Millions of records: pandas holds all of them in memory, Spark takes minutes."""


def make(folder: Path, millions: float, seed: int) -> None:
    """700 uses of ports, by 3 pods and of 3 peers each; a few take most of the records."""
    import duckdb

    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'; SET memory_limit = '4GB'")
    pairs = f"""
        CREATE TABLE pairs AS
        SELECT row_number() OVER (ORDER BY e, p, q) - 1 AS pair,
            'team-' || (e % 8) AS namespace,
            CASE WHEN e % 7 = 0 THEN 'StatefulSet' ELSE 'Deployment' END AS workload_kind,
            'service-' || (e % 120) AS workload,
            workload || '-' || lower(hex(hash(e % 120) % 1000000)) || '-' || p AS pod,
            'node-' || (hash(e % 120, p) % 20) AS node,
            CASE WHEN hash(e, {seed}) % 2 = 0 THEN 'ingress' ELSE 'egress' END AS direction,
            CASE WHEN e % 11 = 0 THEN 'UDP' ELSE 'TCP' END AS protocol,
            (CASE WHEN e % 11 = 0 THEN 53 ELSE 8000 + e % 40 END)::INTEGER AS port,
            (CASE WHEN e % 5 = 0 THEN 8080 END)::INTEGER AS target_port,
            CASE WHEN e % 10 < 7 THEN 'workload' WHEN e % 10 = 7 THEN 'service'
                WHEN e % 10 = 8 THEN 'node' ELSE 'external' END AS peer_kind,
            CASE peer_kind WHEN 'external' THEN '203.0.113.' || (hash(e, q) % 250)
                ELSE '10.77.' || (e % 250) || '.' || q END AS peer_ip,
            CASE WHEN e % 10 < 8 THEN 'team-' || (hash(e) % 8) END AS peer_namespace,
            CASE peer_kind WHEN 'workload' THEN 'Deployment' WHEN 'service' THEN 'Service'
                WHEN 'node' THEN 'Node' END AS peer_workload_kind,
            CASE WHEN peer_kind = 'node' THEN node
                WHEN e % 10 < 8 THEN 'service-' || (hash(e, 7) % 120) END AS peer_workload,
            CASE peer_kind WHEN 'external' THEN 'api-' || (e % 30) || '.example.com' END
                AS peer_name,
            CASE WHEN hash(e, 3) % 50 = 0 THEN 'refused' ELSE 'allowed' END AS verdict
        FROM range(700) a(e), range(3) b(p), range(3) c(q)
    """  # noqa: S608
    db.execute(pairs)
    rows = round(millions * 1e6) // (DAYS * PARTS)
    span = 86_400_000_000 // PARTS
    for number in range(DAYS * PARTS):
        day, part = divmod(number, PARTS)
        date = db.execute("SELECT (DATE '2026-03-02' + ?)::VARCHAR", [day]).fetchall()[0][0]
        place = folder / "v1/cluster=bench" / f"date={date}"
        place.mkdir(parents=True, exist_ok=True)
        db.execute(f"""
            COPY (
                SELECT make_timestamptz(start + us) AS first_seen,
                    make_timestamptz(start + us + (h % 10000000)::BIGINT) AS last_seen,
                    node, namespace, workload_kind, workload, pod, direction, protocol, port,
                    target_port, peer_ip, peer_kind, peer_namespace, peer_workload_kind,
                    peer_workload, peer_name, verdict,
                    (1 + h % 20)::BIGINT AS connections, (h % 100000)::BIGINT AS bytes_sent,
                    (g % 1000000)::BIGINT AS bytes_received, (h % 5000)::BIGINT AS rtt_us,
                    (g % 3)::BIGINT AS retransmits, NULL::VARCHAR AS rule
                FROM (
                    SELECT hash(i, {number}, {seed}) AS h, hash(i, {number}, {seed + 1}) AS g,
                        (g % {span})::BIGINT AS us, (h % 1000003) / 1000003.0 AS u,
                        epoch_us(TIMESTAMPTZ '{date} 00:00:00+00') + {part * span} AS start
                    FROM range({rows}) t(i)
                ) JOIN pairs ON pair = floor(u * u * u * 6300)::BIGINT
                ORDER BY us // 300000000, namespace, workload_kind, workload, direction, port, us
            ) TO '{place}/node-{number:06d}.parquet'
            (FORMAT parquet, COMPRESSION zstd, KV_METADATA {{'portforge.schema': '1'}})
        """)  # noqa: S608
    db.close()


def _duckdb(query: str) -> Callable[[Path], int]:
    def run(capture: Path) -> int:
        import duckdb

        db = duckdb.connect()
        db.execute("SET TimeZone = 'UTC'")
        return len(
            db.sql(
                query.format(files=f"read_parquet('{capture}/v1/*/*/*.parquet')")
            ).to_arrow_table()
        )

    return run


def _recommend(capture: Path) -> int:
    from portforge.capture import open_capture
    from portforge.recommend import recommend

    return len(recommend(open_capture(capture)).policies)


def _sums(engine: str) -> Callable[[Path], int]:
    def run(capture: Path) -> int:
        from portforge.capture import open_capture

        opened = open_capture(capture, engine=engine)
        return len(opened.aggregated()) + len(opened.pods())

    return run


def _pandas(capture: Path) -> int:
    import pandas as pd

    columns = READ.replace(",", " ").split()
    keys = KEYS.replace(",", " ").split()
    frame = pd.read_parquet(capture / "v1", columns=columns)
    sums = {name: (name, "sum") for name in SUMS.replace(",", " ").split()}
    rest = {name: (name, "max") for name in ("last_seen",)}
    found = frame.groupby(keys, dropna=False, observed=True, sort=False)
    return len(
        found.agg(rows=("first_seen", "size"), first_seen=("first_seen", "min"), **sums, **rest)
    )


def _compact(capture: Path) -> int:
    from portforge.capture import compact

    return len(compact(capture).days)


SCAN = "SELECT " + ", ".join(f"max({name.strip()})" for name in READ.split(","))
GROUP = (
    f"SELECT {KEYS}, count(*) AS n, sum(connections), sum(bytes_sent), sum(bytes_received), "
    "min(first_seen), max(last_seen), max(pod), max(node), max(peer_name)"
)
ARMS: dict[str, Callable[[Path], int]] = {
    "bare scan": _duckdb(f"{SCAN} FROM {{files}}"),
    "bare aggregation": _duckdb(f"{GROUP} FROM {{files}} GROUP BY {KEYS}"),
    "bare aggregation, by pod and day": _duckdb(
        f"{GROUP} FROM {{files}} GROUP BY {KEYS}, {REST}, epoch_us(first_seen) // 86400000000"
    ),
    "sums (open, edges, pods)": _sums("duckdb"),
    "recommend": _recommend,
    "pandas groupby": _pandas,
    "Spark local, sums": _sums("spark"),
    "compact": _compact,
    "sums, with rollups": _sums("duckdb"),
    "recommend, with rollups": _recommend,
}
BASE = "bare aggregation"
ONCE = ("compact",)
AFTER = ("sums, with rollups", "recommend, with rollups")


def inside(arm: str, capture: Path) -> None:
    """One arm in this process; prints what it took, imports aside."""
    import sklearn.ensemble  # noqa: F401  recommend takes it in when it looks for outliers

    import portforge.recommend  # noqa: F401

    before, began = _processor(), time.perf_counter()
    ARMS[arm](capture)
    seconds = time.perf_counter() - began
    told = {"seconds": seconds, "processor": _processor() - before, "peak": _peak()}
    print(json.dumps(told))


def _family() -> list[int]:
    """This process and the Java that it started, if any."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _processor() -> float:
    ticks = 0
    for pid in _family():
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(words[11]) + int(words[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _peak() -> int:
    """MiB, each process at its highest."""
    total = 0
    for pid in _family():
        try:
            text = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        total += next((int(x.split()[1]) for x in text.splitlines() if x.startswith("VmHWM")), 0)
    return total // 1024


def measure(arm: str, capture: Path) -> dict[str, Any] | str:
    """Of a process of its own, or what it said when it failed."""
    ran = subprocess.run(
        [sys.executable, __file__, "--arm", arm, "--capture", capture],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        return (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1][:80]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Make the data, let the arms take turns, print the table."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("millions", nargs="*", type=float, default=[1])
    words.add_argument("--turns", type=int, default=3)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--without", action="append", default=[], choices=list(ARMS))
    words.add_argument("--folder", type=Path, help="where the data goes; default: the temporary")
    words.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    words.add_argument("--capture", type=Path, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.arm:
        inside(asked.arm, asked.capture)
        return
    print("| records | arm | seconds | processor s | of the bare aggregation | peak MiB |")
    print("|---:|---|---:|---:|---:|---:|")
    for millions in asked.millions:
        folder = Path(tempfile.mkdtemp(prefix="portforge-bench-", dir=asked.folder))
        try:
            make(folder, millions, asked.seed)
            for line in _table(folder, millions, asked.turns, asked.without):
                print(line, flush=True)
        finally:
            shutil.rmtree(folder)


def _table(capture: Path, millions: float, turns: int, without: list[str]) -> list[str]:
    skip = set(without)
    skip |= {"pandas groupby"} if millions > PANDAS_MOST else set()
    skip |= {"Spark local, sums"} if millions > SPARK_MOST else set()
    arms = [arm for arm in ARMS if arm not in skip]
    took: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    failed: dict[str, str] = {}

    def turn(some: list[str]) -> None:
        for arm in some:
            found = measure(arm, capture)
            if isinstance(found, str):
                failed[arm] = found
            else:
                took[arm].append(found)

    for _ in range(turns):
        turn([arm for arm in arms if arm not in (*ONCE, *AFTER)])
    turn([arm for arm in arms if arm in ONCE])
    for _ in range(turns):
        turn([arm for arm in arms if arm in AFTER])
    lines = []
    for arm in ARMS:
        head = f"| {millions:g} M | {arm} |"
        if arm in skip or arm in failed:
            lines.append(f"{head} {failed.get(arm, 'not run')} | | | |")
            continue
        some = took[arm]
        ratios = [
            one["processor"] / base["processor"]
            for one, base in zip(some, took[BASE], strict=False)
            if base["processor"]
        ]
        spread = f"{min(ratios):.2f} – {statistics.median(ratios):.2f} – {max(ratios):.2f}"
        seconds, processor = (
            statistics.median(one[name] for one in some) for name in ("seconds", "processor")
        )
        peak = max(one["peak"] for one in some)
        lines.append(f"{head} {seconds:.1f} | {processor:.1f} | {spread} | {peak:,} |")
    return lines


if __name__ == "__main__":
    main()
