"""How long a what-if takes, on records and on edges: seconds and peak memory, each in a process
of its own. Writes a made-up capture into a temporary folder; removes it.

    python tests/bench/what_if.py                   # 5 million records, about 3 minutes
    python tests/bench/what_if.py --records 200000  # half a minute

The records are those of one made-up cluster, written again and again with later times: more
records, the same edges, as a longer window of the same cluster has.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from portforge.capture import open_capture
from portforge.policy import Mode, compare, read_policies, simulate
from portforge.recommend import recommend, verify
from portforge.synth import cluster, random_graph

DAYS = 3


def write(folder: Path, records: int) -> None:
    """A capture of at least so many records, and policies learned from its first day."""
    made = cluster(random_graph(60, seed=1), seed=1, days=DAYS)
    first = open_capture(made.write(folder / "one"))
    recommend(first, until="2026-03-03T00:00:00Z").write(folder / "early")
    recommend(first).write(folder / "late")
    files = sorted((folder / "one").glob("v1/*/*/[!_]*.parquet"))
    for number in range(-(-records // len(made.flows))):
        for file in files:
            day = file.parent.name.removeprefix("date=")
            target = folder / "capture" / "v1" / file.parent.parent.name
            later = duckdb.sql(f"SELECT DATE '{day}' + {number * DAYS}").fetchall()[0][0]
            place = target / f"date={later}"
            place.mkdir(parents=True, exist_ok=True)
            duckdb.sql(
                "COPY (SELECT * REPLACE ("  # noqa: S608
                f"first_seen + INTERVAL {number * DAYS} DAY AS first_seen, "
                f"last_seen + INTERVAL {number * DAYS} DAY AS last_seen) "
                f"FROM read_parquet('{file}', hive_partitioning = false)) "
                f"TO '{place / file.name}' (COMPRESSION zstd, "
                "KV_METADATA {'portforge.schema': '1'})"
            )


def work(what: str, folder: Path) -> str:
    """Do one thing; say what came out, so that the ways can be seen to agree."""
    capture = open_capture(folder / "capture")
    early = read_policies(folder / "early/policies")
    if what == "open the capture":
        return f"{capture.rows:,} records"
    if what == "simulate, records":
        found = simulate(early, capture.flows(), mode_override=Mode.ENFORCE)
        return f"{found.counts['denied']:,} denied, {len(found.causes):,} causes"
    if what == "simulate, edges":
        found = simulate(early, capture.aggregated(), mode_override=Mode.ENFORCE)
        return f"{found.counts['denied']:,} denied, {len(found.causes):,} causes"
    if what == "compare, edges":
        late = read_policies(folder / "late/policies")
        change = compare(late, early, capture.aggregated(), mode_override=Mode.ENFORCE)
        return ", ".join(f"{n:,} newly {c}" for c, n in change.counts.items() if n)
    held = verify(early, capture)
    return f"{held.records['denied']:,} records denied, {len(held.denied):,} causes"


WORKS = (
    "open the capture",
    "simulate, records",
    "simulate, edges",
    "compare, edges",
    "verify",
)


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=5_000_000)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        begun = time.perf_counter()
        told = work(options.one, options.folder)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {options.one} | {seconds:.1f} | {peak:,.0f} | {told} |")
        return
    with tempfile.TemporaryDirectory(prefix="portforge-bench-") as temporary:
        folder = Path(temporary)
        write(folder, options.records)
        print("| what | seconds | peak memory, MiB | outcome |")
        print("|---|---:|---:|---|", flush=True)
        for one in WORKS:
            command = [sys.executable, __file__, "--one", one, "--folder", str(folder)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
