"""A full disk: every answer is a sentence, the daemon goes on, and with room all is well again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import Host, running_host
from tests.framework.images import busybox_tar
from tests.framework.trouble import eventually, filled, load_busybox, small_disk, state

SIZE = 340 << 20
"""The image store leaves 256 MiB alone, the rest is for containers."""
FULL = "no space left on device"
COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"


@pytest.fixture
def tight(tmp_path: Path, worker_number: int) -> Iterator[Host]:
    """A daemon whose data root is a small file system of another kind than the kit's."""
    root = tmp_path / "h"
    with small_disk(root / "data", SIZE), running_host(root, worker_number + 30) as host:
        load_busybox(host)
        yield host


def test_what_needs_space_is_refused_with_a_sentence_and_works_again_with_room(
    tight: Host,
) -> None:
    with filled(tight.data_root):
        for words in (
            ("create", "busybox", "true"),
            ("run", "--rm", "busybox", "true"),
            ("import", "-", "second"),
        ):
            refused = tight.docker(*words, stdin=busybox_tar(), check=False)
            assert refused.code
            assert FULL in refused.err.lower(), refused.err
        assert tight.ping()
    assert tight.docker("run", "--rm", "busybox", "echo", "room").out == "room\n"
    assert "Traceback" not in tight.log.read_text()


def test_containers_end_and_go_on_a_full_disk(tight: Host) -> None:
    tight.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 2; exit 4")
    tight.docker("run", "-d", "--rm", "--name", "goes", "busybox", "sleep", "2")
    tight.docker("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    with filled(tight.data_root):
        assert tight.docker("wait", "ends").out == "4\n"
        eventually(lambda: "goes" not in tight.docker("ps", "-a").out)
        assert tight.docker("exec", "stays", "echo", "up").out == "up\n"
        tight.docker("stop", "-t", "0", "stays")
        tight.docker("rm", "ends")
        tight.kill()
        tight.start()
        assert state(tight, "stays")["ExitCode"] == 137
        assert "ends" not in tight.docker("ps", "-a").out
        tight.stop()
        tight.start()
    tight.docker("start", "stays")
    assert tight.docker("exec", "stays", "echo", "up").out == "up\n"


def test_a_log_lacks_lines_while_the_disk_is_full_and_no_others(tight: Host) -> None:
    tight.docker("run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNT)
    time.sleep(1)
    with filled(tight.data_root):
        time.sleep(8)
    time.sleep(1)
    tight.docker("stop", "-t", "0", "counter")
    numbers = [int(line) for line in tight.docker("logs", "counter").out.split()]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    assert numbers[0] == 0
    assert sorted(steps)[:-1] == [1] * (len(steps) - 1), "one gap at most, nothing twice"
    assert tight.log.read_text().count("it lacks lines") == 1


def test_a_container_that_wrote_to_a_full_disk_works_after_its_restart(tight: Host) -> None:
    tight.docker("run", "-d", "--name", "writer", "busybox", "sleep", "1000")
    with filled(tight.data_root):
        tight.docker(
            "exec",
            "writer",
            "sh",
            "-c",
            "dd if=/dev/zero of=/big bs=1M count=64; sync",
            check=False,
        )
        assert tight.docker("run", "--rm", "busybox", "true", check=False).code == 125
        assert tight.ping()
    tight.docker("restart", "-t", "0", "writer")
    written = tight.docker("exec", "writer", "sh", "-c", "rm -f /big; echo ok >/x; sync; cat /x")
    assert written.out == "ok\n"
