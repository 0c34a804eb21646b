"""Find ports that change from session to session (passive FTP, RPC, RTP): no list holds them."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from portforge.recommend._edges import Edge
from portforge.recommend._findings import Left
from portforge.recommend._options import Options

__all__ = ["split_dynamic"]


def split_dynamic(edges: list[Edge], options: Options) -> tuple[list[Edge], list[Left]]:
    """The edges on ports that stay, and those on ports that change.

    Parameters
    ----------
    edges: learned edges of one workload.
    """
    groups: defaultdict[tuple[str, str], list[Edge]] = defaultdict(list)
    for edge in edges:
        groups[edge.direction, edge.protocol].append(edge)
    stays: list[Edge] = []
    changes: list[Left] = []
    for group in groups.values():
        band = _dynamic_band(group, options)
        stays += [edge for edge in group if edge.port not in band]
        if band:
            reason = (
                f"{len(band)} different ports between {min(band)} and {max(band)}: add a range by "
                "hand, or fix the port range in the application; enforcing would cut these"
            )
            changes += [Left(e, "dynamic_ports", reason) for e in group if e.port in band]
    return stays, changes


def _dynamic_band(edges: list[Edge], options: Options) -> set[int]:
    used: defaultdict[int, int] = defaultdict(int)
    for edge in edges:
        used[edge.port] += edge.connections
    for first, least in (
        (options.ephemeral_port, options.dynamic_ephemeral),
        (1024, options.dynamic_ports),
    ):
        band = {port: count for port, count in used.items() if port >= first}
        if len(band) >= least:
            # A fixed port among them (gRPC likes 50051) is used far more than the passing ones.
            much = options.stable_factor * max(1, median(band.values()))
            passing = {port for port, count in band.items() if count < much}
            if len(passing) >= least:
                return passing
    return set()
