"""Log driver ``journald`` with a daemon and a real journal."""

from __future__ import annotations

from pathlib import Path

from tests.framework.host import running_host
from tests.framework.images import busybox_tar
from tests.framework.journal import running_journal

SCRIPT = """
echo one; echo two >&2; head -c 20000 /dev/zero | tr '\\0' x; echo; printf '\\377\\n'
until [ -e /go ]; do sleep 0.1; done
echo late; printf end
"""


def test_the_journal_gets_each_line_though_it_and_the_daemon_end_in_between(
    tmp_path: Path, worker_number: int
) -> None:
    with (
        running_journal() as journal,
        running_host(tmp_path / "h", worker_number + 30, before=journal.enter) as host,
    ):
        host.docker("import", "-", "busybox", stdin=busybox_tar())
        words = "run -d --name jo --log-driver journald --label a.b=1 --log-opt labels=a.b".split()
        tag = ("--log-opt", "tag={{.Name}}")
        identifier = host.docker(*words, *tag, "busybox", "sh", "-c", SCRIPT).out.strip()
        match = f"CONTAINER_ID_FULL={identifier}"
        journal.wait_for(5, match)
        host.kill()
        journal.stop()
        journal.start()
        host.start()
        host.docker("exec", "jo", "touch", "/go")
        host.docker("wait", "jo")
        found = journal.wait_for(7, match)
        assert sorted((str(e["MESSAGE"])[:5], len(e["MESSAGE"]), e["PRIORITY"]) for e in found) == [
            ("[255]", 1, "6"), ("end", 3, "6"), ("late", 4, "6"), ("one", 3, "6"),
            ("two", 3, "3"), ("xxxxx", 20000 - 16384, "6"), ("xxxxx", 16384, "6"),
        ]  # fmt: skip
        assert {(e["CONTAINER_TAG"], e["A_B"], e["IMAGE_NAME"]) for e in found} == {
            ("jo", "1", "busybox")
        }
        assert len({e["CONTAINER_LOG_EPOCH"] for e in found}) == 2, "one of each daemon"
        read = host.docker("logs", "--details", "--tail", "2", "jo").out
        assert read == "A_B=1 late\nA_B=1 end"
        followed = host.docker("logs", "-f", "--since", "1h", "jo")
        assert (followed.out[:4], followed.out[-8:], followed.err) == (
            "one\n",
            "late\nend",
            "two\n",
        )
