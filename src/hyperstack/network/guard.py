"""What joins a guest's tap to its network, and what a guest may send (nft(8), family netdev).

One table per NIC in the sandbox's network namespace, which holds nothing else: frames from the tap
go to the veth and back (``fwd to``), without an IP stack in between. What does not carry the
guest's own MAC and addresses (Ethernet, ARP, IPv4, IPv6, neighbour discovery), what only a router
or a DHCP server may say, and VLAN tags and other protocols are dropped. Nobody who reloads the
host's firewall touches these rules: they live in the sandbox's namespace and die with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hyperstack.network.rtnetlink import mac_bytes


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A NIC: its tap and veth in the sandbox's namespace, and the addresses that are its own."""

    tap: str
    veth: str
    mac: str
    ipv4: Sequence[IPv4Address] = ()
    ipv6: Sequence[IPv6Address] = ()


def link_local(mac: str) -> IPv6Address:
    """Return the link-local address that a kernel makes from a MAC (RFC 4291, appendix A)."""
    raw = mac_bytes(mac)
    middle = bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return IPv6Address(b"\xfe\x80" + b"\0" * 6 + middle)


def _set(addresses: Sequence[object]) -> str:
    return "{ " + ", ".join(str(address) for address in addresses) + " }"


def _from_guest(nic: Guarded) -> list[str]:
    rules = [
        f"ether saddr != {nic.mac} drop",
        "udp sport { 67, 547 } drop",
    ]
    if nic.ipv4:
        mine = _set(nic.ipv4)
        probing = _set([*nic.ipv4, "0.0.0.0"])
        rules += [
            f'ether type ip ip saddr {mine} fwd to "{nic.veth}"',
            f'ether type arp arp saddr ether {nic.mac} arp saddr ip {probing} fwd to "{nic.veth}"',
        ]
    if nic.ipv6:
        local = [*nic.ipv6, link_local(nic.mac)]
        # The target of an advertisement lies 8 bytes into ICMPv6 (RFC 4861, section 4.4).
        targets = _set([f"0x{int(address):032x}" for address in local])
        rules += [
            "icmpv6 type { nd-router-advert, nd-redirect } drop",
            f"icmpv6 type nd-neighbor-advert @th,64,128 != {targets} drop",
            f'ether type ip6 ip6 saddr {_set(local)} fwd to "{nic.veth}"',
            "ether type ip6 ip6 saddr :: icmpv6 type { nd-neighbor-solicit, mld-listener-report, "
            f'mld2-listener-report }} fwd to "{nic.veth}"',
        ]
    return rules


def _to_guest(nic: Guarded) -> list[str]:
    kinds = (["ip", "arp"] if nic.ipv4 else []) + (["ip6"] if nic.ipv6 else [])
    if not kinds:
        return []
    # A bridge floods what it has not learned yet: other people's frames end here, and what the
    # guest itself has said to all.
    return [
        f"ether saddr {nic.mac} ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop",
        f"ether daddr & 01:00:00:00:00:00 != 01:00:00:00:00:00 ether daddr != {nic.mac} drop",
        f'ether type {_set(kinds)} fwd to "{nic.tap}"',
    ]


def _chain(name: str, device: str, rules: Sequence[str]) -> str:
    lines = [f'type filter hook ingress device "{device}" priority 0; policy drop;', *rules]
    return f"chain {name} {{\n" + "\n".join(f"  {line}" for line in lines) + "\n}"


def text(nic: Guarded) -> str:
    """Return the table of one NIC for ``nft -f``."""
    return "\n".join(
        [
            f"table netdev {nic.tap} {{",
            _chain("from_guest", nic.tap, _from_guest(nic)),
            _chain("to_guest", nic.veth, _to_guest(nic)),
            "}",
        ]
    )


def agent_text(tap: str) -> str:
    """Return the table that lets nothing but the agent's TCP come in from its private tap."""
    return "\n".join(
        [
            f"table netdev {tap} {{",
            _chain(
                "from_agent",
                tap,
                ["ether type ip ip saddr 169.254.77.2 ip daddr 169.254.77.1 tcp sport 1024 accept"],
            ),
            "}",
        ]
    )


def removal(tap: str) -> str:
    """Return what removes the table of a NIC."""
    return f"delete table netdev {tap}"
