"""Call graphs of two published example applications, as tables. Rates are ours.

Online Boutique: github.com/GoogleCloudPlatform/microservices-demo, ports and ``*_ADDR`` of
``release/kubernetes-manifests.yaml``. Sock Shop: github.com/microservices-demo, ports of
``deploy/kubernetes/complete-demo.yaml`` and the calls of its services' configuration.
"""

from __future__ import annotations

from portforge.schema import Workload
from portforge.synth._graph import INTERNET, Call, Graph, Member

__all__ = ["ONLINE_BOUTIQUE", "SOCK_SHOP"]

# client, server, Service's port, pod's port, connection held open
_BOUTIQUE = """
loadgenerator         frontend              80    8080  no
frontend              adservice             9555  9555  held
frontend              cartservice           7070  7070  held
frontend              checkoutservice       5050  5050  held
frontend              currencyservice       7000  7000  held
frontend              productcatalogservice 3550  3550  held
frontend              recommendationservice 8080  8080  held
frontend              shippingservice       50051 50051 held
checkoutservice       cartservice           7070  7070  held
checkoutservice       currencyservice       7000  7000  held
checkoutservice       emailservice          5000  8080  held
checkoutservice       paymentservice        50051 50051 held
checkoutservice       productcatalogservice 3550  3550  held
checkoutservice       shippingservice       50051 50051 held
recommendationservice productcatalogservice 3550  3550  held
cartservice           redis-cart            6379  6379  held
"""
_SOCKS = """
front-end    catalogue    80    80    no
front-end    carts        80    80    no
front-end    orders       80    80    no
front-end    user         80    80    no
front-end    session-db   6379  6379  held
catalogue    catalogue-db 3306  3306  held
carts        carts-db     27017 27017 held
orders       orders-db    27017 27017 held
orders       carts        80    80    no
orders       user         80    80    no
orders       payment      80    80    no
orders       shipping     80    80    no
user         user-db      27017 27017 held
shipping     rabbitmq     5672  5672  no
queue-master rabbitmq     5672  5672  held
"""


def _graph(name: str, namespace: str, table: str, entry: str, entry_port: int) -> Graph:
    rows = [line.split() for line in table.split("\n") if line]
    names = dict.fromkeys([entry, *(name for row in rows for name in row[:2])])
    members = {
        one: Member(Workload(namespace, "Deployment", one), 1 if "db" in one else 2)
        for one in names
    }
    calls = [Call(INTERNET, members[entry].workload, entry_port, rate=30.0)]
    calls += [
        Call(
            members[client].workload,
            members[server].workload,
            int(port),
            int(target),
            held=held == "held",
        )
        for client, server, port, target, held in rows
    ]
    return Graph(name, tuple(members.values()), tuple(calls))


ONLINE_BOUTIQUE = _graph("online-boutique", "boutique", _BOUTIQUE, "frontend", 8080)
SOCK_SHOP = _graph("sock-shop", "sock-shop", _SOCKS, "front-end", 8079)
