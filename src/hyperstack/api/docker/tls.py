"""TLS for the API's TCP listeners: the server's context, and the record layer without sockets.

The record layer is the standard library's ``SSLObject`` over memory buffers. asyncio's own TLS
transport ends a connection when the peer ends its side, and a client that closes its input still
wants the output (``docker run -i``): here both directions end by themselves.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import InternalError, InvalidParameter

READ = 256 << 10


def server_context(config: Config) -> ssl.SSLContext | None:
    """Return the context that the configuration asks for, or None without TLS.

    TLS 1.2 and up. With ``tls_verify`` clients need a certificate that the CA signed. Raises
    InvalidParameter or InternalError naming the file that is missing or wrong.
    """
    if not (config.tls or config.tls_verify):
        return None
    cert, key = config.tls_cert, config.tls_key
    if cert is None or key is None:
        raise InvalidParameter("TLS needs a certificate and a key: give --tlscert and --tlskey")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise InternalError(
            f"Could not load X509 key pair (cert: {str(cert)!r}, key: {str(key)!r}): {error}"
        ) from error
    if config.tls_verify:
        _require_clients(context, config.tls_ca_cert)
    return context


def _require_clients(context: ssl.SSLContext, authority: Path | None) -> None:
    if authority is None:
        raise InvalidParameter("--tlsverify needs the clients' CA: give --tlscacert")
    try:
        context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        raise InternalError(f"could not read CA certificate {str(authority)!r}: {error}") from error
    context.verify_mode = ssl.CERT_REQUIRED


PLAIN_HTTP = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
"""What Go's server says, in plain text, to who forgot TLS."""
_REQUESTS = (b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO")


class TlsEngine:
    """One connection's TLS: cipher text in, plain text out, and the other way round."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.ready = False
        self.ended = False
        """The peer has said that it sends no more."""
        self._first = b""

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Take bytes from the wire and yield plain text. Raises ssl.SSLError."""
        self._in.write(data)
        self._first = self._first or data[:5]
        if not self.ready:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return
            self.ready = True
        while True:
            try:
                text = self._tls.read(READ)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                text = b""
            if not text:
                self.ended = True
                return
            yield text

    @property
    def plain_http(self) -> bool:
        """Whether what the peer sent is a request without TLS."""
        return self._first in _REQUESTS

    def send(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return what goes on the wire for plain text."""
        view = memoryview(data)
        while len(view):
            view = view[self._tls.write(view) :]
        return self._out.read()

    def pending(self) -> bytes:
        """Return what the handshake wants to send."""
        return self._out.read()

    def close(self) -> bytes:
        """End our side; return the close alert."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the peer's own alert is not waited for
        return self._out.read()
