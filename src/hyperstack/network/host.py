"""Facts of the host: what it routes, which name servers it asks, whether it speaks IPv6."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from pathlib import Path

from hyperstack.network import sysctl
from hyperstack.network.rtnetlink import Network, Rtnetlink

RESOLV_CONF = Path("/etc/resolv.conf")
RESOLVED_CONF = Path("/run/systemd/resolve/resolv.conf")
"""The servers behind systemd-resolved's stub at 127.0.0.53, which no container can reach."""
MAX_RESOLV_CONF = 64 << 10


def taken_networks(but: str = "") -> list[Network]:
    """Return what the host routes, has or asks names of, leaving out the interface *but*."""
    with Rtnetlink() as kernel:
        ours = kernel.link(but) if but else None
        own = [a for index, a in kernel.addresses() if ours is not None and index == ours.index]
        mine = {address.network for address in own}
        found = [route for route in kernel.routes() if route not in mine]
        found += [a.network for index, a in kernel.addresses() if a.network not in mine]
    for server in name_servers(resolv_conf()):
        with contextlib.suppress(ValueError):
            found.append(ipaddress.ip_network(server.partition("%")[0]))
    return found


def resolv_conf() -> str:
    """Return the host's resolv.conf, past systemd-resolved's stub; empty if there is none."""
    text = _read(RESOLV_CONF)
    if name_servers(text) == ["127.0.0.53"]:
        return _read(RESOLVED_CONF) or text
    return text


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_RESOLV_CONF).decode(errors="replace")
    except OSError:
        return ""


def name_servers(text: str) -> list[str]:
    """Return the name servers of a resolv.conf(5)."""
    words = [line.split() for line in text.splitlines()]
    return [w[1] for w in words if len(w) >= 2 and w[0] == "nameserver"]


def speaks_ipv6() -> bool:
    """Tell whether sockets of this namespace can be bound to ``::``."""
    if sysctl.get("ipv6/conf/lo/disable_ipv6") != "0":
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def ephemeral_ports() -> tuple[int, int]:
    """Return the range that random published ports are taken from, ends included."""
    words = (sysctl.get("ipv4/ip_local_port_range") or "").split()
    if len(words) == 2 and all(word.isdigit() for word in words):
        first, last = int(words[0]), int(words[1])
        if 0 < first < last < 65536:
            return first, last
    return 49153, 65535


def machine_id() -> str:
    """Return what tells this host from others, for stable prefixes."""
    return _read(Path("/etc/machine-id")).strip() or socket.gethostname()
