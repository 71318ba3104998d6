from __future__ import annotations

from pathlib import Path

import pytest

from hyperstack.platform import jail
from hyperstack.platform.jail import Bind, JailSpec, Tmpfs

SPEC = JailSpec(root=Path("/r"), argv=("/p", "--root", "x"), program=None, uid=7, gid=8)


def test_the_smallest_jail_has_a_root_an_identity_and_a_program() -> None:
    assert SPEC.options(9, None) == [
        "--report", "9", "--root", "/r", "--uid", "7", "--gid", "8", "--oom-score", "100", "--",
        "/p", "--root", "x",
    ]  # fmt: skip


def test_every_setting_becomes_an_option_and_none_after_the_program() -> None:
    spec = JailSpec(
        root=Path("/r"),
        argv=("/p",),
        program=None,
        uid=7,
        gid=8,
        env={"A": "b c"},
        binds=(
            Bind(source=Path("/s"), target="/t"),
            Bind(source=Path("/v"), target="/w", read_only=False, recursive=True),
        ),
        tmpfs=(Tmpfs(target="/m", size=5), Tmpfs(target="/x", size=6, mode=0o755, executable=True)),
        devices=("/dev/null",),
        netns=Path("/n"),
        cgroups=(Path("/c1"), Path("/c2")),
        fds={0: 11},
        limits={7: 99},
        capabilities=3,
        no_aslr=True,
        oom_score=-5,
        proc=True,
    )
    options = spec.options(9, 4)
    text = " ".join(options)
    for words in (
        "--caps 3", "--netns /n", "--filter /proc/self/fd/4", "--no-aslr", "--oom-score -5",
        "--proc", "--cgroup /c1", "--cgroup /c2", "--device /dev/null", "--bind /s /t ro",
        "--tmpfs /m size=5,mode=700,uid=7,gid=8", "--exec-tmpfs /x size=6,mode=755,uid=7,gid=8",
        "--bind /v /w r-rw", "--fd 0 11", "--limit 7 99", "--env A=b c",
    ):  # fmt: skip
        assert f" {words} " in text, words
    assert options[-2:] == ["--", "/p"]


def test_huge_pages_are_asked_for_only_where_the_kernel_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = Tmpfs(target="/dev/shm", size=5, huge=True)
    monkeypatch.setattr(jail, "SHMEM_HUGE", tmp_path)
    assert mount.options(7, 8) == "size=5,mode=700,uid=7,gid=8,huge=within_size"
    monkeypatch.setattr(jail, "SHMEM_HUGE", tmp_path / "missing")
    assert mount.options(7, 8) == "size=5,mode=700,uid=7,gid=8"
