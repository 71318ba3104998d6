"""Modules in the order of loading."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
import zstandard

from hyperstack.errors import InternalError
from hyperstack.guest.kitmodules import ModuleTree
from tests.unit.guest.test_kitelf import compile_module


@pytest.fixture
def tree(tmp_path: Path) -> ModuleTree:
    """Modules: net needs fail_over, which is compressed; erofs has soft needs; ext4 is built in."""
    folder = tmp_path / "7.2"
    kernel = folder / "kernel"
    compile_module(kernel / "net", "virtio_net", "name=virtio_net", "depends=net_failover")
    failover = compile_module(kernel / "net", "net-failover", "depends=failover")
    failover.with_name("net-failover.ko.xz").write_bytes(lzma.compress(failover.read_bytes()))
    failover.unlink()
    last = compile_module(kernel / "net", "failover", "depends=")
    last.with_name("failover.ko.zst").write_bytes(zstandard.compress(last.read_bytes()))
    last.unlink()
    compile_module(kernel / "fs", "erofs", "softdep=pre: crc32c gone post: late", "depends=")
    compile_module(kernel / "lib", "crc32c", "depends=")
    compile_module(kernel / "lib", "late", "depends=")
    compile_module(kernel / "lib", "loop_a", "depends=loop_b")
    compile_module(kernel / "lib", "loop_b", "depends=loop_a")
    (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return ModuleTree(folder)


def test_what_a_module_needs_comes_before_it_dashes_or_not(tree: ModuleTree) -> None:
    assert tree.order(["virtio_net"]) == ("failover", "net_failover", "virtio_net")


def test_soft_needs_come_before_where_there_are_any(tree: ModuleTree) -> None:
    assert tree.order(["erofs"]) == ("crc32c", "erofs")


def test_built_in_and_loaded_modules_are_left_out(tree: ModuleTree) -> None:
    assert tree.order(["ext4", "virtio_net"], ["failover"]) == ("net_failover", "virtio_net")


def test_modules_that_need_each_other_end(tree: ModuleTree) -> None:
    assert set(tree.order(["loop_a"])) == {"loop_a", "loop_b"}


def test_a_module_that_exists_nowhere_is_named(tree: ModuleTree) -> None:
    with pytest.raises(InternalError, match=r"7\.2 has no module btrfs"):
        tree.order(["btrfs"])


def test_modules_come_out_uncompressed(tree: ModuleTree) -> None:
    for name in ("failover", "net_failover", "erofs"):
        assert tree.data(name)[:4] == b"\x7fELF"


def test_a_damaged_module_is_named(tree: ModuleTree) -> None:
    (tree.folder / "kernel" / "net" / "failover.ko.zst").write_bytes(b"nonsense")
    with pytest.raises(InternalError, match="module failover can't be read"):
        tree.data("failover")
