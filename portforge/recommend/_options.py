"""The thresholds of learning, in one place. What they are used for stands where they are used."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """Thresholds; the defaults suit Linux servers in Kubernetes.

    Parameters
    ----------
    price: unobserved port-peers that one saved selector may cost; see
        :mod:`portforge.recommend._price`. 0 generalises nothing. The default lets an address
        stand for its own /24.
    scan_ports: ports one source must probe on one target to be a scanner.
    scan_targets: targets one source must probe on one port to be a scanner.
    scan_share: least share of probes among all the source touched there.
    probe_bytes: payload per connection, both ways, up to which an answered one is a probe.
    ephemeral_port: first port of the ephemeral range (Linux: net.ipv4.ip_local_port_range).
    dynamic_ephemeral: distinct ephemeral ports in one direction that make a workload dynamic.
    dynamic_ports: distinct ports from 1024 in one direction that make it dynamic.
    propose_ranges: whether a dynamic workload gets a range for its changing ports, where they look
        like one; it stays dynamic.
    stable_factor: a port with this many times the median connections of its band is not dynamic.
    outlier_share: largest share of the learned connections that may be called outliers; 0: none.
    enough_hours: below this window no estimate is worth anything.
    ready_hours: below this no workload is ready: what comes weekly had no time to come.
    enough_coverage: sample coverage, of ports and of peers, by hours and by days, at which a
        workload may be ready.
    enough_draws: connections, one an hour at most, to outside addresses that a rule lists, at
        which a workload may be ready; see :mod:`portforge.recommend._draws`.
    """

    price: int = 256
    scan_ports: int = 10
    scan_targets: int = 8
    scan_share: float = 0.8
    probe_bytes: int = 64
    ephemeral_port: int = 32768
    dynamic_ephemeral: int = 10
    dynamic_ports: int = 50
    propose_ranges: bool = True
    stable_factor: int = 10
    outlier_share: float = 0.01
    enough_hours: float = 24
    ready_hours: float = 168
    enough_coverage: float = 0.9999
    enough_draws: int = 10
