"""Images by the real docker CLI: commit, save, load, import, removal, in one daemon's guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import Host


@pytest.fixture
def child(host: Host) -> Iterator[str]:
    """``child:1``, committed from a container ``c1`` that changed and removed files."""
    host.docker(
        "run", "--name", "c1", "busybox", "sh", "-c",
        "echo hi > /new; rm /etc/group; mkdir /tmp/d; touch /tmp/d/x",
    )  # fmt: skip
    made = host.docker("commit", "-m", "why", "-c", 'CMD ["cat", "/new"]', "c1", "child:1")
    yield made.out.strip()
    host.remove_everything()
    host.docker("rmi", "-f", "child:1", check=False)


def test_a_committed_image_has_what_was_changed_and_lacks_what_was_removed(
    host: Host, child: str
) -> None:
    assert host.docker("run", "--rm", "child:1").out == "hi\n"
    listed = host.docker("run", "--rm", "child:1", "ls", "/etc", "/tmp/d").out.split()
    assert "x" in listed
    assert "passwd" in listed
    assert "group" not in listed
    steps = host.docker("history", "--no-trunc", "--format", "{{.ID}} {{.Comment}}", "child:1")
    assert steps.out.splitlines()[0] == f"{child} why"
    assert host.docker("inspect", "-f", "{{.Parent}}", "child:1").out.startswith("sha256:")


def test_a_saved_image_comes_back_the_same(host: Host, child: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    host.docker("save", "-o", str(archive), "child:1")
    host.docker("rm", "c1")
    removed = host.docker("rmi", "child:1").out.splitlines()
    assert removed[:2] == ["Untagged: child:1", f"Deleted: {child}"]
    assert host.docker("load", "-i", str(archive)).out == "Loaded image: child:1\n"
    assert host.docker("inspect", "-f", "{{.Id}}", "child:1").out.strip() == child
    assert host.docker("run", "--rm", "child:1").out == "hi\n"
    again = tmp_path / "again.tar"
    host.docker("save", "-o", str(again), "child:1")
    assert again.read_bytes() == archive.read_bytes()


def test_an_exported_container_can_be_imported(host: Host, child: str, tmp_path: Path) -> None:
    archive = tmp_path / "root.tar"
    host.docker("export", "-o", str(archive), "c1")
    host.docker("import", "-c", "ENV A=b", str(archive), "flat:1")
    try:
        out = host.docker("run", "--rm", "flat:1", "sh", "-c", "cat /new; echo $A").out
        assert out == "hi\nb\n"
    finally:
        host.docker("rmi", "flat:1")


def test_a_used_image_is_removed_by_force_and_its_container_goes_on(host: Host, child: str) -> None:
    host.docker("run", "-d", "--name", "user", "child:1", "sleep", "100")
    refused = host.docker("rmi", "child:1", check=False)
    assert refused.code == 1
    assert 'unable to remove repository reference "child:1" (must force)' in refused.err
    assert host.docker("rmi", "-f", "child:1").out == "Untagged: child:1\n"
    running = host.docker("rmi", "-f", child, check=False)
    assert "(cannot be forced) - image is being used by running container" in running.err
    host.docker("kill", "user")
    assert f"Deleted: {child}" in host.docker("rmi", "-f", child).out
    host.docker("start", "user")
    assert host.docker("exec", "user", "cat", "/new").out == "hi\n"
    layers = len(list((host.data_root / "layers").glob("*.erofs")))
    host.docker("rm", "-f", "user")
    assert len(list((host.data_root / "layers").glob("*.erofs"))) == layers - 1


def test_pruning_takes_what_is_dangling(host: Host, child: str) -> None:
    host.docker("rm", "c1")
    host.docker("import", "-", "child:1", stdin=b"\0" * 1024)
    pruned = host.docker("image", "prune", "-f").out
    assert f"deleted: {child}" in pruned
    assert "busybox" in host.docker("images").out


def test_what_is_no_image_is_said_in_docker_s_words(host: Host) -> None:
    for words, sentence in {
        ("rmi", "nope"): "No such image: nope:latest",
        ("tag", "nope", "x"): "No such image: nope:latest",
        ("history", "nope"): "No such image: nope:latest",
        ("save", "nope"): "No such image: nope",
        ("import", "-c", "FOO x", "-"): "FOO is not a valid change command",
        ("images", "--filter", "foo=x"): "invalid filter 'foo'",
    }.items():
        result = host.docker(*words, check=False)
        assert result.code != 0
        # Older clients word a 404 themselves, with the name as it was given.
        assert sentence in result.err or f"{sentence.removesuffix(':latest')}\n" in result.err
    garbage = host.docker("import", "-", stdin=b"noise" * 1000, check=False)
    assert "archive/tar: invalid tar header" in garbage.err + garbage.out
