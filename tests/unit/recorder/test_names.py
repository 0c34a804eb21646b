"""DNS answers as a library builds them become the names that each pod was told."""

from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portforge.apply.layout import ANSWER, packed_address
from portforge_recorder import names
from portforge_recorder.names import GRACE_NS, Names, UnreadableError, read_answer

SECOND = 1_000_000_000
ONE, TWO, SIX = "203.0.113.10", "203.0.113.11", "2001:db8::10"


def wire(question: str, *records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> bytes:
    """An answer to ``question``, of lines like ``www.example.com 60 A 203.0.113.10``."""
    query = dns.message.make_query(question, "A", use_edns=0)
    answer = dns.message.make_response(query)
    answer.set_rcode(rcode)
    for record in records:
        owner, ttl, kind, data = record.split()
        answer.answer.append(dns.rrset.from_text(f"{owner}.", int(ttl), "IN", kind, data))
    return answer.to_wire(max_size=65_535)


def record(message: bytes, cgroup: int = 11, time_ns: int = 0) -> bytes:
    """As it lies in the ring."""
    return struct.pack("=QQI", time_ns, cgroup, len(message)) + message


def told(message: bytes) -> dict[bytes, int]:
    return dict(read_answer(message).addresses)


def test_every_address_of_both_families_is_read_with_its_time_to_live() -> None:
    found = read_answer(wire("api.example.com", *(f"api.example.com 60 A {a}" for a in (ONE, TWO))))
    assert found.name == "api.example.com"
    assert dict(found.addresses) == {packed_address(ONE): 60, packed_address(TWO): 60}
    assert told(wire("a.example", f"a.example 5 AAAA {SIX}")) == {packed_address(SIX): 5}


def test_the_name_is_the_one_asked_for_however_long_the_chain_and_whatever_its_order() -> None:
    chain = [
        f"edge7.cdn.example 30 A {ONE}",
        "www.example.com 300 CNAME www.example.com.cdn.example.",
        "www.example.com.cdn.example 60 CNAME edge7.cdn.example.",
    ]
    for records in (chain, chain[::-1]):
        found = read_answer(wire("WWW.Example.COM", *records))
        assert (found.name, found.addresses) == ("www.example.com", ((packed_address(ONE), 30),))


def test_an_address_of_another_name_does_not_count() -> None:
    message = wire("a.example", f"a.example 60 A {ONE}", f"bank.example 60 A {TWO}")
    assert told(message) == {packed_address(ONE): 60}


def test_a_chain_that_bites_its_tail_ends() -> None:
    loop = ("a.example 60 CNAME b.example.", "b.example 60 CNAME a.example.")
    assert told(wire("a.example", *loop)) == {}


def test_what_is_no_answer_with_addresses_has_none() -> None:
    assert told(wire("no.example", rcode=dns.rcode.NXDOMAIN)) == {}
    assert told(wire("no.example", f"no.example 60 A {ONE}", rcode=dns.rcode.SERVFAIL)) == {}
    assert told(wire("mail.example", "mail.example 60 TXT hello")) == {}
    assert told(dns.message.make_query("a.example", "A").to_wire()) == {}


@pytest.mark.parametrize("name", [r"a\032b.example", r"<script>.example", r"\226\130\172.example"])
def test_a_name_of_other_characters_is_refused(name: str) -> None:
    with pytest.raises(UnreadableError):
        read_answer(wire(name, f"{name} 60 A {ONE}"))


def test_the_root_and_a_short_message_are_refused() -> None:
    for message in (wire("."), b"", wire("a.example")[:13]):
        with pytest.raises(UnreadableError):
            read_answer(message)


def test_of_a_message_that_the_kernel_cut_the_beginning_counts() -> None:
    most = ANSWER["payload"].itemsize
    whole = wire("a.example", *(f"a.example 60 A 203.0.113.{i}" for i in range(1, 90)))
    assert len(whole) > most
    assert 60 < len(told(whole[:most])) < 89
    with pytest.raises(UnreadableError):
        read_answer(whole[: most - 1])


def test_a_time_to_live_past_all_reason_is_bounded() -> None:
    assert told(wire("a.example", f"a.example {2**31 - 1} A {ONE}")) == {
        packed_address(ONE): 86_400
    }


@given(st.binary(max_size=1300))
def test_no_bytes_make_it_fail(message: bytes) -> None:
    heard = Names()
    heard.hear(message)
    heard.hear(record(message))
    assert heard.read == 2


@given(st.data())
def test_no_damage_to_an_answer_makes_it_fail(data: st.DataObject) -> None:
    message = bytearray(
        wire("www.example.com", "www.example.com 9 CNAME b.example.", f"b.example 9 A {ONE}")
    )
    for _ in range(data.draw(st.integers(1, 8))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    heard = Names()
    heard.hear(record(bytes(message[: data.draw(st.integers(0, len(message)))])))
    assert heard.read == 1


def test_each_pod_has_the_names_that_it_was_told() -> None:
    heard = Names()
    heard.hear(record(wire("a.example", f"a.example 60 A {ONE}"), cgroup=11))
    heard.hear(record(wire("b.example", f"b.example 60 A {ONE}"), cgroup=12))
    heard.hear(record(b"\0" * 40))
    assert [heard.of(c, packed_address(ONE), SECOND) for c in (11, 12, 13)] == [
        *("a.example", "b.example"), None
    ]  # fmt: skip
    assert (heard.read, heard.unreadable) == (3, 0)  # zeroes are a question of nobody
    heard.hear(b"short")
    assert (heard.read, heard.unreadable) == (4, 1)


def test_of_several_names_the_latest_answered_counts() -> None:
    heard = Names()
    for name in ("a.example", "b.example", "a.example"):
        heard.hear(record(wire(name, f"{name} 60 A {ONE}")))
    assert heard.of(11, packed_address(ONE), 0) == "a.example"
    assert len(heard) == 1


def test_a_name_lasts_for_its_time_to_live_and_an_hour_and_while_it_is_used() -> None:
    heard, address = Names(), packed_address(ONE)
    heard.hear(record(wire("a.example", f"a.example 60 A {ONE}"), time_ns=SECOND))
    end = 61 * SECOND + GRACE_NS
    assert heard.of(11, address, end) == "a.example"
    assert heard.of(11, address, end + GRACE_NS) == "a.example"
    assert heard.of(11, address, end + 2 * GRACE_NS + 1) is None


def test_a_pod_that_asks_for_everything_keeps_what_it_used_last() -> None:
    heard = Names()
    most = names.MOST_OF_POD
    for i in range(most):
        if i == most - 1:
            assert heard.of(11, packed_address("203.0.0.0"), 0) == "n0.example"
        heard.hear(record(wire(f"n{i}.example", f"n{i}.example 60 A 203.0.{i >> 8}.{i & 255}")))
    heard.hear(record(wire("last.example", f"last.example 60 A {SIX}".replace(" A ", " AAAA "))))
    assert len(heard) == most
    assert heard.of(11, packed_address("203.0.0.0"), 0) == "n0.example"
    assert heard.of(11, packed_address("203.0.0.1"), 0) is None
    heard.forget([11, 12])
    assert len(heard) == 0


def test_pods_that_ask_for_much_do_not_cost_others_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "MOST", 40)
    heard = Names()
    heard.hear(record(wire("a.example", f"a.example 60 A {ONE}"), cgroup=12))
    for i in range(100):
        heard.hear(record(wire("b.example", f"b.example 60 A 203.0.0.{i}"), cgroup=11))
    assert len(heard) == 40
    assert heard.of(12, packed_address(ONE), 0) == "a.example"
