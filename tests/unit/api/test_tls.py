from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest

from hyperstack.api.docker.listen import check_hosts, close_all, open_all
from hyperstack.api.docker.tls import server_context
from hyperstack.config import Config
from hyperstack.errors import Conflict, HyperError, InvalidParameter
from hyperstack.model import StreamKind
from tests.unit.api.conftest import serving
from tests.unit.api.test_hijack import HEAD
from tests.unit.api.test_server import until


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's and a client's certificate, and a stranger's."""
    folder = tmp_path_factory.mktemp("pki")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for name in ("ca", "stranger"):
        openssl("req", "-x509", *key, "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key",
                "-out", f"{folder}/{name}.pem")  # fmt: skip
    for name in ("server", "client"):
        extension = folder / f"{name}.ext"
        extension.write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={name}Auth\n")
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key",
                "-out", f"{folder}/{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-days", "2", "-in", f"{folder}/{name}.csr", "-CA",
                f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-extfile",
                str(extension), "-out", f"{folder}/{name}.pem")  # fmt: skip
    return folder


def config(pki: Path, **changes: object) -> Config:
    values: dict[str, object] = {
        "tls": True,
        "tls_verify": True,
        "tls_ca_cert": pki / "ca.pem",
        "tls_cert": pki / "server.pem",
        "tls_key": pki / "server.key",
        **changes,
    }
    return Config(**values)  # type: ignore[arg-type]


def client(pki: Path, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    if name:
        context.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
    return context


async def test_a_client_with_a_certificate_is_answered(pki: Path, tmp_path: Path) -> None:
    async with serving(tmp_path, server_context(config(pki)), tcp=True) as api:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(api.path), ssl=client(pki, "client")
        )
        writer.write(b"GET /hello HTTP/1.1\r\nHost: engine.example\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        body = b"x" * 3_000_000
        await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"\n")
        writer.write(b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 3000000\r\n\r\n" + body)
        await reader.readuntil(b"\r\n\r\n")
        assert await asyncio.wait_for(reader.readexactly(len(body)), 10) == body
        writer.close()


async def greet(port: int, context: ssl.SSLContext) -> bytes:
    """Return the first bytes of an answer over TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"GET /hello HTTP/1.1\r\nHost: d\r\n\r\n")
        return await asyncio.wait_for(reader.readexactly(12), 5)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("name", [None, "stranger"])
async def test_a_client_without_one_of_ours_is_not(
    pki: Path, tmp_path: Path, name: str | None
) -> None:
    async with serving(tmp_path, server_context(config(pki)), tcp=True) as api:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await greet(int(api.path), client(pki, name))
        assert api.server.connections == 0
        assert await greet(int(api.path), client(pki, "client")) == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    ("sent", "told"),
    [(b"GET /hello HTTP/1.1\r\nHost: d\r\n\r\n", True), (b"\x00\xff\x00\xff\r\n\r\n", False)],
)
async def test_plain_bytes_on_a_tls_port_end_the_connection(
    pki: Path, tmp_path: Path, sent: bytes, told: bool
) -> None:
    async with serving(tmp_path, server_context(config(pki)), tcp=True) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.path))
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert (b"Client sent an HTTP request to an HTTPS server." in answer) is told
        assert b"200" not in answer
        writer.close()


def _read(tls: ssl.SSLObject) -> bytes:
    try:
        return tls.read(65536)
    except ssl.SSLWantReadError:
        return b""


async def test_the_end_of_input_leaves_the_output_open_over_tls_too(
    pki: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path, server_context(config(pki)), tcp=True) as api:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client(pki, "client").wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.path))

        async def turn() -> None:
            writer.write(outgoing.read())
            incoming.write(await asyncio.wait_for(reader.read(65536), 5))

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await turn()
        tls.write(HEAD % b"" + b"input")
        await turn()
        while not (head := _read(tls)):
            await turn()
        assert head.startswith(b"HTTP/1.1 101")
        await until(lambda: bool(api.hub.sessions))
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()  # sends close_notify: this side is done
        writer.write(outgoing.read())
        await asyncio.wait_for(api.process.ended.wait(), 5)
        await api.hub.feed(StreamKind.STDOUT, b"answer")
        api.hub.finish()
        incoming.write(await asyncio.wait_for(reader.read(), 5))
        assert api.process.data == b"input"
        assert _read(tls) == b"\x01\0\0\0\0\0\0\x06answer"
        writer.close()


def test_tcp_without_mutual_tls_needs_the_operators_plain_word(pki: Path) -> None:
    for tls in (False, True):
        with pytest.raises(InvalidParameter, match="--allow-insecure-tcp"):
            check_hosts(Config(hosts=("tcp://127.0.0.1:1",), tls=tls))
    check_hosts(Config(hosts=("tcp://127.0.0.1:1",), allow_insecure_tcp=True))
    check_hosts(config(pki, hosts=("tcp://[::1]:2376",)))


@pytest.mark.parametrize(
    "host",
    ["x", "http://a", "unix://relative", "tcp://a:99999", "tcp://a:b", "unix:///" + "x" * 108],
)
def test_bad_addresses_are_refused(host: str) -> None:
    with pytest.raises(InvalidParameter):
        check_hosts(Config(hosts=(host,), allow_insecure_tcp=True))


def test_a_missing_certificate_is_named(pki: Path) -> None:
    with pytest.raises(HyperError, match=r"nothing\.pem"):
        server_context(config(pki, tls_cert=pki / "nothing.pem"))
    with pytest.raises(HyperError, match=r"nothing\.pem"):
        server_context(config(pki, tls_ca_cert=pki / "nothing.pem"))
    with pytest.raises(InvalidParameter, match="--tlscert"):
        server_context(Config(tls=True))


def test_a_socket_is_for_its_group_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    settings = Config(hosts=(f"unix://{path}",), group="0")
    first = open_all(settings, None)
    assert path.stat().st_mode & 0o777 == 0o660
    with pytest.raises(Conflict, match="another process listens there already"):
        open_all(settings, None)
    first[0].sock.close()  # as after kill -9: the path is left
    second = open_all(settings, None)
    close_all(second)
    assert not path.exists()
    path.write_text("a file")
    with pytest.raises(Conflict, match="is no socket"):
        open_all(settings, None)


def test_a_port_in_use_is_one_sentence() -> None:
    settings = Config(hosts=("tcp://127.0.0.1:0",), allow_insecure_tcp=True)
    with pytest.raises(InvalidParameter):
        open_all(settings, None)
    first = open_all(Config(hosts=("tcp://127.0.0.1:23751",), allow_insecure_tcp=True), None)
    try:
        with pytest.raises(HyperError, match="Address already in use"):
            open_all(Config(hosts=("tcp://127.0.0.1:23751",), allow_insecure_tcp=True), None)
    finally:
        close_all(first)
