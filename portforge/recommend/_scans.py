"""Find scanners: one source that probes many ports of a target, or one port of many targets.

A probe was refused, failed or denied, or was answered with next to no payload. Both ends' records
count: the target sees attempts on closed ports, the source sees what failed. What is too short
to be called a scan may still be a one-sided answer: see ``_one_sided``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from portforge.recommend._edges import Edge, Party
from portforge.recommend._one_sided import ends, find_one_sided, is_probe
from portforge.recommend._options import Options
from portforge.schema import PeerKind, Verdict

__all__ = ["Scans", "find_scans"]


@dataclass(frozen=True)
class Scans:
    """What was found. ``pairs``: (source, target); ``sweeps``: (source, protocol, port).

    ``one_sided``: (source, target) whose answers were next to nothing, and too few to be a scan.
    """

    pairs: frozenset[tuple[Party, Party]]
    sweeps: frozenset[tuple[Party, str, int]]
    one_sided: frozenset[tuple[Party, Party]]

    def one_sided_answer(self, edge: Edge) -> bool:
        """Whether ``edge`` is answered, and its source got next to nothing from its target."""
        return edge.answered and _ends(edge) in self.one_sided

    def why(self, edge: Edge) -> str | None:
        """Why ``edge`` belongs to a scan; None where it does not."""
        ends = _ends(edge)
        if ends is None:
            return None
        source, target = ends
        if (source, target) in self.pairs:
            return "many ports of one target, mostly unanswered or empty"
        if (source, edge.protocol, edge.port) in self.sweeps:
            return "one port of many targets, mostly unanswered or empty"
        return None


def find_scans(edges: Iterable[Edge], options: Options) -> Scans:
    """The scanners among the sources of ``edges``."""
    edges = list(edges)
    by_pair: defaultdict[tuple[Party, Party], _Touched] = defaultdict(_Touched)
    by_sweep: defaultdict[tuple[Party, str, int], _Touched] = defaultdict(_Touched)
    for edge in edges:
        ends = _ends(edge)
        if ends is None:
            continue
        source, target = ends
        probe = is_probe(edge, options)
        by_pair[source, target].add((edge.protocol, edge.port), probe)
        by_sweep[source, edge.protocol, edge.port].add(target, probe)
    share = options.scan_share
    return Scans(
        frozenset(k for k, seen in by_pair.items() if seen.is_scan(options.scan_ports, share)),
        frozenset(k for k, seen in by_sweep.items() if seen.is_scan(options.scan_targets, share)),
        find_one_sided((edge for edge in edges if _ends(edge)), options),
    )


class _Touched:
    """Ports or targets one source touched: those probed, and those really used."""

    def __init__(self) -> None:
        self.probed: set[Hashable] = set()
        self.used: set[Hashable] = set()

    def add(self, what: Hashable, probe: bool) -> None:
        (self.probed if probe else self.used).add(what)

    def is_scan(self, least: int, share: float) -> bool:
        only_probed = len(self.probed - self.used)
        return only_probed >= least and only_probed >= share * len(self.probed | self.used)


def _ends(edge: Edge) -> tuple[Party, Party] | None:
    """Source and target. The kubelet's probes of its own pods are no scan."""
    if edge.own_node or edge.verdict == Verdict.LISTENING or edge.peer.kind == PeerKind.LOOPBACK:
        return None
    return ends(edge)
