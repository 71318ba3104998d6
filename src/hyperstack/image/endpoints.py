"""Where a registry is and how its identity is proven.

``docker.io`` is served by registry-1.docker.io, before which the configured mirrors are asked when
pulling. Any other domain is itself an address, spoken to by HTTPS with a verified certificate.
Registries that the operator named as insecure (host, host:port, or a network for literal addresses
and ``localhost``; loopback by default) are tried by HTTPS without verification, then by HTTP, as
dockerd does. A name is never looked up to decide this: who answers for it could change.

Certificates of a registry lie in ``certs.d/HOST[:PORT]`` below /etc/docker and /etc/hyper:
``*.crt`` are authorities, ``NAME.cert`` with ``NAME.key`` is a client's identity.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from hyperstack.config import Config
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.image.reference import DEFAULT_DOMAIN, LEGACY_DOMAIN

CERTS_DIRS = (Path("/etc/docker/certs.d"), Path("/etc/hyper/certs.d"))
HUB = URL("https://registry-1.docker.io")
HUB_HOSTS = frozenset({DEFAULT_DOMAIN, LEGACY_DOMAIN, "registry-1.docker.io"})


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One way to a registry. ``base`` ends without a slash; ``verify`` is for its certificate."""

    base: URL
    verify: bool = True
    mirror: bool = False

    def url(self, path: str) -> URL:
        """Return the address of *path*, which is escaped already."""
        return URL(str(self.base).rstrip("/") + path, encoded=True)


def endpoints(config: Config, domain: str, *, mirrors: bool) -> list[Endpoint]:
    """Return the ways to the registry of *domain*, the best first. Raises InvalidParameter."""
    if domain in HUB_HOSTS:
        ahead = [_mirror(config, text) for text in config.registry_mirrors] if mirrors else []
        return [*ahead, Endpoint(base=HUB)]
    try:
        secure = address(f"https://{domain}")
    except ValueError as error:
        raise InvalidParameter(f'invalid registry address "{domain}"') from error
    if not is_insecure(config.insecure_registries, secure):
        return [Endpoint(base=secure)]
    return [Endpoint(base=secure, verify=False), Endpoint(base=URL(f"http://{domain}"))]


def _mirror(config: Config, text: str) -> Endpoint:
    try:
        url = address(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid mirror: {text!r}") from error
    if url.scheme not in ("http", "https") or not url.host or url.query_string or url.user:
        raise InvalidParameter(f"invalid mirror: {text!r} is not a plain http or https address")
    insecure = is_insecure(config.insecure_registries, url)
    return Endpoint(base=url, verify=not insecure, mirror=True)


def is_insecure(insecure: Sequence[str], url: URL) -> bool:
    """Tell whether the operator said that the registry at *url* need not prove its identity."""
    host = (url.host or "").lower()
    names = {host, f"{host}:{url.port}", f"[{host}]:{url.port}"}
    if any(entry.lower() in names for entry in insecure if "/" not in entry):
        return True
    address = _address("127.0.0.1" if host == "localhost" else host)
    if address is None:
        return False
    return any(address in network for network in map(_network, insecure) if network is not None)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False) if "/" in entry else None
    except ValueError:
        return None


def address(text: str) -> URL:
    """Return a foreign address that stays as it was written. Raises ValueError for a bad one."""
    url = URL(text, encoded=True)
    # The parts are looked at when they are wanted first, and only then found to be wrong.
    if url.host is not None and (url.port or 0) >= 0 and not url.host.isprintable():
        raise ValueError("the host's name is not printable")
    return url


def is_near(host: str) -> bool:
    """Tell whether a host is this one itself or on its link (where cloud metadata is served)."""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host.partition("%")[0])
    if address is None and re.fullmatch("[0-9a-fx.]+", host):
        # The resolver takes 0x7f.1 and 2130706433 for addresses too (inet_aton(3)).
        with contextlib.suppress(OSError):
            address = ipaddress.ip_address(socket.inet_aton(host))
    if address is None:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    real = mapped if mapped is not None else address
    return bool(real.is_loopback or real.is_link_local or real.is_unspecified)


def tls_context(url: URL, *, verify: bool, dirs: Sequence[Path] = CERTS_DIRS) -> ssl.SSLContext:
    """Return how to speak TLS with the host of *url*; blocking (reads certificates).

    Raises InternalError, naming the file, if one of the operator's certificates is not readable.
    """
    context = ssl.create_default_context()
    # Python 3.13 asks for extensions that certificates made by hand lack, and Docker does not.
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    host = url.host or ""
    for folder in dirs:
        # A host of a URL holds no slash, so that the name stays within the folder.
        for name in dict.fromkeys((f"{host}:{url.port}", host)):
            if name not in (".", "..") and (folder / name).is_dir():
                _load(context, folder / name)
                break
    return context


def _load(context: ssl.SSLContext, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(cafile=path)
            elif path.suffix == ".cert":
                key = path.with_suffix(".key")
                if not key.exists():
                    raise InternalError(
                        f"missing key {key.name} for client certificate "
                        f"{path.name}. CA certificates must use the extension "
                        ".crt"
                    )
                context.load_cert_chain(path, key)
        except (OSError, ssl.SSLError) as error:
            raise InternalError(f"cannot use certificate {path}: {error}") from error
