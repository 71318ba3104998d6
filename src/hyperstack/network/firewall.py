"""The one nftables table in the daemon's namespace, ``inet hyper``: text of it, nothing else.

Masquerade, published ports, walls between networks, no way from a guest to the host. Everything
that comes and goes with containers is an element of a map, so a start costs one small transaction;
the table as a whole is written when networks change and when somebody else has removed it. It
lives on without the daemon. Verdicts of other tables are not touched: what another firewall drops
stays dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from hyperstack.network.rows import Network, Publication

TABLE = "hyper"
METADATA = ("169.254.0.0/16", "fd00:ec2::254")
"""Where clouds answer whoever asks with the host's credentials."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A port of the host and where in a container it leads; or, without one, a container's port."""

    publication: Publication
    address: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All that the table depends on. *guarded*: the daemon made the host a router, so it routes
    for containers only."""

    networks: Sequence[Network] = ()
    published: Sequence[Published] = ()
    guarded: bool = False


def _elements(items: Iterable[str]) -> str:
    joined = ", ".join(items)
    return f" elements = {{ {joined} }}" if joined else ""


def _quoted(networks: Iterable[Network]) -> list[str]:
    return [f'"{network.bridge}"' for network in networks]


def _sets(policy: Policy) -> list[str]:
    networks = policy.networks
    same = [f'"{n.bridge}" . "{n.bridge}"' for n in networks if n.icc]
    lines = [
        f"set bridges {{ type ifname;{_elements(_quoted(networks))}; }}",
        f"set internal {{ type ifname;{_elements(_quoted(n for n in networks if n.internal))}; }}",
        f"set open {{ type ifname;{_elements(_quoted(n for n in networks if n.host_access))}; }}",
        f"set same {{ type ifname . ifname;{_elements(same)}; }}",
    ]
    for version in (4, 6):
        bare = _quoted(n for n in networks if n.mode(version) == "nat-unprotected")
        lines.append(f"set bare{version} {{ type ifname;{_elements(bare)}; }}")
        routed = _quoted(n for n in networks if n.mode(version) == "routed")
        lines.append(f"set routed{version} {{ type ifname;{_elements(routed)}; }}")
        members = [_element(p) for p in policy.published if _map(p) == f"direct{version}"]
        lines.append(
            f"set direct{version} {{ type ipv{version}_addr . inet_proto . inet_service;"
            f"{_elements(members)}; }}"
        )
    for name, key, value in (
        ("any4", "", "ipv4_addr"),
        ("any6", "", "ipv6_addr"),
        ("at4", "ipv4_addr . ", "ipv4_addr"),
        ("at6", "ipv6_addr . ", "ipv6_addr"),
    ):
        members = [_element(p) for p in policy.published if _map(p) == name]
        lines.append(
            f"map {name} {{ type {key}inet_proto . inet_service : {value} . inet_service;"
            f"{_elements(members)}; }}"
        )
    return lines


def _map(published: Published) -> str:
    """The map or set that a published port belongs to; empty: only a proxy can serve it."""
    host, guest = ip_address(published.publication.host_ip), ip_address(published.address)
    if not published.publication.host_port:
        return f"direct{guest.version}"
    if host.version != guest.version or (host.version == 6 and host.is_loopback):
        return ""
    return f"{'any' if host.is_unspecified else 'at'}{host.version}"


def _element(published: Published) -> str:
    p = published.publication
    if not p.host_port:
        return f"{published.address} . {p.protocol} . {p.port}"
    host = "" if ip_address(p.host_ip).is_unspecified else f"{p.host_ip} . "
    return f"{host}{p.protocol} . {p.host_port} : {published.address} . {p.port}"


def _base(name: str, kind: str, hook: str, priority: str, rules: Sequence[str]) -> list[str]:
    head = f"  type {kind} hook {hook} priority {priority}; policy accept;"
    return [f"chain {name} {{", head, *(f"  {rule}" for rule in rules), "}"]


def _chain(name: str, rules: Sequence[str]) -> list[str]:
    return [f"chain {name} {{", *(f"  {rule}" for rule in rules), "}"]


def _translation() -> list[str]:
    published = [
        "dnat ip to ip daddr . meta l4proto . th dport map @at4",
        "dnat ip to meta l4proto . th dport map @any4",
        "dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6",
        "dnat ip6 to meta l4proto . th dport map @any6",
    ]
    # IPv6 has no way from ::1 to another interface: connections to it are the port helper's.
    return [
        # The bridges route 127.0.0.0/8 for the host's own connections to published ports: nobody
        # else may come in by it, neither from a guest nor (the first return) from a neighbour.
        *_base("loopback", "filter", "prerouting", "raw",
               ["iifname @bridges ip daddr 127.0.0.0/8 drop"]),
        *_chain("published", published),
        *_base("prerouting", "nat", "prerouting", "dstnat",
               ["ip daddr 127.0.0.0/8 return", "iifname @internal return",
                "fib daddr type local jump published"]),
        *_base("output", "nat", "output", "-100",
               ["ip6 daddr ::1 return", "fib daddr type local jump published"]),
    ]  # fmt: skip


def _masquerade(networks: Sequence[Network]) -> list[str]:
    rules = ["ip saddr 127.0.0.0/8 oifname @bridges masquerade"]
    for network in networks:
        for subnet in network.subnets:
            family = "ip" if subnet.version == 4 else "ip6"
            source = f"{family} saddr {subnet.subnet}"
            # A container that reaches its neighbour by the host's address: the answer has to come
            # back by the host.
            rules.append(f"{source} {family} daddr {subnet.subnet} ct status dnat masquerade")
            if network.masquerade(subnet.version):
                fixed = network.source(subnet.version)
                verdict = f"snat {family} to {fixed}" if fixed else "masquerade"
                rules.append(f'{source} oifname != "{network.bridge}" {verdict}')
    return _base("postrouting", "nat", "postrouting", "srcnat", rules)


def _walls(guarded: bool) -> list[str]:
    forward = ["iifname @bridges goto forwarded", "oifname @bridges goto forwarded"]
    if guarded:
        forward.append("drop")
    forwarded = [
        "iifname . oifname @same accept",
        f"iifname @bridges ip daddr {METADATA[0]} drop",
        f"iifname @bridges ip6 daddr {METADATA[1]} drop",
        "ct state established,related accept",
        "iifname @internal drop",
        "oifname @internal drop",
        "ct status dnat accept",
        "ip daddr . meta l4proto . th dport @direct4 accept",
        "ip6 daddr . meta l4proto . th dport @direct6 accept",
        "oifname @routed4 meta l4proto icmp accept",
        "oifname @routed6 meta l4proto ipv6-icmp accept",
        "iifname @bridges oifname @bridges drop",
        "oifname @bare4 meta nfproto ipv4 accept",
        "oifname @bare6 meta nfproto ipv6 accept",
        "oifname @bridges drop",
    ]
    to_host = [
        "ct state established,related accept",
        "iifname @open accept",
        "icmp type echo-request accept",
        "icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert } accept",
        "reject",
    ]
    return [
        *_chain("to_host", to_host),
        *_base("input", "filter", "input", "filter", ["iifname @bridges goto to_host"]),
        *_chain("forwarded", forwarded),
        *_base("forward", "filter", "forward", "filter", forward),
    ]


def table(policy: Policy) -> str:
    """Return the transaction that puts the whole table in the place of any that is there."""
    body = [*_sets(policy), *_translation(), *_masquerade(policy.networks), *_walls(policy.guarded)]
    return "\n".join(
        [
            f"table inet {TABLE} {{ }}",
            f"delete table inet {TABLE}",
            f"table inet {TABLE} {{",
            *(f"  {line}" for line in body),
            "}",
        ]
    )


def publish(published: Sequence[Published]) -> str:
    """Return the transaction that opens ports; empty if none needs a rule."""
    return _change("add", published)


def withdraw(published: Sequence[Published]) -> str:
    """Return the transaction that closes ports; empty if none has a rule."""
    return _change("delete", published)


def _change(verb: str, published: Sequence[Published]) -> str:
    return "\n".join(
        f"{verb} element inet {TABLE} {name} {{ {_element(p)} }}"
        for p in published
        if (name := _map(p))
    )


def present() -> str:
    """Return the command that fails unless the table is there."""
    return f"list chain inet {TABLE} forward"
