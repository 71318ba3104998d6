from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from tests.unit.api.conftest import Api, message, serving


async def until(test: object, bound: float = 3.0) -> None:
    async with asyncio.timeout(bound):
        while not test():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_an_answer_has_the_headers_that_clients_look_for(api: Api) -> None:
    status, head, body = await api.get("/v1.41/hello?q=a+b&q=%2F")
    assert status == 200
    assert json.loads(body) == {"version": [1, 41], "query": ["a b", "/"]}
    for header in (
        b"Api-Version: 1.51",
        b"Docker-Experimental: false",
        b"Ostype: linux",
        b"Server: Hyper/",
        b"Content-Type: application/json",
        b"Date: ",
    ):
        assert header in head


async def test_without_a_version_the_newest_is_spoken(api: Api) -> None:
    assert json.loads((await api.get("/hello"))[2])["version"] == [1, 51]


@pytest.mark.parametrize(
    ("path", "method", "status", "sentence"),
    [
        ("/nope", "GET", 404, "page not found"),
        ("/v1.41/nope", "GET", 404, "page not found"),
        ("/hello", "DELETE", 404, "page not found"),
        ("/hello/", "GET", 404, "page not found"),
        ("/v1.99/hello", "GET", 400, "client version 1.99 is too new. Maximum supported API "
         "version is 1.51"),
        ("/refuse", "GET", 409, "it is in use"),
        ("/swarm", "GET", 503, 'This node is not a swarm manager. Use "docker swarm init" or '
         '"docker swarm join" to connect this node to swarm and try again.'),
        ("/plugins/a/b/json", "GET", 404, 'plugin "a/b" not found'),
        ("/broken", "GET", 500, "internal error, see the daemon's log"),
    ],
)  # fmt: skip
async def test_errors_are_json_with_dockers_status(
    api: Api, path: str, method: str, status: int, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    got, _, body = await api.get(path, method=method)
    assert (got, message(body)) == (status, sentence)


async def test_not_modified_has_no_body(api: Api) -> None:
    status, head, body = await api.get("/unchanged")
    assert (status, body) == (304, b"")
    assert b"Content-Type" not in head


async def test_paths_with_doubled_slashes_are_redirected(api: Api) -> None:
    status, head, _ = await api.get("//hello")
    assert status == 301
    assert b"Location: /hello\r\n" in head
    _, head, _ = await api.get("//a%20b?q=%20&x")
    assert b"Location: /a%20b?q=%20&x\r\n" in head


async def test_who_is_too_old_for_json_is_told_in_plain_text(api: Api) -> None:
    status, head, body = await api.get("/v1.9/hello")
    assert status == 400
    assert b"Content-Type: text/plain; charset=utf-8\r\n" in head
    assert body.startswith(b"client version 1.9 is too old. ")


async def test_what_is_no_http_is_told_in_plain_text(api: Api) -> None:
    answer = await api.ask(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
    words = b"400 Bad Request: malformed Host header"
    assert answer == (
        b"HTTP/1.1 " + words + b"\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Connection: close\r\n\r\n" + words
    )


async def test_options_are_answered_whatever_the_path(api: Api) -> None:
    for path, status in (("/nope", 200), ("*", 200), ("/v1.99/nope", 400)):
        assert (await api.get(path, method="OPTIONS"))[0] == status


async def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    one = b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\none"
    two = (
        b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
    )
    last = b"GET /hello HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    answer = await api.ask(one + two + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.index(b"one") < answer.index(b"two") < answer.index(b'"version"')


async def test_a_request_may_come_byte_by_byte(api: Api) -> None:
    reader, writer = await api.open()
    for byte in b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\nok":
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert await reader.readexactly(2) == b"ok"
    writer.close()


async def test_two_lengths_end_the_connection(api: Api) -> None:
    answer = await api.ask(
        b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /hello HTTP/1.1\r\nHost: d\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400 Bad Request")
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_head_without_end_is_refused_before_it_is_large(api: Api) -> None:
    answer = await api.ask(b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000)
    assert answer.startswith(b"HTTP/1.1 431")


async def test_a_json_body_has_a_bound(api: Api) -> None:
    for length in (b"Content-Length: 9000000", b"Transfer-Encoding: chunked"):
        head = b"POST /take HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n" + length
        body = b"4c4b40\r\n" + b" " * 5_000_000 if length.endswith(b"chunked") else b""
        answer = await api.ask(head + b"\r\n\r\n" + body)
        assert answer.startswith(b"HTTP/1.1 413"), answer[:80]


@pytest.mark.parametrize(
    ("header", "body", "sentence"),
    [
        ("Content-Type: text/plain", b"{}", "unsupported Content-Type header (text/plain): must be "
         "'application/json'"),
        ("X: y", b"{}", "malformed Content-Type header (): mime: no media type"),
        ("Content-Type: application/json", b"", "invalid JSON: got EOF while reading request body"),
        ("Content-Type: application/json", b"\n", "invalid JSON: got EOF while reading request "
         "body"),
        ("Content-Type: application/json; charset=utf-8", b"{", "invalid JSON: unexpected EOF"),
    ],
)  # fmt: skip
async def test_json_bodies_are_checked_as_docker_checks_them(
    api: Api, header: str, body: bytes, sentence: str
) -> None:
    answer = await api.ask(
        f"POST /take HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{header}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    assert answer.startswith(b"HTTP/1.1 400")
    assert message(answer.partition(b"\r\n\r\n")[2]) == sentence


async def test_a_client_that_waits_is_told_to_go_on(api: Api) -> None:
    reader, writer = await api.open()
    writer.write(
        b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hi")
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("path", ["/ignore", "/nosuch"])
async def test_nobody_is_told_to_go_on_after_the_answer(api: Api, path: str) -> None:
    answer = await api.ask(
        f"PUT {path} HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        "GET /hello HTTP/1.1\r\nHost: d\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 404")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in answer


async def test_an_early_answer_reaches_a_client_that_still_sends(api: Api) -> None:
    reader, writer = await api.open()
    writer.write(b"PUT /ignore HTTP/1.1\r\nHost: d\r\nContent-Length: 50000000\r\n\r\n")
    sent = asyncio.create_task(_send_until_closed(writer, 50))
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 404")
    await sent
    writer.close()


async def _send_until_closed(writer: asyncio.StreamWriter, count: int) -> None:
    try:
        for _ in range(count):
            writer.write(b"x" * 1_000_000)
            await writer.drain()
    except ConnectionError:
        pass


async def test_http_1_0_gets_its_answer_until_the_end_of_the_connection(api: Api) -> None:
    answer = await api.ask(b"GET /cut HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Transfer-Encoding" not in answer
    assert answer.endswith(b"\r\n\r\nhalf")


async def test_a_failure_on_the_way_cuts_the_answer(api: Api) -> None:
    _, _, body = await api.get("/cut")
    assert body == b"4\r\nhalf\r\n"  # no last chunk: the client sees that it is not whole


async def test_a_head_request_has_no_body(api: Api) -> None:
    status, _, body = await api.get("/hello", method="OPTIONS")
    assert (status, body) == (200, b"")


@pytest.mark.parametrize("path", ["/forever", "/flood", "/events"])
async def test_a_client_that_leaves_frees_what_waited_for_it(api: Api, path: str) -> None:
    reader, writer = await api.open()
    writer.write(f"GET {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await until(lambda: api.server.connections == 1)
    writer.close()
    await until(lambda: api.server.connections == 0)
    assert api.bus.listeners == 0
    assert path == "/events" or api.seen[-1].endswith("ended")


async def test_a_client_that_leaves_after_its_body_is_noticed(api: Api) -> None:
    _, writer = await api.open()
    writer.write(b"POST /wait HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}")
    await until(lambda: api.seen == ["began"])
    writer.close()
    await until(lambda: api.seen == ["began", "ended"] and api.server.connections == 0)


async def test_a_client_that_left_before_its_turn_is_not_waited_for(api: Api) -> None:
    _, writer = await api.open()
    writer.write(
        b"POST /change HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"
        b"GET /forever HTTP/1.1\r\nHost: d\r\n\r\n"
    )
    writer.write_eof()
    await until(lambda: api.server.connections == 1)
    await until(lambda: api.server.connections == 0)
    assert api.seen == ["began", "done"]
    writer.close()


async def test_a_change_is_carried_out_although_its_client_left(api: Api) -> None:
    _, writer = await api.open()
    writer.write(b"POST /change HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
    await until(lambda: api.seen == ["began"])
    writer.close()
    await until(lambda: api.seen == ["began", "done"])


async def test_a_slow_reader_holds_the_writer_back(api: Api) -> None:
    reader, writer = await api.open()
    writer.write(b"GET /flood HTTP/1.1\r\nHost: d\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    connection = next(iter(api.server._connections))
    await asyncio.sleep(0.3)
    assert connection._transport is not None
    assert connection._transport.get_write_buffer_size() < 4 << 20
    writer.close()
    await until(lambda: api.server.connections == 0)


async def test_closing_the_server_ends_every_client(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        reader, writer = await api.open()
        idle, idle_writer = await api.open()
        writer.write(b"GET /forever HTTP/1.1\r\nHost: d\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await api.server.close()
        assert await asyncio.wait_for(reader.read(), 2) == b""
        assert await asyncio.wait_for(idle.read(), 2) == b""
        assert api.seen == ["began", "ended"]
        writer.close()
        idle_writer.close()


async def test_events_come_from_the_past_and_the_present(api: Api) -> None:
    api.bus.publish("container", "create", "a" * 64, {"image": "x", "name": "n"})
    api.bus.publish("network", "create", "b" * 64, {"name": "m"})
    reader, writer = await api.open()
    filters = '{"container":["n"]}'.replace('"', "%22")
    writer.write(f"GET /events?since=1&filters={filters} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await until(lambda: api.bus.listeners == 1)
    api.bus.publish("container", "exec_create: sh", "a" * 64, {"image": "x", "name": "n"})
    await reader.readline()
    first = json.loads(await reader.readline())
    await reader.readline()
    await reader.readline()
    second = json.loads(await reader.readline())
    assert (first["Action"], second["Action"]) == ("create", "exec_create: sh")
    assert first["status"] == "create"
    assert first["from"] == "x"
    assert first["time"] == first["timeNano"] // 10**9
    writer.close()


async def test_events_end_when_until_is_reached(api: Api) -> None:
    api.bus.publish("container", "die", "a" * 64)
    status, _, body = await api.get("/events?since=1&until=2")
    assert (status, body) == (200, b"0\r\n\r\n")
    status, _, body = await api.get("/events?since=5&until=2")
    assert status == 400
    assert "cannot be after `until`" in message(body)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Origin: http://evil.example", 403),
        ("Sec-Fetch-Site: cross-site", 403),
        ("X: y", 200),
    ],
)
async def test_browser_pages_are_refused_on_tcp(tmp_path: Path, header: str, status: int) -> None:
    async with serving(tmp_path, tcp=True) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.path))
        request = f"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:{api.path}\r\n{header}\r\n\r\n"
        writer.write(request.encode())
        assert int((await reader.readline()).split()[1]) == status
        writer.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example:2375", 403), ("localhost", 200), ("[::1]:1", 200), ("node1:2375", 200)],
)
async def test_a_rebound_name_is_refused_on_tcp(tmp_path: Path, host: str, status: int) -> None:
    async with serving(tmp_path, tcp=True) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.path))
        writer.write(f"GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert int((await reader.readline()).split()[1]) == status
        writer.close()


async def test_a_client_that_does_not_read_its_events_loses_them(api: Api) -> None:
    reader, writer = await api.open()
    writer.write(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    connection = next(iter(api.server._connections))
    assert connection._transport is not None
    cut = False
    for _ in range(200_000):
        api.bus.publish("container", "create", "a" * 64, {"name": "n" * 400})
        await asyncio.sleep(0)
        assert connection._transport.get_write_buffer_size() < 4 << 20
        if cut := not api.bus.listeners:
            break
    assert cut
    writer.close()
