"""Volumes and bind mounts by the real virtiofsd, and deep images."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperstack.guest.client import AgentFailure
from hyperstack.guest.messages import Mount, MountKind, Stage
from tests.integration.agent.machine import Kitchen, machine

DEEP = 127


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The folder that is the guest's share."""
    share = tmp_path / "share"
    for name in ("m0", "m1"):
        (share / name).mkdir(parents=True)
    (share / "file").write_text("one file\n")
    (share / "m1" / "there").write_text("was there\n")
    (share / "m1" / "away").symlink_to("../m0")
    return share


def bind(source: str, target: str, flags: int = 0, copy_up: bool = False) -> Mount:
    """Describe a mount of the share."""
    return Mount(kind=MountKind.SHARE, source=source, target=target, flags=flags, copy_up=copy_up)


async def run(
    kitchen: Kitchen, layers: tuple[str, ...], path: Path, script: str, *mounts: Mount
) -> tuple[str, str]:
    async with machine(kitchen, path, layers=layers, share=path / "share") as guest:
        ran = await guest.run("sh", "-c", script, mounts=mounts)
        return ran.text, ran.err.decode()


async def test_folders_and_files_of_the_share_are_mounted(
    kitchen: Kitchen, layers: tuple[str, ...], tmp_path: Path, shared: Path
) -> None:
    out, err = await run(
        kitchen, layers, tmp_path,
        "cat /a/deep/there /etc/one; echo new >/a/deep/new; echo x >/ro/x; echo more >>/etc/one",
        bind("/m1", "/a/deep"), bind("/m0", "/ro", 1), bind("/file", "/etc/one"),
    )  # fmt: skip
    assert out == "was there\none file"
    assert "Read-only" in err
    assert (shared / "m1" / "new").read_text() == "new\n"
    assert (shared / "file").read_text() == "one file\nmore\n"


async def test_an_empty_volume_is_filled_from_the_image(
    kitchen: Kitchen, layers: tuple[str, ...], tmp_path: Path, shared: Path
) -> None:
    await run(
        kitchen, layers, tmp_path, "ls /data",
        bind("/m0", "/data", copy_up=True), bind("/m1", "/closed", copy_up=True),
    )  # fmt: skip
    top = shared / "m0"
    assert (top.stat().st_mode & 0o7777, top.stat().st_uid) == (0o750, 33)
    file = top / "file"
    assert file.read_text() == "content\n"
    assert (file.stat().st_mode & 0o7777, file.stat().st_uid) == (0o640, 35)
    assert file.stat().st_mtime == 1_000_000_000
    assert file.stat().st_ino == (top / "hard").stat().st_ino
    assert (top / "soft").readlink() == Path("file")
    assert (top / "sub").stat().st_mode & 0o7777 == 0o2770
    assert (top / "sub" / "suid").stat().st_mode & 0o7777 == 0o4755
    assert (top / "sub" / "suid").stat().st_uid == 36
    # What was not empty is left alone.
    assert {entry.name for entry in (shared / "m1").iterdir()} == {"away", "there"}
    assert (shared / "m1").stat().st_uid == 0


async def test_no_link_of_the_share_is_followed(
    kitchen: Kitchen, layers: tuple[str, ...], tmp_path: Path, shared: Path
) -> None:
    async with machine(kitchen, tmp_path, layers=layers, share=shared) as guest:
        for source in ("/m1/away", "/../etc", "/none", "/m1/../../x"):
            with pytest.raises(AgentFailure) as failure:
                await guest.run("true", mounts=(bind(source, "/a"),))
            assert failure.value.stage == Stage.MOUNT
        with pytest.raises(AgentFailure) as failure:
            await guest.run("true", mounts=(bind("/m1", "/etc/passwd"),))
        assert "Are you trying to mount a directory onto a file" in failure.value.detail


def _layer(number: int) -> io.BytesIO:
    data = f"{number}\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in (f"layer{number}", "top"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    buffer.seek(0)
    return buffer


async def test_an_image_of_127_layers_works(
    kitchen: Kitchen, layers: tuple[str, ...], tmp_path: Path
) -> None:
    def filler(number: int) -> Callable[[tarfile.TarFile], None]:
        def fill(tar: tarfile.TarFile) -> None:
            with tarfile.open(fileobj=_layer(number)) as source:
                for member in source:
                    tar.addfile(member, source.extractfile(member))

        return fill

    deep = [kitchen.layer(f"deep{number}", filler(number)) for number in range(DEEP - 1)]
    disks = [kitchen.disk("deep")]
    async with machine(kitchen, tmp_path, layers=(*deep, layers[1]), disks=disks) as guest:
        ran = await guest.run("sh", "-c", "cat /top; ls /layer* | wc -l", root=guest.root(0))
        assert ran.text.split() == ["0", str(DEEP - 1)]
        assert (await guest.run("true", root=guest.root(0))).code == 0
