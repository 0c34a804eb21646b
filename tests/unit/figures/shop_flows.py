"""A minute of a small shop, as the recorder would write it: every verdict, both ends of each call,
a port scan, an unused listener, lost peers. Shared by the figure and the notebook tests."""

from __future__ import annotations

from pathlib import Path

from flow_rows import Row, loss, row, write_capture

SECONDS = 60
SCANNED = range(1, 61)


def shop_rows() -> list[Row]:
    """Calls ``client → web → app → redis, postgres``, all asking ``dns``; and what is wrong."""
    rows: list[Row] = []
    for second in range(0, SECONDS, 5):
        at = second / 3600
        rows += _call("client", "web", "TCP", 80, at, 23)
        rows += _call("web", "app", "TCP", 8000, at, 23)
        rows += _call("app", "redis", "TCP", 6379, at, 11, service_port=6379)
        rows += _call("app", "postgres", "TCP", 5432, at, 2)
        for asker in ("client", "web", "app"):
            rows += _call(asker, "dns", "UDP", 53, at, 5)
        rows.append(row("web", "ingress", "TCP", 80, "node-a", at=at, connections=1))
    rows += _call("job", "postgres", "TCP", 5432, 20 / 3600, 1)
    rows.append(row("app", "egress", "TCP", 443, "203.0.113.7", at=0.001, verdict="failed"))
    rows.append(row("web", "ingress", "TCP", 80, "198.51.100.9", at=0.002, connections=3))
    rows.append(row("redis", "ingress", "TCP", 6379, None, at=0.002, connections=1))
    rows.append(_listener("app", 9229))
    for port in SCANNED:
        for end in _call("scanner", "redis", "TCP", port, 30 / 3600, 1, verdict="refused"):
            rows.append(end)
    rows.append(
        row("app", "ingress", "TCP", 22, "web", at=0.01, verdict="denied", connections=1, rule=None)
    )
    return rows


def shop_capture(folder: Path) -> Path:
    """Write the shop's capture below ``folder``."""
    return write_capture(folder, shop_rows(), [loss("peers_overflowed", 1, at=0.002)])


def _call(
    caller: str,
    server: str,
    protocol: str,
    port: int,
    at: float,
    connections: int,
    *,
    service_port: int | None = None,
    verdict: str = "allowed",
) -> list[Row]:
    """The same connections as both ends record them."""
    out = row(caller, "egress", protocol, service_port or port, server, at=at, verdict=verdict)
    into = row(server, "ingress", protocol, port, caller, at=at, verdict=verdict)
    if service_port:
        out |= {"peer_kind": "service", "target_port": port}
    return [end | {"connections": connections} for end in (out, into)]


def _listener(workload: str, port: int) -> Row:
    none = dict.fromkeys(("connections", "bytes_sent", "bytes_received"), 0)
    return row(workload, "ingress", "TCP", port, None, verdict="listening", **none)
