"""The devices of an endpoint: bridge - veth - (rules) - tap, see ``network/guard.py``.

Blocking. All names come from the endpoint's id, so what is left of a killed daemon is recognised.
The end on the bridge dies with the sandbox's namespace; nothing has to be removed for that.
"""

from __future__ import annotations

import contextlib
import errno
import os
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from hyperstack.errors import HyperError, InternalError, Unavailable
from hyperstack.network import guard, nftables, taps
from hyperstack.network.rows import Endpoint, Network
from hyperstack.network.rtnetlink import (
    Rtnetlink,
    is_gone,
    link_del,
    link_set,
    neighbour_del,
    port_flush,
    port_set,
    veth_new,
)
from hyperstack.platform import netns


def make(endpoint: Endpoint, network: Network, *, namespace: Path, uid: int, mtu: int) -> None:
    """Make an endpoint's devices and rules in the sandbox's namespace and on the bridge.

    Raises Unavailable with what to do for missing kernel features, InternalError otherwise; then
    nothing is left.
    """
    try:
        _veth(endpoint, network, namespace, mtu)
        try:
            netns.in_netns(namespace, lambda: _inside(endpoint, uid, mtu))
        except BaseException:
            _discard(endpoint)
            raise
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Unavailable("the kernel can't make veths; load the kernel module veth") from error
        raise InternalError(f"the network card can't be made: {error.strerror}") from error


def _veth(endpoint: Endpoint, network: Network, namespace: Path, mtu: int) -> None:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Rtnetlink() as kernel:
            master = kernel.link(network.bridge)
            if master is None:
                raise InternalError(f"bridge {network.bridge} is gone; restart the daemon")
            # Where bridges call iptables (br_netfilter), a container that asks for its own
            # published port gets its frame back through the port that it came from.
            kernel.do(
                veth_new(endpoint.veth, endpoint.peer, fd, master.index, mtu),
                port_set(endpoint.veth, hairpin=True, isolated=not network.icc),
            )
            _forget_holder(kernel, endpoint, master.index)
    finally:
        os.close(fd)


def _forget_holder(kernel: Rtnetlink, endpoint: Endpoint, bridge: int) -> None:
    """Have the host ask anew who has an endpoint's addresses.

    Whoever had them before may have had another MAC, or be where the bridge still looks for it: for
    some ten seconds packets would go there.
    """
    for text in filter(None, (endpoint.ipv4, endpoint.ipv6, *endpoint.link_local)):
        try:
            kernel.do(neighbour_del(bridge, ip_address(text)))
        except OSError as error:
            if not is_gone(error):
                raise


def _inside(endpoint: Endpoint, uid: int, mtu: int) -> None:
    taps.make(endpoint.tap, uid)
    nftables.run(guard.text(guarded(endpoint)))
    # Up only now: nothing passes before the rules are there.
    with Rtnetlink() as kernel:
        kernel.do(
            link_set(endpoint.tap, up=True, mtu=mtu),
            link_set(endpoint.peer, up=True),
        )


def guarded(endpoint: Endpoint) -> guard.Guarded:
    """Say what the rules of an endpoint hold its guest to."""
    own = [ip_address(a) for a in (endpoint.ipv4, endpoint.ipv6, *endpoint.link_local) if a]
    return guard.Guarded(
        tap=endpoint.tap,
        veth=endpoint.peer,
        mac=endpoint.mac,
        ipv4=tuple(a for a in own if isinstance(a, IPv4Address)),
        ipv6=tuple(a for a in own if isinstance(a, IPv6Address)),
    )


def _discard(endpoint: Endpoint) -> None:
    with contextlib.suppress(OSError), Rtnetlink() as kernel:
        kernel.do(link_del(endpoint.veth))


def cut(endpoint: Endpoint) -> None:
    """End all traffic of an endpoint at once; its devices die with the sandbox's namespace."""
    try:
        with Rtnetlink() as kernel:
            # Its MAC comes from its address: the next one that gets that is behind another port.
            kernel.do(port_set(endpoint.veth, forwarding=False), port_flush(endpoint.veth))
    except OSError as error:
        if error.errno != errno.ENETDOWN and not is_gone(error):
            raise InternalError(
                f"{endpoint.veth} can't be taken off its bridge: {error.strerror}"
            ) from error


def remove(endpoint: Endpoint, namespace: Path) -> None:
    """Remove an endpoint's devices while its sandbox lives on; repeatable."""
    cut(endpoint)
    _discard(endpoint)

    def inside() -> None:
        with contextlib.suppress(HyperError):
            nftables.run(guard.removal(endpoint.tap))
        with contextlib.suppress(OSError), Rtnetlink() as kernel:
            kernel.do(link_del(endpoint.tap))

    with contextlib.suppress(HyperError):
        netns.in_netns(namespace, inside)
