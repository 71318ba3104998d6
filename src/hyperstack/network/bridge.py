"""Bridges on the host, one per network, and the kernel parameters that routing for them needs.

Blocking, in the daemon's network namespace. Everything may be repeated: what is there already and
right is left alone, so connections through a bridge live on when a new daemon looks at it.
"""

from __future__ import annotations

import errno
import logging
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import HyperError, InternalError, Unavailable
from hyperstack.network import nftables, sysctl
from hyperstack.network.ipam import mac_from
from hyperstack.network.rows import VETH, Network
from hyperstack.network.rtnetlink import (
    Link,
    Rtnetlink,
    address_add,
    address_del,
    bridge_new,
    is_gone,
    link_del,
    link_set,
)

log = logging.getLogger(__name__)

ROUTER_MARK = "router"
"""File under the exec root: this daemon or an earlier one made the host a router (until reboot)."""


def make(network: Network, config: Config) -> None:
    """Make a network's bridge, or correct what differs from what the row says.

    Raises Unavailable with what to do if the kernel has no bridges, InternalError otherwise.
    """
    name = network.bridge
    mtu = network.mtu(config.mtu)
    try:
        with Rtnetlink() as kernel:
            link = kernel.link(name)
            if link is None:
                kernel.do(bridge_new(name, mac_from(network.id), mtu))
                link = kernel.link(name)
            if link is None:
                raise InternalError(f"bridge {name} has vanished")
            if link.kind != "bridge":
                raise InternalError(f"existing interface {name} is not a bridge")
            _settings(network)
            _addresses(kernel, network, link)
            if not link.up or link.mtu != mtu:
                kernel.do(link_set(name, up=True, mtu=mtu))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
            raise Unavailable(
                "the kernel can't make bridges; load the kernel module bridge, or run containers "
                "with --network none"
            ) from error
        if error.errno == errno.EINVAL:
            raise InternalError("invalid argument") from error  # a name that the kernel keeps
        raise InternalError(f"bridge {name} can't be made: {error.strerror}") from error


def _settings(network: Network) -> None:
    name = network.bridge
    ipv6 = network.enable_ipv6
    sysctl.put(f"ipv6/conf/{name}/disable_ipv6", "0" if ipv6 else "1", optional=True)
    sysctl.put(f"ipv6/conf/{name}/accept_ra", "0", optional=True)
    # So that the host's own connections to 127.0.0.1 reach published ports; everybody else's are
    # dropped (chain "loopback").
    sysctl.put(f"ipv4/conf/{name}/route_localnet", "1")


def _addresses(kernel: Rtnetlink, network: Network, link: Link) -> None:
    wanted = {s.gateway_interface for s in network.gateways}
    present = {a for index, a in kernel.addresses() if index == link.index}
    stale = {a for a in present - wanted if not a.is_link_local}
    kernel.do(
        *(address_add(link.index, a) for a in sorted(wanted - present, key=str)),
        *(address_del(link.index, a) for a in sorted(stale, key=str)),
    )


def remove(network: Network) -> None:
    """Remove a network's bridge; nothing happens if it is gone. Raises InternalError.

    What is not ours by its MAC stays: a network may have been given a bridge that was there, or the
    name of another interface of the host, which ``make`` has refused.
    """
    name = network.bridge
    try:
        with Rtnetlink() as kernel:
            link = kernel.link(name)
            if link is not None and link.kind == "bridge" and link.mac == mac_from(network.id):
                kernel.do(link_del(name))
    except OSError as error:
        if not is_gone(error):
            raise InternalError(f"bridge {name} can't be removed: {error.strerror}") from error


def route(config: Config, *, ipv6: bool) -> bool:
    """Let the host route for containers; return whether it did not route before Hyper came.

    If so, the firewall's table lets it route for nobody else.
    """
    mark = config.exec_root / ROUTER_MARK
    if sysctl.get("ipv4/ip_forward") != "1":
        mark.touch()
        sysctl.put("ipv4/ip_forward", "1")
    if ipv6 and sysctl.get("ipv6/conf/all/forwarding") == "0":
        _keep_advertisements()
        sysctl.put("ipv6/conf/all/forwarding", "1", optional=True)
    return mark.exists()


def _keep_advertisements() -> None:
    """A router ignores router advertisements: interfaces that live by them say 2 instead of 1."""
    for folder in Path("/proc/sys/net/ipv6/conf").glob("*"):
        name = f"ipv6/conf/{folder.name}/accept_ra"
        if folder.name not in ("all", "default") and sysctl.get(name) == "1":
            sysctl.put(name, "2", optional=True)


def foreign_firewall() -> str | None:
    """Return a warning if another table drops what it is not told to forward, as dockerd's does."""
    try:
        listed = nftables.run("list chain ip filter FORWARD")
    except HyperError:
        return None
    if "policy drop" not in listed:
        return None
    return (
        "the host's iptables chain FORWARD drops by default (dockerd does that); containers reach "
        "the outside and get published ports only if you allow it, for instance by: "
        "iptables -I FORWARD -i hyper+ -j ACCEPT; iptables -I FORWARD -o hyper+ -j ACCEPT"
    )


def stray_veths(bridges: set[str], wanted: set[str]) -> list[str]:
    """Return our veths that no row explains: ours by name, on one of our bridges or on none."""
    with Rtnetlink() as kernel:
        links = kernel.links()
    ours = {link.index for link in links if link.name in bridges} | {0}
    return [
        link.name
        for link in links
        if link.kind == "veth"
        and len(link.name) == len(VETH) + 12
        and link.name.startswith(VETH)
        and link.master in ours
        and link.name not in wanted
    ]


def drop_links(names: list[str]) -> None:
    """Remove interfaces, those that are gone already aside."""
    with Rtnetlink() as kernel:
        for name in names:
            try:
                kernel.do(link_del(name))
            except OSError as error:
                if not is_gone(error):
                    log.warning("%s can't be removed: %s", name, error.strerror)
