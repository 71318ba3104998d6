from __future__ import annotations

import asyncio
import os
import struct

import pytest

from hyperstack.api.docker import websocket
from hyperstack.model import StreamKind
from tests.unit.api.conftest import Api
from tests.unit.api.test_server import until

HEAD = b"POST /attach%s HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


async def attach(
    api: Api, query: bytes = b"", early: bytes = b""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await api.open()
    writer.write(HEAD % query + early)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 3)
    await until(lambda: bool(api.hub.sessions))
    return reader, writer, head


async def test_the_connection_is_upgraded_as_docker_does(api: Api) -> None:
    reader, writer, head = await attach(api)
    assert head == (
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    await api.hub.feed(StreamKind.STDERR, b"oops")
    assert await reader.readexactly(12) == b"\x02\0\0\0\0\0\0\x04oops"
    writer.close()


async def test_an_old_client_gets_the_stream_without_an_upgrade(api: Api) -> None:
    reader, writer = await api.open()
    writer.write(b"POST /attach?tty=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\nhello")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head == (b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
    await until(lambda: api.process.data == b"hello")
    await api.hub.feed(StreamKind.STDOUT, b"raw")
    assert await reader.readexactly(3) == b"raw"
    writer.close()


async def test_input_sent_with_the_request_is_not_lost(api: Api) -> None:
    _, writer, _ = await attach(api, early=b"early ")
    writer.write(b"late")
    await until(lambda: api.process.data == b"early late")
    writer.close()


async def test_the_end_of_input_is_the_processs_and_output_goes_on(api: Api) -> None:
    reader, writer, _ = await attach(api)
    writer.write(b"all")
    writer.write_eof()
    await asyncio.wait_for(api.process.ended.wait(), 3)
    await api.hub.feed(StreamKind.STDOUT, b"answer")
    api.hub.finish()
    assert await asyncio.wait_for(reader.read(), 3) == b"\x01\0\0\0\0\0\0\x06answer"
    assert api.process.data == b"all"
    writer.close()


async def test_the_end_of_output_closes_the_connection(api: Api) -> None:
    reader, writer, _ = await attach(api)
    api.hub.finish()
    assert await asyncio.wait_for(reader.read(), 3) == b""
    await until(lambda: api.server.connections == 0)
    writer.close()


async def test_detach_keys_leave_the_process_running(api: Api) -> None:
    reader, writer, _ = await attach(api, b"?tty=1")
    writer.write(b"ls\x10\x11rm")
    assert await asyncio.wait_for(reader.read(), 3) == b""
    await until(lambda: api.seen == ["detached"])
    assert api.process.data == b"ls"
    assert not api.process.ended.is_set()
    writer.close()


async def test_a_client_that_vanishes_is_noticed_without_any_output(api: Api) -> None:
    _, writer, _ = await attach(api)
    writer.close()
    await until(lambda: api.seen == ["left"])
    assert api.server.connections == 0


async def test_a_client_that_vanishes_after_closing_its_input_is_noticed(api: Api) -> None:
    _, writer, _ = await attach(api)
    writer.write_eof()
    await asyncio.wait_for(api.process.ended.wait(), 3)
    await asyncio.sleep(0.05)
    assert api.seen == []
    writer.close()
    await until(lambda: api.seen == ["left"])


@pytest.mark.parametrize("size", [65536, 4000])
async def test_a_client_that_does_not_read_holds_the_process_back(api: Api, size: int) -> None:
    reader, writer, _ = await attach(api)
    fed = 0

    async def feed() -> None:
        nonlocal fed
        while True:
            await api.hub.feed(StreamKind.STDOUT, b"x" * size)
            fed += size
            await asyncio.sleep(0)

    feeding = asyncio.create_task(feed())
    before = -1
    while fed != before:
        assert fed < 16 << 20
        before = fed
        await asyncio.sleep(0.2)
    writer.close()
    await until(lambda: api.seen == ["left"])
    feeding.cancel()
    del reader


async def test_much_output_arrives_whole(api: Api) -> None:
    reader, writer, _ = await attach(api)
    data = os.urandom(1 << 20)

    async def feed() -> None:
        for start in range(0, len(data), 1000):
            await api.hub.feed(StreamKind.STDOUT, data[start : start + 1000])
        api.hub.finish()

    feeding = asyncio.create_task(feed())
    got = await asyncio.wait_for(reader.read(), 10)
    await feeding
    plain = bytearray()
    while got:
        kind, size = struct.unpack(">BxxxI", got[:8])
        assert kind == 1
        plain += got[8 : 8 + size]
        got = got[8 + size :]
    assert plain == data
    writer.close()


def masked(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    size = len(payload)
    first = (0x80 if final else 0) | opcode
    head = (
        struct.pack(">BB", first, 0x80 | size)
        if size < 126
        else struct.pack(">BBH", first, 0x80 | 126, size)
    )
    return head + b"\x01\x02\x03\x04" + websocket.unmask(payload, b"\x01\x02\x03\x04")


async def test_a_web_socket_carries_both_directions(api: Api) -> None:
    reader, writer = await api.open()
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    writer.write(masked(websocket.TEXT, b"in", final=False) + masked(0, b"put" * 100))
    await until(lambda: api.process.data == b"in" + b"put" * 100)
    writer.write(masked(websocket.PING, b"?"))
    assert await reader.readexactly(3) == b"\x8a\x01?"
    await until(lambda: bool(api.hub.sessions))
    await api.hub.feed(StreamKind.STDOUT, b"out")
    assert await reader.readexactly(5) == b"\x82\x03out"
    writer.write(masked(websocket.CLOSE, b"\x03\xe8"))
    assert await reader.readexactly(4) == b"\x88\x02\x03\xe8"
    writer.close()
    await until(lambda: api.seen == ["left"])


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ("", b"\r\nnot websocket protocol"),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            b"Sec-WebSocket-Version: 13\r\n\r\nmissing or bad WebSocket Version",
        ),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            b"\r\nmismatch challenge/response",
        ),
    ],
)
async def test_who_asks_for_no_web_socket_is_told_as_by_dockerd(
    api: Api, headers: str, answer: bytes
) -> None:
    got = await api.ask(f"GET /ws HTTP/1.1\r\nHost: d\r\n{headers}\r\n".encode())
    assert got == b"HTTP/1.1 400 Bad Request\r\n" + answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\x01x",  # not masked
        b"\xc2\x81\0\0\0\0x",  # an extension's bit
        b"\x83\x80\0\0\0\0",  # an opcode that nobody knows
        b"\x09\x80\0\0\0\0",  # a control frame in parts
        b"\x80\x80\0\0\0\0",  # a continuation of nothing
        b"\x82\xff\0\0\0\0\xff\xff\xff\xff\0\0\0\0",  # 4 GiB
    ],
)
def test_broken_frames_are_refused(data: bytes) -> None:
    with pytest.raises(websocket.FrameError):
        websocket.FrameReader().feed(data)
