"""Generated policies, peers and flows: any that lint accepts."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network

from hypothesis import strategies as st

from portforge.policy import (
    Approval,
    Entity,
    Established,
    Mode,
    PeerSelector,
    PortPolicy,
    Rule,
)
from portforge.schema import Protocol, Workload

# Names that YAML would take for something else are names all the same.
words = st.sampled_from(
    ["web", "cart", "on", "no", "null", "true", "1", "0x10", "1e3", "2027-01-01", "a.b", "x-9"]
)
labels = words.filter(lambda word: "." not in word)
kinds = st.sampled_from(["Deployment", "StatefulSet", "DaemonSet", "Job", "Pod", "Null"])
instants = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))
workloads = st.builds(Workload, labels, kinds, words)


@st.composite
def cidrs(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        size, base = 32, draw(st.integers(0, 2**32 - 1))
        prefix = draw(st.integers(0, size))
        return str(ip_network((base >> (size - prefix) << (size - prefix), prefix)))
    prefix = draw(st.integers(0, 128))
    base = 0xFD << 120 | draw(st.integers(0, 2**120 - 1))
    network = base >> (128 - prefix) << (128 - prefix)
    return f"{ip_network((network or 0, prefix))}" if network >= 2**32 else f"::/{prefix}"


peers = st.one_of(
    st.builds(lambda w: PeerSelector(workload=w), workloads),
    st.builds(lambda n: PeerSelector(namespace=n), labels),
    st.builds(lambda c: PeerSelector(cidr=c), cidrs()),
    st.builds(lambda e: PeerSelector(entity=e), st.sampled_from(Entity)),
)


@st.composite
def rules(draw: st.DrawFn, direction: str) -> tuple[Rule, ...] | None:
    if draw(st.booleans()):
        return None
    made = []
    for protocol in (Protocol.TCP, Protocol.UDP):
        bounds = sorted(draw(st.lists(st.integers(1, 65535), max_size=6, unique=True)))
        for low, high in zip(bounds[::2], bounds[1::2], strict=False):
            made.append(
                Rule(
                    id=f"{direction}-{protocol}-{low}",
                    protocol=protocol,
                    port=low,
                    end_port=draw(st.sampled_from([None, high])),
                    peers=draw(
                        st.none()
                        | st.lists(peers, min_size=1, max_size=4, unique_by=str).map(tuple)
                    ),
                    expires_at=draw(st.none() | instants),
                )
            )
    return tuple(draw(st.permutations(made)))


whos = st.text(
    st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=40
).filter(lambda text: text.strip())


@st.composite
def policies(draw: st.DrawFn) -> PortPolicy:
    workload = draw(workloads)
    return PortPolicy(
        namespace=workload.namespace,
        name=draw(words | st.just(workload.slug)),
        workload=workload,
        mode=draw(st.sampled_from(Mode)),
        established=draw(st.sampled_from(Established)),
        ingress=draw(rules("in")),
        egress=draw(rules("out")),
        expires_at=draw(st.none() | instants),
        author=draw(st.none() | whos),
        confirm_before=draw(st.none() | instants),
        approval=draw(
            st.none()
            | st.builds(
                Approval,
                by=whos,
                at=instants,
                digest=st.just("sha256:" + "0" * 64),
            )
        ),
    )
