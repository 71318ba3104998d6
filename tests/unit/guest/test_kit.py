"""Kits as folders: loading, checking, showing, pruning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hyperstack.errors import InternalError, Unavailable
from hyperstack.guest import kit as kits
from hyperstack.guest.kit import MANIFEST, File, Kit, Manifest, Package


def make_kit(kit_dir: Path, content: bytes = b"jail", *, current: bool = True) -> Path:
    """Make a small kit as ``kitbuild`` would leave it, and return its folder."""
    file = File(path="jail", size=len(content), mode=0o755, sha256=_sha(content))
    manifest = Manifest(
        architecture="x86_64",
        uml_release="7.2.7",
        qemu_release="7.2.12-cloud-amd64",
        packages=(Package(name="p", version="1", suite="forky", sha256="00"),),
        files=(file,),
    )
    manifest = msgspec.structs.replace(manifest, version=manifest.digest())
    folder = kit_dir / manifest.version
    (folder / "uml").mkdir(parents=True)
    (folder / "jail").write_bytes(content)
    (folder / "jail").chmod(0o755)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    if current:
        (kit_dir / "current").unlink(missing_ok=True)
        (kit_dir / "current").symlink_to(folder.name)
    return folder


def _sha(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def test_a_missing_kit_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        Kit.load(tmp_path / "current")
    assert caught.value.message == f"no guest kit at {tmp_path}/current; run 'hyper kit build'"


def test_a_kit_is_loaded_under_its_version_and_not_under_the_link(tmp_path: Path) -> None:
    folder = make_kit(tmp_path)
    kit = Kit.load(tmp_path / "current")
    assert kit.path == folder
    assert kit.version == folder.name
    kit.verify()


def test_a_file_that_is_missing_or_of_another_size_is_named(tmp_path: Path) -> None:
    folder = make_kit(tmp_path)
    (folder / "jail").write_bytes(b"longer than it was")
    with pytest.raises(InternalError, match=r"damaged \(jail\); run 'hyper kit build'"):
        Kit.load(folder)
    (folder / "jail").unlink()
    with pytest.raises(InternalError, match=r"damaged \(jail\)"):
        Kit.load(folder)


def test_verify_sees_other_bytes_of_the_same_size_and_another_mode(tmp_path: Path) -> None:
    folder = make_kit(tmp_path)
    kit = Kit.load(folder)
    (folder / "jail").write_bytes(b"JAIL")
    with pytest.raises(InternalError, match=r"damaged \(jail\)"):
        kit.verify()
    (folder / "jail").write_bytes(b"jail")
    kit.verify()
    (folder / "jail").chmod(0o4755)
    with pytest.raises(InternalError, match=r"damaged \(jail\)"):
        kit.verify()


def test_verify_sees_a_manifest_that_was_changed(tmp_path: Path) -> None:
    folder = make_kit(tmp_path)
    text = (folder / MANIFEST).read_bytes().replace(b'"forky"', b'"trixi"')
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(InternalError, match="damaged"):
        Kit.load(folder).verify()


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 10000, b'{"version": 3}', b"\xff"])
def test_a_broken_manifest_is_an_error_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    folder = make_kit(tmp_path)
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(InternalError, match="damaged"):
        Kit.load(folder)


def test_a_kit_of_another_layout_asks_for_a_build(tmp_path: Path) -> None:
    folder = make_kit(tmp_path)
    text = (folder / MANIFEST).read_bytes().replace(b'"format":1', b'"format":99')
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(Unavailable, match="another release"):
        Kit.load(folder)


def test_show_names_version_packages_and_kernels(tmp_path: Path) -> None:
    folder = make_kit(tmp_path)
    shown = kits.show(Kit.load(folder))
    for part in (folder.name, "7.2.7", "7.2.12-cloud-amd64", "p 1 (forky)"):
        assert part in shown


def test_prune_removes_what_nobody_uses_and_nothing_else(tmp_path: Path) -> None:
    unused = make_kit(tmp_path, b"one", current=False)
    loaded = make_kit(tmp_path, b"two", current=False)
    current = make_kit(tmp_path, b"three")
    held = Kit.load(loaded)
    assert kits.prune(tmp_path) == [unused]
    assert not unused.exists()
    assert loaded.exists()
    assert current.exists()
    del held
    assert kits.prune(tmp_path) == [loaded]
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()].count(current.name) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_prune_keeps_a_kit_in_which_a_process_has_its_root(tmp_path: Path) -> None:
    used = make_kit(tmp_path, b"one", current=False)
    make_kit(tmp_path, b"two")
    code = f"import os, sys; os.chroot({str(used / 'uml')!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        assert kits.prune(tmp_path) == []
        process.stdin.close()
    assert kits.prune(tmp_path) == [used]


def test_the_digest_of_a_sparse_file_does_not_depend_on_its_holes(tmp_path: Path) -> None:
    sparse, full = tmp_path / "sparse", tmp_path / "full"
    with sparse.open("wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"data")
    full.write_bytes(sparse.read_bytes())
    assert full.stat().st_blocks > sparse.stat().st_blocks
    assert kits.sparse_sha256(sparse) == kits.sparse_sha256(full)
    with full.open("r+b") as file:
        file.seek(9 << 20)
        file.write(b"x")
    assert kits.sparse_sha256(sparse) != kits.sparse_sha256(full)
    with sparse.open("r+b") as file:
        file.truncate(11 << 20)
    assert kits.sparse_sha256(sparse) != kits.sparse_sha256(tmp_path / "full")


def test_native_programs_are_found_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPER_NATIVE_DIR", str(tmp_path))
    with pytest.raises(Unavailable, match="the program agent of the guest kit is missing"):
        kits.native_binary("agent")
    (tmp_path / "agent").write_bytes(b"")
    assert kits.native_binary("agent") == tmp_path / "agent"


def test_a_checkout_builds_the_launcher_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPER_NATIVE_DIR", raising=False)
    jail = kits.native_binary("jail")
    assert jail.read_bytes()[:4] == b"\x7fELF"
    assert os.access(jail, os.X_OK)
