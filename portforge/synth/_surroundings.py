"""What a real cluster has around an application: DNS, monitoring, jobs, the outside, and FTP."""

from __future__ import annotations

import numpy as np

from portforge.schema import Protocol, Workload
from portforge.synth._graph import Call, Graph, Kind, Member, Outside

__all__ = ["with_surroundings"]

COREDNS = Workload("kube-system", "Deployment", "coredns")
_RESOLVER = Outside("resolver.example.net", "192.0.2.53/32")
_PAYMENTS = Outside("api.payments.example", "203.0.113.16/28", 6)
_MAIL = Outside("smtp.mail.example", "203.0.113.200/32")
_BACKUPS = Outside("backup.storage.example", "203.0.113.64/30", 3)
_STORAGE = Outside("assets.storage.example", "203.0.113.128/26", 30)
_LICENCES = Outside("licence.vendor.example", "192.0.2.77/32")


def with_surroundings(graph: Graph, rng: np.random.Generator) -> Graph:
    """The graph with more workloads and calls; the application itself stays as it is.

    A configuration server asked at start-up; Prometheus; DNS over UDP, and rarely TCP, which any
    client may need (RFC 7766), so that it is in the truth of all; a nightly
    and a Sunday job that reach a store and the outside; one replica of a workload that alone
    calls outside; storage behind many addresses; mail, rarely; an FTP server with passive ports.
    """
    home = graph.members[0].workload.namespace
    apps = [m.workload for m in graph.members]
    store = next((w for w in reversed(apps) if w.kind == "StatefulSet" or "db" in w.name), apps[-1])
    store_calls = [c for c in graph.calls if c.server == store]
    store_port = store_calls[0].pod_port if store_calls else 5432
    config = Workload(home, "Deployment", "config")
    prometheus = Workload("monitoring", "StatefulSet", "prometheus")
    nightly, weekly = (Workload(home, "CronJob", name) for name in ("report", "backup"))
    ftp, uploader = Workload(home, "StatefulSet", "ftp"), Workload(home, "Deployment", "uploader")
    members = [
        Member(COREDNS, 2),
        *(Member(w, 1) for w in (config, prometheus, ftp, uploader)),
        *(Member(w, 0) for w in (nightly, weekly)),
    ]
    some = [apps[int(n)] for n in rng.permutation(len(apps))]
    several = next((m.workload for m in graph.members if m.replicas > 1), apps[0])
    calls = [
        Call(COREDNS, _RESOLVER, 53, protocol=Protocol.UDP, rate=60),
        Call(COREDNS, _RESOLVER, 53, kind="rare", rate=0.1),
        *(Call(w, config, 8888, kind="startup") for w in some[: max(2, len(some) // 2)]),
        *(Call(prometheus, w, 9102, rate=30, service=False) for w in some[::2]),
        Call(nightly, store, store_port, kind="daily"),
        Call(weekly, store, store_port, kind="weekly"),
        Call(weekly, _BACKUPS, 443, kind="weekly"),
        Call(several, _LICENCES, 8443, kind="daily", one_replica=True),
        Call(some[0], _PAYMENTS, 443, rate=4),
        Call(some[0], _STORAGE, 443, rate=2),
        Call(some[-1], _MAIL, 587, kind="rare", rate=0.4),
        Call(some[1], _LICENCES, 443, kind="startup"),
        Call(uploader, ftp, 21, rate=3),
        Call(uploader, ftp, 40000, last_port=40999, rate=3),
    ]
    for client in [*apps, config, prometheus, uploader]:
        udp = Call(client, COREDNS, 53, protocol=Protocol.UDP, rate=float(rng.uniform(1, 20)))
        calls += [udp, Call(client, COREDNS, 53, kind="rare", rate=0.03)]
    jobs: tuple[tuple[Workload, Kind], ...] = ((nightly, "daily"), (weekly, "weekly"))
    for job, kind in jobs:
        calls.append(Call(job, COREDNS, 53, protocol=Protocol.UDP, kind=kind))
        calls.append(Call(job, COREDNS, 53, kind="rare", rate=0))
    return graph.add(tuple(members), tuple(calls))
