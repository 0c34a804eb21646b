"""From DNS answers to the names of outside peers, for each pod what that pod was told. Pure.

A name is a hint for whoever reads the record, not an identity: it is what some server answered.
No policy is opened by it. Getting the answers out of the kernel is :mod:`.answers`.
"""

from __future__ import annotations

import re
import struct
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import dns.exception
import dns.name

from portforge.apply.layout import ANSWER

__all__ = ["Answer", "Names", "UnreadableError", "read_answer"]

MOST_OF_POD = 1024
MOST = 16384
"""Addresses that are remembered: of one pod, and of all."""
GRACE_NS = 3_600_000_000_000
"""Connections outlive the answer that led to them: an hour after its time to live, or last use."""
_LONGEST_TTL = 86_400
"""Seconds. A server may say 68 years (RFC 2181, 8)."""

_HEADER = struct.Struct("!HHHHHH")  # RFC 1035, 4.1.1
_RECORD = struct.Struct("!HHIH")  # after the owner's name: type, class, TTL, length (3.2.1)
_RESPONSE, _OPCODE, _ERROR = 0x8000, 0x7800, 0x000F
_INTERNET, _A, _CNAME, _AAAA = 1, 1, 5, 28
_MAPPED = bytes(10) + b"\xff\xff"
_LONGEST_CHAIN = 16
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII)
_START = struct.Struct("=QQI")  # of layout.ANSWER, before the payload
_PAYLOAD = ANSWER["payload"].itemsize


class UnreadableError(ValueError):
    """No DNS answer, or one about a name that no host has."""


@dataclass(frozen=True)
class Answer:
    """The name that was asked for, and the addresses that it was said to have.

    ``addresses`` are (16 bytes as in contract 3, seconds to live).
    """

    name: str
    addresses: tuple[tuple[bytes, int], ...]


def read_answer(message: bytes) -> Answer:
    """The name asked for and its addresses, through CNAMEs; none where it is no such answer.

    Of a message of 1232 bytes or more the kernel may have cut the end: what stands before counts.

    Raises
    ------
    UnreadableError: not DNS, or a name of other than letters, digits, ``-``, ``_`` and dots.

    >>> question = b"\\x07EXAMPLE\\x03org\\0" + b"\\0\\1\\0\\1"
    >>> address = b"\\xc0\\x0c" + b"\\0\\1\\0\\1" + b"\\0\\0\\0\\x3c" + b"\\0\\4\\xc0\\0\\2\\7"
    >>> header = b"\\0\\7\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0"
    >>> answer = read_answer(header + question + address)
    >>> answer.name, answer.addresses[0][0][-4:], answer.addresses[0][1]
    ('example.org', b'\\xc0\\x00\\x02\\x07', 60)
    """
    try:
        return _read(message)
    except (dns.exception.DNSException, struct.error) as error:
        raise UnreadableError("no DNS answer") from error


def _read(message: bytes) -> Answer:
    _, flags, questions, records, _, _ = _HEADER.unpack_from(message)
    if not flags & _RESPONSE or flags & _OPCODE or flags & _ERROR or questions != 1:
        return Answer("", ())
    asked, length = dns.name.from_wire(message, _HEADER.size)
    name = asked.to_text(omit_final_dot=True).lower()
    if not _HOST.fullmatch(name):
        raise UnreadableError("a name that no host has")
    at = _HEADER.size + length + 4  # its type and class
    aliases: dict[dns.name.Name, dns.name.Name] = {}
    found: list[tuple[dns.name.Name, bytes, int]] = []
    for _ in range(records):
        try:
            owner, length = dns.name.from_wire(message, at)
            kind, world, ttl, size = _RECORD.unpack_from(message, at + length)
            start = at + length + _RECORD.size
            at = start + size
            if at > len(message):
                raise dns.exception.FormError
        except (dns.exception.DNSException, struct.error):
            if len(message) < _PAYLOAD:
                raise
            break
        # A time to live with its first bit set is 0 (RFC 2181, 8).
        ttl = min(ttl, _LONGEST_TTL) if ttl < 1 << 31 else 0
        if world != _INTERNET:
            continue
        if kind == _CNAME:
            aliases[owner] = dns.name.from_wire(message, start)[0]
        elif kind == _A and size == 4:
            found.append((owner, _MAPPED + message[start:at], ttl))
        elif kind == _AAAA and size == 16:
            found.append((owner, message[start:at], ttl))
    chain = {asked}
    last = asked
    for _ in range(_LONGEST_CHAIN):
        if (after := aliases.get(last)) is None:
            break
        chain.add(after)
        last = after
    return Answer(name, tuple((a, ttl) for owner, a, ttl in found if owner in chain))


class Names:
    """The names that pods were told, by pod and address: the latest, for as long as they are used.

    ``read`` and ``unreadable`` count the answers heard. At most ``MOST_OF_POD`` addresses of a pod
    and ``MOST`` of all are kept; what was not used for longest goes first, and where all are too
    many, of the pod that has most.
    """

    def __init__(self) -> None:
        self.read = self.unreadable = 0
        self._told: dict[int, OrderedDict[bytes, tuple[str, int]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def hear(self, record: bytes) -> None:
        """Take in one record of the ring ``answers``; never raises for what is in it."""
        self.read += 1
        try:
            time_ns, cgroup, length = _START.unpack_from(record)
            answer = read_answer(record[_START.size : _START.size + length])
        except (UnreadableError, struct.error):
            self.unreadable += 1
            return
        for address, ttl in answer.addresses:
            self._keep(cgroup, address, answer.name, time_ns + ttl * 1_000_000_000 + GRACE_NS)

    def of(self, cgroup: int, address: bytes, now: int) -> str | None:
        """The name by which a pod knows ``address``; using it keeps it. ``now``: CLOCK_BOOTTIME."""
        told = self._told.get(cgroup)
        if told is None or (known := told.get(address)) is None:
            return None
        name, until = known
        if until < now:
            return None
        told[address] = name, max(until, now + GRACE_NS)
        told.move_to_end(address)
        return name

    def forget(self, cgroups: Iterable[int]) -> None:
        """Pods that ended."""
        for cgroup in cgroups:
            self._size -= len(self._told.pop(cgroup, ()))

    def _keep(self, cgroup: int, address: bytes, name: str, until: int) -> None:
        told = self._told.setdefault(cgroup, OrderedDict())
        self._size += address not in told
        told[address] = name, until
        told.move_to_end(address)
        if len(told) > MOST_OF_POD:
            self._drop_oldest(cgroup)
        elif self._size > MOST:
            self._drop_oldest(max(self._told, key=lambda c: len(self._told[c])))

    def _drop_oldest(self, cgroup: int) -> None:
        self._told[cgroup].popitem(last=False)
        self._size -= 1
