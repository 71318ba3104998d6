"""DNS messages: questions of guests, answers of servers, and bytes that are neither."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.network import dns
from hyperstack.network.dns import Code, DnsError, Type


def query(name: str, kind: int = 1, identifier: int = 7, flags: int = 0x100) -> bytes:
    return (
        struct.pack(">6H", identifier, flags, 1, 0, 0, 0)
        + dns.write_name(name)
        + struct.pack(">2H", kind, 1)
    )


def read_records(message: bytes) -> list[tuple[int, bytes]]:
    _, _, questions, count, _, _ = struct.unpack_from(">6H", message)
    offset = 12
    for _ in range(questions):
        _, offset = dns.read_name(message, offset)
        offset += 4
    found = []
    for _ in range(count):
        _, offset = dns.read_name(message, offset)
        kind, _, ttl, size = struct.unpack_from(">2HIH", message, offset)
        assert ttl == dns.TTL
        found.append((kind, message[offset + 10 : offset + 10 + size]))
        offset += 10 + size
    assert offset == len(message)
    return found


def test_a_question_is_read() -> None:
    question = dns.parse(query("WEB.Example", Type.AAAA))
    assert (question.id, question.name, question.type) == (7, "web.example", 28)
    assert question.kept == 0x100
    assert question.limit == 512


def test_a_client_says_what_it_takes_over_udp() -> None:
    opt = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)
    message = bytearray(query("a") + opt)
    message[11] = 1
    assert dns.parse(bytes(message)).limit == 1232


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0" * 12,
        query("a")[:-1],
        query("a", flags=0x8100),
        query("a", flags=0x2800),
        struct.pack(">6H", 1, 0, 2, 0, 0, 0) + query("a")[12:] * 2,
        struct.pack(">6H", 1, 0, 1, 1, 0, 0) + query("a")[12:],
        struct.pack(">6H", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        struct.pack(">6H", 1, 0, 1, 0, 0, 0) + b"\xc0\xff\0\1\0\1",
        struct.pack(">6H", 1, 0, 1, 0, 0, 0) + b"\x41" + b"a" * 65 + b"\0\0\1\0\1",
        struct.pack(">6H", 1, 0, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",
    ],
)
def test_what_is_no_question_is_refused(message: bytes) -> None:
    with pytest.raises(DnsError):
        dns.parse(message)


@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    with contextlib.suppress(DnsError):
        question = dns.parse(message)
        assert dns.respond(question)[:2] == message[:2]
    refused = dns.refuse(message, Code.FORMAT)
    assert refused is None or (len(refused) == 12 and refused[:2] == message[:2])


LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)


@given(st.lists(LABEL, min_size=1, max_size=8).map(".".join))
def test_names_come_back_as_they_were_written(name: str) -> None:
    assert dns.read_name(dns.write_name(name), 0) == (name, len(name) + 2)


@given(st.lists(st.ip_addresses(), max_size=40))
def test_an_answer_holds_what_was_given(addresses: list[IPv4Address | IPv6Address]) -> None:
    message = dns.respond(dns.parse(query("web", Type.A)), addresses)
    records = read_records(message)
    assert [data for _, data in records] == [a.packed for a in addresses[: dns.MAX_RECORDS]]
    assert message[:2] == b"\0\7"
    assert message[2] & 0x80


def test_a_name_without_such_addresses_is_answered_with_none() -> None:
    message = dns.respond(dns.parse(query("web", Type.AAAA)))
    assert read_records(message) == []
    assert message[3] & 0xF == Code.OK


def test_addresses_are_picked_by_the_question() -> None:
    both = ["10.0.0.1", "fd00::1"]
    assert dns.pick(both, Type.A) == [ip_address("10.0.0.1")]
    assert dns.pick(both, Type.AAAA) == [ip_address("fd00::1")]
    assert dns.pick(both, 15) == []


def test_an_answer_that_is_too_long_says_so_and_holds_what_fits() -> None:
    question = dns.parse(query("web"))
    message = dns.respond(question, [IPv4Address(n) for n in range(32)], limit=question.limit)
    assert len(message) <= 512
    assert message[2] & 2
    assert len(read_records(message)) == (512 - 12 - len(question.raw)) // 16


def test_failures_are_worded_as_docker_words_them() -> None:
    question = dns.parse(query("web", flags=0x0110))
    assert dns.respond(question)[2:4] == b"\x81\x90"
    assert dns.respond(question, code=Code.FAILURE)[2:4] == b"\x81\x12"
    assert dns.refuse(b"\0\7\x28\0" + bytes(8), Code.FORMAT) == b"\0\7\xa8\4" + bytes(8)


def test_only_an_answer_to_this_question_counts() -> None:
    question = dns.parse(query("web.example"))
    good = dns.respond(question, [IPv4Address("10.0.0.1")])
    assert dns.answers(good, question, 7)
    assert not dns.answers(good, question, 8)
    assert not dns.answers(query("web.example"), question, 7)
    assert not dns.answers(dns.respond(dns.parse(query("evil.example"))), question, 7)
    assert not dns.answers(b"", question, 7)


def test_addresses_are_found_in_reverse_names() -> None:
    assert dns.reverse_address("2.0.17.172.in-addr.arpa") == IPv4Address("172.17.0.2")
    six = IPv6Address("fd00::2")
    assert dns.reverse_address(six.reverse_pointer) == six
    for name in ("in-addr.arpa", "999.0.0.1.in-addr.arpa", "x.ip6.arpa", "example.com"):
        assert dns.reverse_address(name) is None


@given(st.text(max_size=90))
def test_any_name_has_an_address_or_none(name: str) -> None:
    dns.reverse_address(name + ".ip6.arpa")
    dns.reverse_address(name + ".in-addr.arpa")
