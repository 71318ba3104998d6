"""A container's networks: from its wishes to NICs, files and ports; ``naming`` answers its DNS.

What Docker's daemon does around libnetwork. A container on user-defined networks finds others by
name, alias and short id through DNS; on the network ``bridge`` it does not, and gets the host's
name servers instead.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from hyperstack.engine import links, wishes
from hyperstack.engine.core import Core
from hyperstack.engine.sandbox import Sandbox
from hyperstack.errors import Forbidden, HyperError, InvalidParameter, NotFound
from hyperstack.guest import messages
from hyperstack.ids import NetworkId, new_id
from hyperstack.model import Container, EndpointSettings, EndpointState, PortBinding
from hyperstack.network import files, host, ipam, ports
from hyperstack.network.manager import Attachment
from hyperstack.network.rows import HOST_BINDING, Endpoint, Network
from hyperstack.vmm.base import Tap

log = logging.getLogger(__name__)

MS_RDONLY = 1
HOST_MODE = (
    "host networking is not possible for a container in its own virtual machine; publish ports "
    "with -p instead"
)


NO_NETWORK = "cannot create endpoint on configuration-only network"


@dataclass(frozen=True, kw_only=True)
class Plugged:
    """What a container got: taps for its machine, the rest for its agent and its row."""

    taps: tuple[Tap, ...] = ()
    endpoints: dict[str, EndpointState] = field(default_factory=dict)
    ports: dict[str, tuple[PortBinding, ...]] = field(default_factory=dict)
    nics: tuple[messages.Nic, ...] = ()
    files: tuple[messages.Mount, ...] = ()
    dns: bool = False
    env: tuple[str, ...] = ()
    """Variables of linked containers."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Kernel parameters of the interfaces."""


Pair = tuple[Endpoint, Network]


async def plug(core: Core, container: Container, sandbox_id: str, uid: int) -> Plugged:
    """Connect a container that is about to boot to its networks.

    Raises HyperError in Docker's words; the caller then calls ``unplug``.
    """
    await core.networks.detach(container.id)
    networks = _resolve(core, container)
    env = links.environment(core, container)
    pairs: list[Pair] = []
    sysctls: dict[str, str] = {}
    publishing = _publishing(networks)
    for network, wish in networks:
        if network.is_bridge:
            taken = {endpoint.interface for endpoint, _ in pairs}
            try:
                attachment = attachment_of(
                    core,
                    container,
                    network,
                    wish,
                    sandbox=sandbox_id,
                    uid=uid,
                    interface=wishes.interface(wish, network, taken),
                    publish=network is publishing,
                )
                endpoint = await core.networks.attach(attachment, announce=False)
                pairs.append((endpoint, network))
                sysctls |= wishes.sysctls(wish, endpoint.interface)
            except HyperError as error:
                raise _not_set_up(error) from error
    for parent in links.parents(core, container):
        await refresh_hosts(core, parent)
    gateways = _gateways(pairs)
    states = {n.name: without_nic(n) for n, _ in networks if not n.is_bridge}
    states |= {n.name: state_of(e, n, container) for e, n in pairs}
    return Plugged(
        taps=tuple(tap_of(core, e, n) for e, n in pairs),
        endpoints=states,
        ports=ports_of([e for e, _ in pairs]),
        nics=tuple(nic_of(core, e, n, gateways) for e, n in pairs),
        files=_files(core, container, pairs),
        dns=True,
        env=env,
        sysctls=sysctls,
    )


def joined(core: Core, container: Container, owner: Container) -> Plugged:
    """Say what a container gets that has *owner*'s network: the same files, nothing of its own."""
    theirs = [(e, n) for e in core.networks.book.of(owner.id)
              if (n := core.networks.book.by_id(e.network)) is not None]  # fmt: skip
    flags = MS_RDONLY if container.host.readonly_rootfs else 0
    return Plugged(
        files=tuple(
            replace(file, source=owner.id, flags=flags)
            for file in _files(core, owner, theirs)
            if not _mounted(container, file.target)
        )
    )


def take_names(container: Container, owner: Container) -> None:
    """Give a container the host and domain name of the one whose network it has."""
    container.config = msgspec.structs.replace(
        container.config, hostname=owner.config.hostname, domainname=owner.config.domainname
    )


async def publish(core: Core, container: Container, plugged: Plugged) -> None:
    """Open the published ports of a container whose sandbox boots. Raises HyperError."""
    if any(plugged.ports.values()):
        uid = next(
            (s.row.uid for s in core.sandboxes.live.values() if container.id in s.row.containers),
            0,
        )
        await core.networks.publish(container.id, uid)


async def unplug(core: Core, container: Container) -> None:
    """Cut a container off and free its addresses and ports; safe to repeat."""
    await core.networks.detach(container.id)
    state = container.state
    state.endpoints = {
        name: EndpointState(network_id=got.network_id, dns_names=got.dns_names)
        for name, got in state.endpoints.items()
    }


async def adopt(core: Core, container: Container) -> None:
    """Take up the networks of a container that lived on without a daemon; nothing is cut."""
    sandbox = core.sandboxes.live.get(container.sandbox) if container.sandbox else None
    endpoints = await core.networks.adopt(container.id, sandbox.row.uid if sandbox else 0)
    pairs = [(e, n) for e in endpoints if (n := core.networks.book.by_id(e.network)) is not None]
    for endpoint, network in pairs:
        container.state.endpoints[network.name] = state_of(endpoint, network, container)
    if pairs:
        container.state.ports = ports_of(endpoints)


def without_nic(network: Network) -> EndpointState:
    """Return what a container has on ``none``: an endpoint that leads nowhere."""
    return EndpointState(network_id=network.id, endpoint_id=new_id())


def _resolve(core: Core, container: Container) -> list[tuple[Network, EndpointSettings]]:
    """Return the networks that a container wants, in the order of its interfaces."""
    mode = container.host.network_mode
    if mode == "host":
        raise InvalidParameter(HOST_MODE)
    _check_mode(core, container)
    try:
        _check_same(core, container)
        found = [(core.networks.get(name), wish) for name, wish in container.networks.items()]
        if any(network.config_only for network, _ in found):
            raise Forbidden(NO_NETWORK)
    except HyperError as error:
        raise _not_set_up(error) from error
    if any(network.driver == "host" for network, _ in found):
        raise InvalidParameter(HOST_MODE)
    container.networks = {network.name: wish for network, wish in found}
    # Docker's order: priority of the gateway, networks that lead outside, then the name.
    return sorted(found, key=lambda f: (-f[1].gw_priority, f[0].internal, f[0].name))


def _check_mode(core: Core, container: Container) -> None:
    mode = container.host.network_mode
    if mode in ("", "default", *container.networks):
        return
    if container.networks and core.networks.book.find(mode) is None:
        raise NotFound(
            "failed to set up container networking: could not find a network matching network "
            f"mode {mode}: network {mode} not found"
        )


def _check_same(core: Core, container: Container) -> None:
    """Raise NotFound for a network that the container was on and that is another one now."""
    for name in container.networks:
        before = container.state.endpoints.get(name, EndpointState()).network_id
        if before and core.networks.book.by_id(NetworkId(before)) is None:
            raise NotFound(f"network {before} not found")


def _not_set_up(error: HyperError) -> HyperError:
    """Say what a failure is about, as a start does and a connect does not."""
    head = "failed to set up container networking: "
    return error if error.message.startswith(head) else type(error)(head + error.message)


def _publishing(networks: Sequence[tuple[Network, EndpointSettings]]) -> Network | None:
    """Return the network on which ports are published: the one of the default route."""
    outside = [n for n, _ in networks if n.is_bridge and not n.internal]
    both = (n for n in outside if n.enable_ipv4 and n.enable_ipv6)
    four = (n for n in outside if n.enable_ipv4)
    return next(both, None) or next(four, None) or next(iter(outside), None)


def attachment_of(
    core: Core,
    container: Container,
    network: Network,
    wish: EndpointSettings,
    *,
    sandbox: str,
    uid: int,
    interface: str,
    publish: bool,
) -> Attachment:
    """Say what a container wants on one network. Raises InvalidParameter in Docker's words."""
    wishes.check(network, network.name, wish)
    wanted: list[ports.Want] = []
    exposed: tuple[str, ...] = ()
    if publish:
        wanted, exposed = wanted_ports(core, container, network)
    return Attachment(
        network=network,
        container=container.id,
        container_name=container.name,
        sandbox=sandbox,
        uid=uid,
        interface=interface,
        ipv4=wish.ipv4_address,
        ipv6=wish.ipv6_address,
        mac=wish.mac_address,
        link_local=wishes.link_local(wish),
        wants=wanted,
        exposed=exposed,
    )


def wanted_ports(
    core: Core, container: Container, network: Network
) -> tuple[list[ports.Want], tuple[str, ...]]:
    """Return what a container publishes on a network, and what it only exposes."""
    # Whatever was given may be exposed, as with Docker; only what is a port comes to anything.
    exposed_ports = tuple(filter(ports.is_port, container.config.exposed_ports))
    wanted = ports.wants(
        container.host.port_bindings,
        exposed_ports,
        publish_all=container.host.publish_all_ports,
        default_address=network.options.get(HOST_BINDING) or core.config.default_publish_address,
        ipv6=host.speaks_ipv6(),
        routed=[version for version in (4, 6) if network.mode(version) == "routed"],
    )
    published = {f"{want.port}/{want.protocol}" for want in wanted}
    exposed = map(ports.named, exposed_ports)
    return wanted, tuple(port for port in exposed if port not in published)


def tap_of(core: Core, endpoint: Endpoint, network: Network) -> Tap:
    """Say which tap an endpoint's NIC is."""
    return Tap(name=endpoint.tap, mac=endpoint.mac, mtu=network.mtu(core.config.mtu))


def _gateways(pairs: Sequence[Pair]) -> dict[int, str]:
    """Return, by IP version, the id of the endpoint that has the default route.

    As Docker: the first that leads outside by both versions has both, whatever comes before it.
    """
    found: dict[int, str] = {}
    for endpoint, network in pairs:
        if network.internal:
            continue
        if endpoint.ipv4 and endpoint.ipv6:
            return {4: endpoint.id, 6: endpoint.id}
        found.setdefault(4 if endpoint.ipv4 else 6, endpoint.id)
    return found


def gateways_of(
    core: Core, container: Container, new: Mapping[str, EndpointSettings]
) -> dict[int, str]:
    """Return ``_gateways`` of a running container; *new* are wishes that it has not yet."""
    book = core.networks.book
    known = {**container.networks, **new}
    pairs = [(e, n) for e in book.of(container.id) if (n := book.by_id(e.network)) is not None]
    pairs.sort(key=lambda p: (-_priority(known, p[1]), p[1].internal, p[1].name))
    return _gateways(pairs)


def _priority(known: Mapping[str, EndpointSettings], network: Network) -> int:
    return known.get(network.name, EndpointSettings()).gw_priority


def nic_of(
    core: Core, endpoint: Endpoint, network: Network, gateways: Mapping[int, str]
) -> messages.Nic:
    """Say to the agent what a NIC is like. *gateways*: endpoints with the default routes."""
    addresses = []
    for version, address in ((4, endpoint.ipv4), (6, endpoint.ipv6)):
        pool = network.pool(version)
        if address and pool is not None:
            addresses.append(ipam.interface(address, pool))
    addresses += [f"{a}/{64 if ':' in a else 16}" for a in endpoint.link_local]
    return messages.Nic(
        mac=endpoint.mac,
        name=endpoint.interface,
        mtu=network.mtu(core.config.mtu),
        addresses=tuple(addresses),
        gateway4=_gateway(network, 4) if gateways.get(4) == endpoint.id else "",
        gateway6=_gateway(network, 6) if gateways.get(6) == endpoint.id else "",
    )


def _gateway(network: Network, version: int) -> str:
    pool = network.pool(version)
    return pool.gateway if pool is not None and not network.internal else ""


def state_of(endpoint: Endpoint, network: Network, container: Container) -> EndpointState:
    """Return what ``docker inspect`` shows of an endpoint."""
    four, six = network.pool(4), network.pool(6)
    return EndpointState(
        network_id=network.id,
        endpoint_id=endpoint.id,
        gateway=_gateway(network, 4) if endpoint.ipv4 else "",
        ip_address=endpoint.ipv4,
        prefix_length=_prefix(four.subnet) if four and endpoint.ipv4 else 0,
        ipv6_gateway=_gateway(network, 6) if endpoint.ipv6 else "",
        ipv6_address=endpoint.ipv6,
        ipv6_prefix_length=_prefix(six.subnet) if six and endpoint.ipv6 else 0,
        mac_address=endpoint.mac,
        dns_names=() if network.is_default else dns_names(container, network),
    )


def _prefix(subnet: str) -> int:
    return int(subnet.partition("/")[2])


def ports_of(endpoints: Sequence[Endpoint]) -> dict[str, tuple[PortBinding, ...]]:
    """Return published ports as bound, and exposed ones without bindings."""
    found: dict[str, tuple[PortBinding, ...]] = {}
    for endpoint in endpoints:
        for p in endpoint.publications:
            binding = PortBinding(host_ip=p.host_ip, host_port=str(p.host_port or ""))
            key = f"{p.port}/{p.protocol}"
            before = found.get(key, ())
            found[key] = (*before, binding) if p.host_port else (binding, *before)
        for key in endpoint.exposed:
            found.setdefault(key, ())
    return found


def dns_names(container: Container, network: Network) -> tuple[str, ...]:
    """Return the names by which others on a user-defined network find a container."""
    wish = container.networks.get(network.name, EndpointSettings())
    names = (container.name, *wish.aliases, container.id[:12], container.config.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


async def rewrite_hosts(core: Core, container: Container, sandbox: Sandbox) -> None:
    """Bring a running container's /etc/hosts up to date after its networks have changed."""
    book = core.networks.book
    pairs = [(e, n) for e in book.of(container.id) if (n := book.by_id(e.network)) is not None]
    message = messages.FileWrite(
        container=container.id, path="/etc/hosts", content=hosts_file(core, container, pairs)
    )
    try:
        await sandbox.call(messages.Op.FILE_WRITE, message, timeout=5.0)
    except HyperError as error:
        log.warning("/etc/hosts of %s was not rewritten: %s", container.name, error)


async def refresh_hosts(core: Core, container: Container) -> None:
    """Bring a container's /etc/hosts up to date, if it runs."""
    if (live := core.live.get(container.id)) is not None:
        await rewrite_hosts(core, container, live.sandbox)


async def resolve_names(core: Core, container: Container, sandbox: Sandbox) -> None:
    """Point a running container that has joined a user-defined network to the engine's DNS."""
    if _mounted(container, "/etc/resolv.conf"):
        return
    conf, _ = dns_settings(core, container)
    message = messages.FileWrite(
        container=container.id,
        path="/etc/resolv.conf",
        content=files.resolv_conf(files.embedded(conf)),
    )
    try:
        await sandbox.call(messages.Op.FILE_WRITE, message, timeout=5.0)
    except HyperError as error:
        log.warning("/etc/resolv.conf of %s was not rewritten: %s", container.name, error)


def rename(core: Core, container: Container) -> None:
    """Give a running container's endpoints the names of its new name."""
    for endpoint in core.networks.book.of(container.id):
        network = core.networks.book.by_id(endpoint.network)
        if network is not None and network.name in container.state.endpoints:
            container.state.endpoints[network.name] = state_of(endpoint, network, container)


# -- files


def _files(core: Core, container: Container, pairs: Sequence[Pair]) -> tuple[messages.Mount, ...]:
    contents = (
        ("/etc/hosts", hosts_file(core, container, pairs)),
        ("/etc/hostname", files.hostname(container.config.hostname)),
        ("/etc/resolv.conf", files.resolv_conf(_resolv_conf(core, container, pairs))),
    )
    return tuple(
        messages.Mount(
            kind=messages.MountKind.FILE,
            target=path,
            content=content,
            mode=0o644,
            flags=MS_RDONLY if container.host.readonly_rootfs else 0,
        )
        for path, content in contents
        if not _mounted(container, path)
    )


def _mounted(container: Container, path: str) -> bool:
    """Tell whether the user mounts something of his own there."""
    return any(mount.destination == path for mount in container.mounts)


def hosts_file(core: Core, container: Container, pairs: Sequence[Pair]) -> bytes:
    """Write a container's /etc/hosts. Raises InvalidParameter for a wrong ``--add-host``."""
    names = files.own_names(container.config.hostname, container.config.domainname)
    own = [(a, names) for e, _ in pairs for a in (e.ipv4, e.ipv6) if a]
    extra = files.extra_hosts(container.host.extra_hosts, _host_gateways(core, pairs))
    return files.hosts(own, [*extra, *links.hosts(core, container)])


def _host_gateways(core: Core, pairs: Sequence[Pair]) -> list[str]:
    """Return what ``host-gateway`` means: as Docker, the default bridge's addresses."""
    default = core.networks.book.named("bridge")
    networks = [n for _, n in pairs] if default is None else [default]
    return [s.gateway for n in networks[:1] for s in n.subnets if s.gateway]


def dns_settings(core: Core, container: Container) -> tuple[files.ResolvConf, bool]:
    """Return a container's name servers and search list, and whether the servers were named."""
    config, wish = core.config, container.host
    conf = files.overridden(
        files.parse_resolv_conf(host.resolv_conf()),
        dns=wish.dns or config.dns,
        search=wish.dns_search or config.dns_search,
        options=wish.dns_options or config.dns_options,
    )
    return conf, bool(wish.dns or config.dns)


def _resolv_conf(core: Core, container: Container, pairs: Sequence[Pair]) -> files.ResolvConf:
    conf, given = dns_settings(core, container)
    if _resolves(pairs):
        return files.embedded(conf)
    return files.external(conf, ipv6=any(e.ipv6 for e, _ in pairs), given=given)


def _resolves(pairs: Sequence[Pair]) -> bool:
    """Tell whether the engine answers a container's DNS: on any user-defined network."""
    return any(not network.is_default for _, network in pairs)
