"""The lines about bytes: a container's streams, a published port, a named volume."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import time

from bench.measure import MB, Outcome, rate
from bench.stage import IDLE, IMAGE, LINES, Stage, until
from tests.framework.host import DOCKER

TEXT = 8 * LINES * 80
ZEROS = 256 << 20
FILE = 256 << 20
BULK = 512 << 20


def stdout(stage: Stage) -> Outcome:
    """Lines of text through the docker CLI into nothing, logged as by default.

    The notes say the same of binary zeros (which the log's JSON makes six times longer), and of
    both without a log.
    """
    lines = ("cat", *["/lines"] * 8)
    zeros = ("dd", "if=/dev/zero", "bs=128k", f"count={ZEROS >> 17}")
    value = _out(stage, TEXT, "json-file", lines)
    notes = [
        f"{name}: {_out(stage, size, driver, words).value:.0f} MB/s"
        for name, size, driver, words in (
            ("lines, no log", TEXT, "none", lines),
            ("zeros, json-file", ZEROS, "json-file", zeros),
            ("zeros, no log", ZEROS, "none", zeros),
        )
    ]
    return dataclasses.replace(value, notes=notes)


def _out(stage: Stage, size: int, driver: str, words: tuple[str, ...]) -> Outcome:
    command = ("run", "--rm", "--log-driver", driver, IMAGE, *words)
    return rate(size, lambda: stage.call(*command), stage.cpu)


def stdin(stage: Stage) -> Outcome:
    """The docker CLI's input into a container that reads and drops it."""
    words = ("run", "--rm", "-i", IMAGE, "sh", "-c", "cat >/dev/null")

    def once() -> None:
        with subprocess.Popen(
            ["head", "-c", str(ZEROS), "/dev/zero"], stdout=subprocess.PIPE
        ) as source:
            done = subprocess.run(
                [DOCKER, "-H", stage.host.url, *words], stdin=source.stdout, capture_output=True
            )
        if done.returncode:
            raise RuntimeError(done.stderr.decode())

    return rate(ZEROS, once, stage.cpu)


def port(stage: Stage) -> Outcome:
    """Bytes out of a container through a published port, from the daemon's own host."""
    host = stage.host
    server = ("nc", "-ll", "-p", "5001", "-e", "dd", "if=/dev/zero", "bs=1M", f"count={BULK >> 20}")
    host.docker("run", "-d", "--name", "bulk", "-p", "5001:5001", IMAGE, *server)
    address = host.inside("sh", "-c", "ip -4 -o addr show hyper0").out.split()[3].partition("/")[0]
    script = (
        "import socket,sys\n"
        f"s=socket.create_connection(('{address}', 5001), 30)\n"
        "n=0\n"
        "b=bytearray(1<<20)\n"
        "while (k:=s.recv_into(b)): n+=k\n"
        f"sys.exit(n!={BULK})\n"
    )

    def once() -> None:
        done = host.inside("python3", "-c", script, timeout=300)
        if done.code:
            raise RuntimeError(f"bulk transfer failed: {done.err}")

    try:
        until(lambda: host.inside("python3", "-c", script, timeout=300).code == 0)
        return rate(BULK, once, stage.cpu)
    finally:
        host.docker("rm", "-f", "bulk")


def volume_write(stage: Stage) -> Outcome:
    """``dd`` onto a named volume with a flush at its end."""
    words = ("dd", "if=/dev/zero", "of=/v/file", "bs=1M", f"count={FILE >> 20}", "conv=fsync")
    stage.call("run", "-d", "--name", "vol", "-v", "bench:/v", IMAGE, *IDLE)
    try:
        return rate(FILE, lambda: stage.call("exec", "vol", *words), stage.cpu)
    finally:
        stage.call("rm", "-f", "vol")
        stage.call("volume", "rm", "bench")


def volume_read(stage: Stage) -> Outcome:
    """``dd`` from a named volume in a fresh guest each time, whose page cache is cold."""
    samples, cpu = [], 0.0
    write = ("dd", "if=/dev/zero", "of=/v/file", "bs=1M", f"count={FILE >> 20}")
    stage.call("run", "--rm", "-v", "bench:/v", IMAGE, *write)
    try:
        for _ in range(3):
            stage.call("run", "-d", "--name", "vol", "-v", "bench:/v", IMAGE, *IDLE)
            before, began = stage.cpu(), time.perf_counter()
            stage.call("exec", "vol", "dd", "if=/v/file", "of=/dev/null", "bs=1M")
            samples.append(FILE / MB / (time.perf_counter() - began))
            cpu += stage.cpu() - before
            stage.call("rm", "-f", "vol")
    finally:
        stage.call("volume", "rm", "bench")
    return Outcome(value=statistics.median(samples), samples=samples, cpu=cpu / 3)
