"""A guest whose agent was replaced, against a real daemon: what it can cost, and what it can say.

The agent is ``hostile_agent.c``. The daemon must stay up, in bounds, and quick for everybody else;
the container ends with a sentence; nothing that the guest said acts on a terminal or forges a line.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.raw import ask
from tests.framework.host import KIT_DIR, Host, Result, running_host
from tests.framework.images import busybox_tar

SOURCE = Path(__file__).with_name("hostile_agent.c")
HEADERS = Path(__file__).parents[3] / "native" / "agent"
GROWTH = 96 << 20
"""Bytes by which the daemon may be larger while a guest does its worst."""
QUICK = 5.0
"""Seconds within which others are answered: a bound on a hang, with other tests on the machine."""

pytestmark = pytest.mark.xdist_group("hostile")


@dataclass
class Stage:
    """A daemon on a kit whose agent can be exchanged, and an honest container beside."""

    host: Host
    guest: Path
    honest: Path
    hostile: Path

    def play(self, mode: str) -> None:
        """Let the next guest's agent be the hostile one."""
        (self.guest / "mode").write_text(mode)
        self._agent(self.hostile)

    def honesty(self) -> None:
        self._agent(self.honest)

    def _agent(self, source: Path) -> None:
        new = self.guest / "agent.new"
        shutil.copy(source, new)
        new.rename(self.guest / "agent")

    def run(self, mode: str, *flags: str, timeout: float = 30.0) -> Result:
        self.play(mode)
        try:
            return self.host.docker(
                "run", "-d", "--name", "bad", *flags, "busybox", "sleep", "1000",
                check=False, timeout=timeout,
            )  # fmt: skip
        finally:
            self.honesty()

    def pid(self) -> int:
        return int((self.host.root / "hyperd.pid").read_text())

    def memory(self) -> int:
        pages = Path(f"/proc/{self.pid()}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def processor(self) -> float:
        fields = Path(f"/proc/{self.pid()}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def slowest(self, seconds: float) -> float:
        """Ask the daemon again and again; return the longest time that an answer took."""
        worst, bound = 0.0, time.monotonic() + seconds
        while time.monotonic() < bound:
            begun = time.monotonic()
            assert self.host.ping()
            worst = max(worst, time.monotonic() - begun)
            time.sleep(0.02)
        return worst

    def ended(self, bound: float = 30.0) -> str:
        """Wait until the hostile container is over and return what its state says."""
        deadline = time.monotonic() + bound
        while True:
            # One that failed in the moment of its start was never running, as with Docker.
            status, _, error = self.state("{{.State.Status}} {{.State.Error}}").partition(" ")
            if status == "exited" or error:
                return error
            assert time.monotonic() < deadline, f"still {status}"
            time.sleep(0.1)

    def state(self, form: str) -> str:
        return self.host.docker("inspect", "-f", form, "bad").out.strip()

    def log_since(self, begin: int) -> str:
        return self.host.log.read_bytes()[begin:].decode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, worker_number: int) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("hostile")
    program = folder / "hostile"
    subprocess.run(
        ["cc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{HEADERS}", "-o", program,
         SOURCE],
        check=True,
    )  # fmt: skip
    kit = folder / "kit"
    kit.mkdir()
    subprocess.run(["cp", "-al", (KIT_DIR / "current").resolve(), kit / "current"], check=True)
    guest = kit / "current" / "guest"
    honest = folder / "honest"
    shutil.copy(guest / "agent", honest)
    with running_host(
        folder / "host",
        worker_number + 23,
        ["--kit-dir", str(kit), "--debug", "--boot-timeout", "8"],
    ) as host:
        host.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        stage = Stage(host=host, guest=guest, honest=honest, hostile=program)
        stage.honesty()
        host.docker("run", "-d", "--name", "good", "busybox", "sleep", "10000")
        yield stage


@pytest.fixture
def stage(made: Stage) -> Iterator[Stage]:
    begin, memory = made.host.log.stat().st_size, made.memory()
    pid = made.pid()
    yield made
    begun = time.monotonic()
    assert made.host.docker("exec", "good", "echo", "here").out == "here\n"
    assert time.monotonic() - begun < 3 * QUICK
    made.host.docker("rm", "-f", "bad", check=False, timeout=60)
    assert made.pid() == pid, "the daemon ended"
    assert made.memory() - memory < GROWTH
    said = made.log_since(begin)
    assert "Traceback" not in said, said[-3000:]
    for line in said.splitlines():
        assert line.isprintable(), ascii(line)
        assert not line.startswith("2026-01-01T00:00:00.000"), "a guest forged a line"


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("giant-length", "sent a bad EVENT of 4294967295 bytes"),
        ("largest-reply-unasked", "answered what nobody asked"),
        ("second-hello", "sent HELLO out of turn"),
        ("random-frames", "the guest's agent"),
        ("beyond-credit", "than allowed"),
        ("closes-later", "the guest's agent did not answer"),
    ],
)
def test_who_breaks_the_protocol_is_killed_and_the_reason_is_shown(
    stage: Stage, mode: str, words: str
) -> None:
    stage.run(mode)
    error = stage.ended()
    assert words in error, error
    assert error.replace("\n", "").replace("\t", "").isprintable(), ascii(error)
    assert stage.state("{{.State.ExitCode}}") in ("137", "128")


@pytest.mark.parametrize("mode", ["exits", "ooms", "questions", "credits", "tiny-data"])
def test_a_flood_slows_nobody_else(stage: Stage, mode: str) -> None:
    assert stage.run(mode).code == 0
    before = stage.processor()
    begun = time.monotonic()
    assert stage.slowest(4.0) < QUICK
    share = (stage.processor() - before) / (time.monotonic() - begun)
    assert share < 0.7, f"the flood takes {share:.0%} of a core"
    assert stage.state("{{.State.Status}}") in ("running", "exited")


def test_a_flood_of_questions_asks_the_world_few(stage: Stage) -> None:
    stage.run("questions")
    assert stage.slowest(2.0) < QUICK
    tasks = len(list(Path(f"/proc/{stage.pid()}/fd").iterdir()))
    assert tasks < 600, "a guest makes the daemon open sockets without end"


def test_a_guest_gets_few_connections_and_only_to_the_socket_that_it_was_given(
    stage: Stage, tmp_path: Path
) -> None:
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(tmp_path / "given"))
    given.listen(4096)
    with given:
        stage.run("sockets", "-v", f"{tmp_path}/given:/run/s")
        assert stage.slowest(4.0) < QUICK
        given.settimeout(0.5)
        taken: list[socket.socket] = []
        with contextlib.suppress(TimeoutError):
            while len(taken) < 1000:
                taken.append(given.accept()[0])
        assert 0 < len(taken) <= 256
        assert stage.state("{{.State.Status}}") == "running"
        stage.host.docker("rm", "-f", "bad")
        for sock in taken:
            sock.settimeout(30)
            assert sock.recv(1) == b""
            sock.close()


def test_events_of_kind_oom_come_once_in_a_while(stage: Stage) -> None:
    stage.run("ooms")
    since = str(time.time())
    time.sleep(3)
    events = stage.host.docker("events", "--since", since, "--until", str(time.time())).out
    assert 1 <= events.count("container oom") <= 5


def test_an_agent_that_never_answers_holds_up_its_own_clients_alone(stage: Stage) -> None:
    assert stage.run("mute").code == 0
    with pytest.raises(subprocess.TimeoutExpired):
        stage.host.docker("exec", "bad", "true", timeout=3)
    assert stage.slowest(1.0) < QUICK
    assert "bad" in stage.host.docker("ps", timeout=5).out
    begun = time.monotonic()
    stage.host.docker("rm", "-f", "bad", timeout=60)
    assert time.monotonic() - begun < 25


@pytest.mark.parametrize("mode", ["silent", "closes-at-once"])
def test_a_guest_without_a_greeting_does_not_start(stage: Stage, mode: str) -> None:
    stage.play(mode)
    with pytest.raises(subprocess.TimeoutExpired):
        stage.host.docker("run", "-d", "--name", "bad", "busybox", "true", timeout=4)
    stage.honesty()
    assert stage.slowest(1.0) < QUICK
    begun = time.monotonic()
    stage.host.docker("rm", "-f", "bad", check=False, timeout=60)
    assert time.monotonic() - begun < 25


def test_a_refusal_reaches_the_client_in_print(stage: Stage) -> None:
    done = stage.run("refuses")
    assert done.code != 0
    assert "forged: line" in done.err
    assert done.err.replace("\n", "").isprintable(), ascii(done.err)
    assert "\n2026-01-01" not in done.err


def test_numbers_that_cannot_be_are_brought_into_bounds(stage: Stage) -> None:
    stage.run("odd-numbers")
    stage.ended()
    assert stage.state("{{.State.ExitCode}}") == "255"
    year = time.strftime("%Y")
    assert stage.state("{{.State.FinishedAt}}").startswith(year)
    assert stage.state("{{.State.StartedAt}}").startswith(year)
    assert "bad" in stage.host.docker("ps", "-a").out


def test_answers_of_every_kind_may_be_lies(stage: Stage) -> None:
    stage.run("lies")
    host = stage.host
    for words in (
        ("top", "bad"),
        ("stats", "--no-stream", "bad"),
        ("diff", "bad"),
        ("inspect", "bad"),
    ):
        done = host.docker(*words, check=False, timeout=60)
        assert "server error" not in done.err.lower(), (words, done.err)
        assert "500" not in done.err, (words, done.err)
        assert host.ping()
    status, _ = ask(host, "HEAD", "/containers/bad/archive?path=/etc/passwd")
    assert status == 200


def test_a_tar_without_end_stops_with_its_client(stage: Stage) -> None:
    stage.run("endless-tar")
    memory = stage.memory()
    with pytest.raises(subprocess.TimeoutExpired):
        stage.host.docker("export", "-o", str(stage.hostile.with_suffix(".tar")), "bad", timeout=5)
    stage.hostile.with_suffix(".tar").unlink(missing_ok=True)
    assert stage.memory() - memory < GROWTH
    assert stage.slowest(1.0) < QUICK


def test_a_console_that_never_stops_costs_little(stage: Stage) -> None:
    stage.run("talks-on-console")
    before, begun = stage.processor(), time.monotonic()
    assert stage.slowest(4.0) < QUICK
    assert (stage.processor() - before) / (time.monotonic() - begun) < 0.5


@pytest.mark.parametrize("mode", ["crowd", "wild-handles", "many-ended"])
def test_a_lying_guest_does_not_keep_the_next_daemon_from_coming_up(made: Stage, mode: str) -> None:
    made.run(mode)
    made.host.kill()
    begun = time.monotonic()
    made.host.start()
    assert time.monotonic() - begun < 40
    assert made.state("{{.State.Status}}") == "exited"
    assert made.host.docker("exec", "good", "echo", "here").out == "here\n"
    made.host.docker("rm", "-f", "bad")
