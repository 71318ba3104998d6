"""Archive operations of the agent: children, their streams, their end."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import tarfile
from pathlib import Path

import pytest

from hyperstack.errors import GuestError
from hyperstack.guest import messages
from hyperstack.guest.client import AgentClient, AgentFailure
from hyperstack.guest.messages import Op
from tests.unit.guest.agent import BOUND, RunningAgent, collect


def children(agent: RunningAgent) -> list[str]:
    pid = agent.process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def until_no_children(agent: RunningAgent) -> None:
    async with asyncio.timeout(BOUND):
        while children(agent):
            await asyncio.sleep(0.01)


async def connected(agent: RunningAgent) -> AgentClient:
    """Connect, with a container whose root the archive operations see."""
    client = await agent.connect()
    process = await agent.run(client, "true", init=True, stdout=False)
    await agent.exit_of(process)
    return client


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def names_of(data: bytes) -> dict[str, bytes | None]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {}
        for entry in tar:
            file = tar.extractfile(entry)
            found[entry.name] = file.read() if file else None
        return found


async def test_a_path_is_described(agent: RunningAgent) -> None:
    (agent.root / "file").write_bytes(b"12345")
    client = await connected(agent)
    request = messages.ArchiveRequest(container="c", path="/file")
    found: messages.PathStat = await client.call(Op.ARCHIVE_STAT, request)
    assert (found.name, found.size) == ("file", 5)
    assert found.mode == (agent.root / "file").stat().st_mode
    await client.close()


async def test_a_missing_path_or_container_is_refused(agent: RunningAgent) -> None:
    client = await connected(agent)
    stream = client.open_output(50)
    for op, container, path, error in (
        (Op.ARCHIVE_STAT, "c", "/nothing", errno.ENOENT),
        (Op.ARCHIVE_GET, "c", "/nothing", errno.ENOENT),
        (Op.ARCHIVE_STAT, "d", "/", errno.ESRCH),
    ):
        with pytest.raises(AgentFailure) as caught:
            await client.call(
                op, messages.ArchiveRequest(container=container, path=path, stream=50)
            )
        assert caught.value.errno == error
    # The stream that was opened for the answer is over too.
    with pytest.raises(AgentFailure):
        await collect(stream)
    await until_no_children(agent)
    await client.close()


async def test_a_tree_comes_as_a_tar(agent: RunningAgent) -> None:
    folder = agent.root / "tree"
    folder.mkdir()
    large = os.urandom(2_000_000)
    (folder / "large").write_bytes(large)
    (folder / "empty").touch()
    client = await connected(agent)
    stream = client.open_output(60)
    request = messages.ArchiveRequest(container="c", path="/tree", stream=60)
    found: messages.PathStat = await client.call(Op.ARCHIVE_GET, request)
    assert found.name == "tree"
    entries = names_of(await collect(stream))
    assert {name.rstrip("/") for name in entries} == {"tree", "tree/large", "tree/empty"}
    assert entries["tree/large"] == large
    await until_no_children(agent)
    await client.close()


async def test_a_tar_is_unpacked_before_the_answer(agent: RunningAgent) -> None:
    client = await connected(agent)
    data = os.urandom(1_500_000)
    stream = client.open_input(70)
    request = messages.ArchiveRequest(container="c", path="/", stream=70)
    answer = asyncio.create_task(client.call(Op.ARCHIVE_PUT, request))
    await stream.write(tar_of({"one": data, "two": b"2"}))
    await asyncio.sleep(0.05)
    assert not answer.done()
    await stream.eof()
    await answer
    assert (agent.root / "one").read_bytes() == data
    assert (agent.root / "two").read_bytes() == b"2"
    await client.close()


async def test_a_bad_tar_is_refused_and_its_sender_released(agent: RunningAgent) -> None:
    client = await connected(agent)
    stream = client.open_input(80)
    request = messages.ArchiveRequest(container="c", path="/", stream=80)
    answer = asyncio.create_task(client.call(Op.ARCHIVE_PUT, request))
    async with asyncio.timeout(BOUND):
        await stream.write(b"\xff" * 3_000_000)
        await stream.eof()
    with pytest.raises(AgentFailure):
        await answer
    await until_no_children(agent)
    await client.close()


async def test_a_put_into_what_is_not_there_releases_its_sender(agent: RunningAgent) -> None:
    client = await connected(agent)
    stream = client.open_input(90)
    request = messages.ArchiveRequest(container="c", path="/nowhere", stream=90)
    answer = asyncio.create_task(client.call(Op.ARCHIVE_PUT, request))
    async with asyncio.timeout(BOUND):
        await stream.write(tar_of({"x": bytes(5_000_000)}))
    with pytest.raises(AgentFailure) as caught:
        await answer
    assert caught.value.errno == errno.ENOENT
    await client.close()


async def test_changes_and_export_answer(agent: RunningAgent) -> None:
    (agent.root / "added").write_bytes(b"new")
    client = await connected(agent)
    found: messages.Changes = await client.call(Op.CHANGES, messages.ContainerRef(id="c"))
    assert messages.Change(path="/added", kind=1) in found.changes
    for number, diff in ((100, False), (101, True)):
        stream = client.open_output(number)
        request = messages.ExportRequest(container="c", stream=number, diff=diff)
        await client.call(Op.EXPORT, request)
        assert names_of(await collect(stream))["added"] == b"new"
    (agent.root / "later").write_bytes(b"newer")
    stream = client.open_output(102)
    request = messages.ExportRequest(container="c", stream=102, diff=True, more=True)
    await client.call(Op.EXPORT, request)
    assert list(names_of(await collect(stream))) == ["later"]
    await client.close()


async def test_owners_are_found_by_name_in_the_roots_own_files(agent: RunningAgent) -> None:
    etc = agent.root / "etc"
    etc.mkdir()
    client = await connected(agent)

    async def owner(name: str, *, group: bool = False) -> int | str:
        request = messages.OwnerRequest(container="c", name=name, group=group)
        try:
            found: messages.Owner = await client.call(Op.OWNER, request)
        except AgentFailure as failure:
            return failure.detail
        return found.id

    assert await owner("me") == "open /etc/passwd: no such file or directory"
    (etc / "passwd").write_bytes(
        b"\n:::\nroot:x:0:0::/:\n bad:x:-1:\nlong:x:99999999999:\n\xff\n"
        b"me:x:1001:7:\nme:x:5:5:\nnl:x:8"
    )
    (etc / "real").write_text("staff:x:50:me\n")
    (etc / "group").symlink_to("/etc/real")
    assert [await owner(name) for name in ("root", "me", "nl")] == [0, 1001, 8]
    assert await owner("staff", group=True) == 50
    for name in ("bad", "long", "", "x", "sta"):
        assert await owner(name) == f"no such user: {name}"
    assert await owner("me", group=True) == "no such group: me"
    await client.close()


@pytest.mark.parametrize("how", ["connection", "reset", "replaced"])
async def test_who_gives_a_tar_up_ends_its_child(agent: RunningAgent, how: str) -> None:
    (agent.root / "large").write_bytes(bytes(20_000_000))
    client = await connected(agent)
    stream = client.open_output(110)
    request = messages.ArchiveRequest(container="c", path="/large", stream=110)
    await client.call(Op.ARCHIVE_GET, request)
    sink = client.open_input(111)
    put = messages.ArchiveRequest(container="c", path="/", stream=111)
    answer = asyncio.create_task(client.call(Op.ARCHIVE_PUT, put))
    await sink.write(b"x")
    assert len(children(agent)) == 2
    if how == "reset":
        stream.reset()
        sink.reset()
        with pytest.raises(AgentFailure):
            await answer
    else:
        if how == "connection":
            await client.close()
        fresh = await agent.connect()
        with pytest.raises(GuestError):
            await answer
        await fresh.close()
    await until_no_children(agent)
    await client.close()


async def test_there_is_a_bound_on_operations_at_once(agent: RunningAgent) -> None:
    client = await connected(agent)
    answers = []
    for number in range(200, 233):
        request = messages.ArchiveRequest(container="c", path="/", stream=number)
        answers.append(asyncio.create_task(client.call(Op.ARCHIVE_PUT, request)))
    done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED, timeout=BOUND)
    (refused,) = done
    error = refused.exception()
    assert isinstance(error, AgentFailure)
    assert error.errno == errno.EAGAIN
    assert len(children(agent)) == 32
    await client.close()
    await asyncio.gather(*answers, return_exceptions=True)
    await until_no_children(agent)
