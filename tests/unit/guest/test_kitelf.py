"""What the builder reads of ELF files, and that no bytes break it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import InternalError
from hyperstack.guest.kitelf import linkage, module_info

SHELL = Path("/bin/sh").resolve()


def test_a_program_names_its_loader_and_its_libraries() -> None:
    found = linkage(SHELL.read_bytes())
    assert found.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert "libc.so.6" in found.needed


def compile_module(folder: Path, name: str, *fields: str) -> Path:
    """Compile an object file with a .modinfo like a kernel module's; return it as NAME.ko."""
    lines = [
        f'static const char f{i}[] __attribute__((used, section(".modinfo"))) = "{field}";'
        for i, field in enumerate(fields)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder / f"{name}.c", folder / f"{name}.ko"
    source.write_text("\n".join(lines) + "\n")
    subprocess.run(["gcc", "-c", "-o", target, source], check=True)
    source.unlink()
    return target


def test_a_modules_fields_are_read_repeated_ones_in_order(tmp_path: Path) -> None:
    module = compile_module(tmp_path, "m", "depends=a,b", "softdep=pre: x", "softdep=post: y")
    info = module_info(module.read_bytes())
    assert info["depends"] == ("a,b",)
    assert info["softdep"] == ("pre: x", "post: y")


def test_a_file_without_modinfo_is_no_module() -> None:
    with pytest.raises(InternalError, match="not a kernel module"):
        module_info(SHELL.read_bytes())


@given(st.binary(max_size=256))
def test_bytes_that_are_no_elf_file_are_told_and_break_nothing(data: bytes) -> None:
    for read in (linkage, module_info):
        with pytest.raises(InternalError):
            read(data)


@given(st.integers(0, 1200), st.binary(min_size=1, max_size=8))
def test_a_damaged_program_gives_an_answer_or_an_internal_error(place: int, data: bytes) -> None:
    damaged = bytearray(SHELL.read_bytes())
    damaged[place : place + len(data)] = data
    for read in (linkage, module_info):
        try:
            read(bytes(damaged))
        except InternalError:
            continue
