"""Outside addresses of which too few were drawn: a name may answer with others. Pure.

Behind one name there are often several addresses, and each connection gets one of them. A weekly
job that got the same one three times has shown little. With ten draws, an address that is taken
every other time was missed once in a thousand (0.5 ** 10); with three, once in eight.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from portforge.policy import Entity
from portforge.recommend._edges import Edge
from portforge.recommend._hours import all_hours
from portforge.recommend._rules import Learned
from portforge.schema import PeerKind

__all__ = ["few_draws"]


def few_draws(
    rules: Iterable[Learned], decided: Collection[Edge], least: int
) -> list[tuple[str, int]]:
    """The rules that list outside addresses on fewer than ``least`` draws, and how many there were.

    A draw is a connection, and one for each hour at most: a client asks for the address again
    after some time only. A rule open to ``World``, or one that the analyst decided, needs none.
    """
    found = []
    for learned in rules:
        peers = learned.rule.peers
        if peers is None or any(peer.entity == Entity.WORLD for peer in peers):
            continue
        outside = [
            edge
            for edge in learned.edges
            if edge.peer.kind == PeerKind.EXTERNAL and edge not in decided
        ]
        hours = all_hours(edge.hours for edge in outside)
        draws = min(len(hours), sum(edge.connections for edge in outside))
        if outside and draws < least:
            found.append((learned.rule.id, draws))
    return found
