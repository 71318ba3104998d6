"""What a guest asks of its embedded name server: names of its neighbours, then the world's.

A container on user-defined networks finds others by name, alias, short id and host name; all other
questions go to the servers of its ``resolv.conf``, unless its networks lead nowhere.
"""

from __future__ import annotations

import random

from hyperstack.engine import networking
from hyperstack.engine.core import Core
from hyperstack.engine.sandbox import Sandbox
from hyperstack.errors import HyperError
from hyperstack.guest import messages
from hyperstack.ids import ContainerId, NetworkId
from hyperstack.model import Container, EndpointSettings
from hyperstack.network import dns, files
from hyperstack.network.rows import Endpoint, Network


async def answer_dns(core: Core, sandbox: Sandbox, message: messages.Dns) -> None:
    """Answer what a guest asks of its embedded server. Never raises for what the guest says."""
    if message.container not in sandbox.row.containers:
        return
    answer = await _answer(core, sandbox, message)
    if answer is None:
        return
    reply = messages.Dns(
        container=message.container, query=message.query, message=answer, tcp=message.tcp
    )
    try:
        await sandbox.call(messages.Op.DNS_ANSWER, reply, timeout=5.0)
    except HyperError:
        return  # the guest is gone, or does not want it any more


async def _answer(core: Core, sandbox: Sandbox, message: messages.Dns) -> bytes | None:
    container = core.table.find(ContainerId(message.container))
    if container is None:
        return dns.refuse(message.message, dns.Code.REFUSED)
    try:
        question = dns.parse(message.message)
    except dns.DnsError:
        return dns.refuse(message.message, dns.Code.FORMAT)
    limit = dns.MAX_MESSAGE if message.tcp else question.limit
    own = _own_answer(core, container, question, limit)
    if own is not None:
        return own
    if not _leads_outside(core, container):
        return dns.respond(question, code=dns.Code.FAILURE)
    conf, _ = networking.dns_settings(core, container)
    servers = conf.servers or files.PUBLIC_SERVERS
    answer = await core.networks.resolver.forward(
        message.message, question, servers, tcp=message.tcp, sandbox=sandbox.id
    )
    return answer or dns.respond(question, code=dns.Code.FAILURE)


def _leads_outside(core: Core, container: Container) -> bool:
    """Tell whether a container may ask the world: internal networks forward no DNS."""
    book = core.networks.book
    networks = [book.by_id(e.network) for e in book.of(container.id)]
    return any(network is not None and not network.internal for network in networks)


def _own_answer(
    core: Core, container: Container, question: dns.Question, limit: int = dns.MAX_MESSAGE
) -> bytes | None:
    """Answer for the containers on the same user-defined networks, None for all other names.

    As Docker: other types than these are asked of the world, the class of a question is nobody's
    concern, and of mail it is known that there is none.
    """
    if question.type == dns.Type.PTR:
        name = _reverse(core, container, question.name)
        return dns.respond(question, [name], limit=limit) if name else None
    if question.type not in (dns.Type.A, dns.Type.AAAA, dns.Type.MX):
        return None
    addresses = _forward(core, container, question.name)
    if not addresses:
        return None
    picked = dns.pick(addresses, question.type)
    random.shuffle(picked)
    return dns.respond(question, picked, limit=limit)


def _neighbours(core: Core, container: Container) -> list[tuple[Endpoint, Network, Container]]:
    book = core.networks.book
    found = []
    for mine in book.of(container.id):
        network = book.by_id(NetworkId(mine.network))
        if network is None or network.is_default:
            continue
        for endpoint in book.on(network.id):
            other = core.table.find(endpoint.container)
            if other is not None:
                found.append((endpoint, network, other))
    return found


def _forward(core: Core, container: Container, name: str) -> list[str]:
    """Return the addresses of the containers that *name* means; ``name.network`` works too."""
    addresses: list[str] = []
    for endpoint, network, other in _neighbours(core, container):
        names = {known.lower() for known in networking.dns_names(other, network)}
        names |= _linked(container, network, names)
        suffix = f".{network.name.lower()}"
        if name in names or name.removesuffix(suffix) in names:
            addresses += [a for a in (endpoint.ipv4, endpoint.ipv6) if a]
    return addresses


def _linked(container: Container, network: Network, names: set[str]) -> set[str]:
    """Return what *container* alone calls the one of these names, by ``connect --link``."""
    wish = container.networks.get(network.name, EndpointSettings())
    pairs = (link.lower().partition(":") for link in wish.links)
    return {alias or target for target, _, alias in pairs if target in names}


def _reverse(core: Core, container: Container, name: str) -> str | None:
    address = dns.reverse_address(name)
    if address is None:
        return None
    text = str(address)
    for endpoint, network, other in _neighbours(core, container):
        if text in (endpoint.ipv4, endpoint.ipv6):
            return f"{other.name}.{network.name}"
    return None
