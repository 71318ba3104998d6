from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from hyperstack.errors import InternalError
from hyperstack.platform.process import open_process, run, run_blocking, start_time


async def test_a_program_gets_a_clean_environment_and_its_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "x")
    done = await run(["sh", "-c", "env; cat"], input=b"hello", env={"GIVEN": "1"})
    assert b"SECRET" not in done.stdout
    assert b"GIVEN=1\n" in done.stdout
    assert done.stdout.endswith(b"hello")


async def test_a_failure_says_what_ran_how_it_ended_and_its_last_words() -> None:
    command = ["sh", "-c", "echo one >&2; echo two >&2; exit 3"]
    for how in (run(command), asyncio.to_thread(run_blocking, command)):
        with pytest.raises(InternalError, match=r"^sh failed with exit status 3: two$"):
            await how
    assert (await run(command, check=False)).returncode == 3
    with pytest.raises(InternalError, match=r"^sh was killed by signal 9$"):
        await run(["sh", "-c", "kill -9 $$"])


async def test_a_missing_program_is_told() -> None:
    with pytest.raises(InternalError, match=r"^none can't be run: No such file or directory$"):
        await run(["/none"])
    with pytest.raises(InternalError, match=r"^none can't be run"):
        run_blocking(["/none"])


async def test_a_program_that_takes_too_long_is_killed() -> None:
    with pytest.raises(InternalError, match=r"^sleep did not end within 0 s$"):
        await run(["sleep", "100"], timeout=0.1)
    with pytest.raises(InternalError, match=r"^sleep did not end within 0 s$"):
        run_blocking(["sleep", "100"], timeout=0.1)


async def test_a_cancelled_run_leaves_no_process() -> None:
    task = asyncio.create_task(run(["sleep", "98.7"]))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True).stdout
    assert b"sleep 98.7" not in listed.splitlines()


def test_a_start_time_is_found_whatever_the_programs_name() -> None:
    code = "open('/proc/self/comm', 'w').write('a) S 1 (b'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        mine, theirs = start_time(os.getpid()), start_time(child.pid)
        child.kill()
    assert mine is not None
    assert theirs is not None
    assert theirs >= mine
    assert start_time(child.pid) is None


async def test_a_process_is_held_waited_for_and_never_mistaken() -> None:
    with subprocess.Popen(["sleep", "100"]) as child:
        held = open_process(child.pid)
        assert held is not None
        assert held.alive()
        assert open_process(child.pid, held.start_time + 1) is None
        again = open_process(child.pid, held.start_time)
        assert again is not None
        again.close()
        again.signal(signal.SIGKILL)  # closed: nothing happens
        waiters = [asyncio.create_task(held.wait()) for _ in range(3)]
        await asyncio.sleep(0.01)
        waiters[0].cancel()
        await held.kill()
        await asyncio.gather(*waiters[1:])
        assert not held.alive()
        held.signal(signal.SIGKILL)
        held.close()
        held.close()
    assert open_process(child.pid) is None


async def test_a_zombie_counts_as_gone() -> None:
    child = subprocess.Popen(["true"])
    for _ in range(500):
        if start_time(child.pid) is None:
            break
        await asyncio.sleep(0.01)
    assert open_process(child.pid) is None
    child.wait()
