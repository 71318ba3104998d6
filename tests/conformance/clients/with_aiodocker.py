"""aiodocker: containers, exec, streams, images, volumes, networks, events, archives."""

from __future__ import annotations

import asyncio
import io
import tarfile

import aiodocker
import pytest

# aiodocker does not send a time of 0: it would be ten seconds without the signal.
SLEEPER = {
    "Image": "busybox",
    "Cmd": ["sleep", "60"],
    "Labels": {"by": "aiodocker"},
    "StopSignal": "SIGKILL",
}


async def a_life(docker: aiodocker.Docker) -> None:
    container = await docker.containers.create_or_replace("aio", dict(SLEEPER))
    await container.start()
    shown = await container.show()
    assert (shown["Name"], shown["State"]["Running"]) == ("/aio", True)
    again = await docker.containers.create_or_replace("aio", {**SLEEPER, "Tty": False})
    assert again.id == container.id or await again.show()
    await again.restart()
    await again.pause()
    assert (await again.show())["State"]["Paused"]
    await again.unpause()
    await again.rename("aio2")
    (stats,) = await again.stats(stream=False)
    assert stats["name"] == "/aio2"
    assert (await again.top())["Titles"]
    await again.kill(signal="SIGTERM")
    await again.stop()
    assert (await again.wait())["StatusCode"] in (137, 143)
    filters = {"label": ["by=aiodocker"]}
    assert len(await docker.containers.list(all=True, filters=filters)) == 1
    await again.delete(force=True, v=True)
    with pytest.raises(aiodocker.DockerError, match="No such container: aio2") as refused:
        await docker.containers.get("aio2")
    assert refused.value.status == 404


async def streams(docker: aiodocker.Docker) -> None:
    container = await docker.containers.run(
        {"Image": "busybox", "Cmd": ["sh", "-c", "echo out; echo err >&2; exec cat"],
         "OpenStdin": True, "AttachStdin": True, "Tty": False}
    )  # fmt: skip
    async with container.attach(stdin=True, stdout=True, stderr=True, logs=True) as stream:
        got: dict[int, bytes] = {1: b"", 2: b""}
        await stream.write_in(b"typed\n")
        async with asyncio.timeout(30):
            while got != {1: b"out\ntyped\n", 2: b"err\n"}:
                message = await stream.read_out()
                assert message is not None, got
                got[message.stream] += message.data
    assert await container.log(stdout=True) == ["out\n", "typed\n"]
    assert await container.log(stderr=True) == ["err\n"]
    followed = []
    async for line in container.log(stdout=True, follow=True):
        followed.append(line)
        if len(followed) == 2:
            break
    assert followed == ["out\n", "typed\n"]
    execution = await container.exec(["sh", "-c", "cat; exit 5"], stdin=True, environment=["A=b"])
    async with execution.start(detach=False) as stream:
        await stream.write_in(b"in\n")
        message = await stream.read_out()
        assert message is not None
        assert message.data == b"in\n"
    execution = await container.exec(["sh", "-c", "stty size; exit 6"], tty=True)
    async with execution.start(detach=False) as stream:
        text = b""
        while (message := await stream.read_out()) is not None:
            text += message.data
    assert b" " in text
    assert (await execution.inspect())["ExitCode"] == 6
    await container.delete(force=True)


async def files(docker: aiodocker.Docker) -> None:
    container = await docker.containers.run(dict(SLEEPER))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("f")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"data"))
    await container.put_archive("/tmp", buffer.getvalue())
    got = await container.get_archive("/tmp/f")
    member = got.extractfile("f")
    assert member is not None
    assert member.read() == b"data"
    await container.commit(repository="aio-made", tag="1")
    await container.delete(force=True)
    image = await docker.images.inspect("aio-made:1")
    assert "aio-made:1" in image["RepoTags"]
    await docker.images.tag("aio-made:1", repo="aio-made", tag="2")
    async with docker.images.export_image("aio-made:1") as content:
        saved = await content.read()
    for tag in ("1", "2"):
        await docker.images.delete(f"aio-made:{tag}")
    loaded = [line async for line in docker.images.import_image(saved, stream=True)]
    assert any("Loaded image: aio-made:1" in line.get("stream", "") for line in loaded), loaded
    assert (await docker.images.history("aio-made:1"))[0]["Tags"] == ["aio-made:1"]
    await docker.images.delete("aio-made:1", force=True)


async def built(docker: aiodocker.Docker) -> None:
    buffer = io.BytesIO()
    text = b'FROM busybox\nARG WORD\nRUN echo $WORD > /word\nCMD ["cat", "/word"]\n'
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    buffer.seek(0)
    told = await docker.images.build(
        fileobj=buffer, encoding="utf-8", tag="aio-built", buildargs={"WORD": "spoken"}
    )
    assert any("Successfully tagged aio-built:latest" in line.get("stream", "") for line in told)
    container = await docker.containers.run({"Image": "aio-built"})
    await container.wait()
    assert await container.log(stdout=True) == ["spoken\n"]
    await container.delete()
    await docker.images.delete("aio-built")


async def volumes_and_networks(docker: aiodocker.Docker) -> None:
    volume = await docker.volumes.create({"Name": "aio-volume", "Labels": {"a": "b"}})
    assert (await volume.show())["Labels"] == {"a": "b"}
    listed = await docker.volumes.list(filters={"label": ["a=b"]})
    assert [v["Name"] for v in listed["Volumes"]] == ["aio-volume"]
    network = await docker.networks.create({"Name": "aio-net", "Labels": {"a": "b"}})
    container = await docker.containers.run(
        {**SLEEPER, "HostConfig": {"Binds": ["aio-volume:/v"], "NetworkMode": "aio-net"}}
    )
    await network.disconnect({"Container": container.id, "Force": True})
    await network.connect({"Container": container.id, "EndpointConfig": {"Aliases": ["me"]}})
    shown = await network.show()
    assert container.id in shown["Containers"]
    await container.delete(force=True)
    await network.delete()
    await volume.delete()


async def seen(docker: aiodocker.Docker) -> None:
    subscriber = docker.events.subscribe()
    container = await docker.containers.run({"Image": "busybox", "Cmd": ["true"]}, name="aio-seen")
    await container.wait()
    await container.delete()
    actions: list[str] = []
    async with asyncio.timeout(30):
        while "destroy" not in actions:
            event = await subscriber.get()
            assert event is not None
            if event["Actor"]["ID"] == container.id and event["Type"] == "container":
                actions.append(event["Action"])
    assert actions == ["create", "start", "die", "destroy"]


async def of_the_system(docker: aiodocker.Docker) -> None:
    assert (await docker.version())["ApiVersion"]
    info = await docker.system.info()
    assert info["OSType"] == "linux"


async def use() -> None:
    docker = aiodocker.Docker()
    try:
        for part in (of_the_system, a_life, streams, files, built, volumes_and_networks, seen):
            await part(docker)
    finally:
        await docker.close()


def main() -> None:
    asyncio.run(use())


if __name__ == "__main__":
    main()
