"""The console: a bounded tail, the ready line, and a guest that is never held up."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import InternalError
from hyperstack.guest.messages import READY
from hyperstack.vmm.console import KEPT, Console, last_words, printable


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    made = Console.create(tmp_path / "console")
    made.open()
    yield made
    made.close()


async def test_the_ready_line_is_seen_though_it_comes_in_pieces(console: Console) -> None:
    fd = console.writer()
    waiting = asyncio.create_task(console.wait_ready())
    for piece in (b"boot...\nhyper-ag", b"ent: rea"):
        os.write(fd, piece)
        await asyncio.sleep(0.02)
    assert not waiting.done()
    os.write(fd, b"dy\nmore")
    await asyncio.wait_for(waiting, 1)
    assert READY in console.tail()
    os.close(fd)


async def test_a_writer_is_never_held_up_though_nobody_reads(tmp_path: Path) -> None:
    console = Console.create(tmp_path / "console")
    fd = console.writer()
    with contextlib.suppress(BlockingIOError):
        for _ in range(1000):
            os.write(fd, b"x" * 4096)
    with pytest.raises(BlockingIOError):
        os.write(fd, b"x" * 4096)
    console.open()
    await asyncio.sleep(0.05)
    assert os.write(fd, b"the daemon is back\n") > 0
    await asyncio.sleep(0.05)
    assert console.tail().endswith("the daemon is back\n")
    console.close()
    os.close(fd)


async def test_a_flood_is_read_at_a_bounded_rate_and_kept_to_a_bounded_size(
    console: Console,
) -> None:
    fd = console.writer()
    taken = 0
    async with asyncio.timeout(5):
        start = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < start + 0.5:
            try:
                taken += os.write(fd, b"flood\n" * 1000)
            except BlockingIOError:
                await asyncio.sleep(0.001)
    assert 100_000 < taken < 4 << 20
    assert len(console.tail(1 << 20)) <= KEPT
    os.close(fd)


async def test_the_end_of_all_writers_ends_the_reading(console: Console) -> None:
    fd = console.writer()
    os.write(fd, b"last words")
    await asyncio.sleep(0.02)
    os.close(fd)
    await asyncio.sleep(0.02)
    assert console._fd == -1
    assert console.tail() == "last words"


async def test_drain_takes_what_waits_at_once(console: Console) -> None:
    fd = console.writer()
    os.write(fd, b"Kernel panic")
    console.drain()
    assert console.tail() == "Kernel panic"
    os.close(fd)


async def test_a_console_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="a console can't be opened"):
        Console(tmp_path / "none").open()


def test_escape_sequences_and_control_characters_are_left_out() -> None:
    raw = b"\x1b[31mred\x1b[0m\r\nnext\x07\x00 \xff \x1b]0;title\x07end\xe2\x80\xae"
    assert printable(raw) == "red\nnext \ufffd 0;titleend"


@given(st.binary())
def test_what_is_printed_never_holds_a_control_character(data: bytes) -> None:
    assert all(c in "\n\t" or c.isprintable() or c.isspace() for c in printable(data))
    assert "\x1b" not in printable(data)


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        ("", ""),
        (f"boot\nmore\n{READY}\n", ""),
        (f"boot\n{READY}\nlast\n", "last"),
        (f"{READY}\na\nKernel panic - not syncing: x\nb\nc\nd\ne\n",
         "Kernel panic - not syncing: x\nb\nc\nd"),
        ("no ready\nkept\n", "no ready\nkept"),
    ],
)  # fmt: skip
def test_last_words_are_the_panic_or_what_came_after_the_start(tail: str, words: str) -> None:
    assert last_words(tail) == words


def test_last_words_are_few_whatever_a_guest_prints() -> None:
    assert len(last_words("x" * 9000 + "\n" + "Kernel panic\n" + "y" * 9000)) < 1000
