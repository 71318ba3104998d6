"""The daemon's connection, against an agent that says what the test wants."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from hyperstack.guest import messages
from hyperstack.guest.client import MAX_EVENTS, AgentClient
from hyperstack.guest.codec import ProtocolError, encode
from hyperstack.guest.messages import VERSION, EventKind, Frame

HEAD = struct.Struct("<IBBHQ")
BOUND = 10.0


def event(kind: EventKind, message: Any) -> bytes:
    payload = encode(message)
    return HEAD.pack(len(payload), Frame.EVENT, 0, kind, 1) + payload


async def connected() -> tuple[AgentClient, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.sendall(HEAD.pack(0, Frame.HELLO, 0, VERSION, 7))
    return await AgentClient.over(ours), theirs


async def test_queries_that_nobody_hears_yet_cost_a_guest_nothing() -> None:
    client, agent = await connected()
    query = event(EventKind.DNS_QUERY, messages.Dns(container="c", query=1, message=b"x"))
    oom = event(EventKind.OOM, messages.ContainerRef(id="c"))
    agent.sendall(oom + query * (2 * MAX_EVENTS))
    heard: list[EventKind] = []
    await asyncio.sleep(0.05)
    client.on_event = lambda kind, _: heard.append(kind)
    assert heard[0] is EventKind.OOM
    assert len(heard) == MAX_EVENTS
    assert client.error is None
    agent.sendall(oom)
    async with asyncio.timeout(BOUND):
        while heard[-1] is not EventKind.OOM:
            await asyncio.sleep(0.001)
    await client.close()
    agent.close()


async def test_more_of_other_events_than_can_be_kept_end_the_connection() -> None:
    client, agent = await connected()
    agent.sendall(event(EventKind.OOM, messages.ContainerRef(id="c")) * (MAX_EVENTS + 1))
    async with asyncio.timeout(BOUND):
        await client.wait_closed()
    assert isinstance(client.error, ProtocolError)
    agent.close()
