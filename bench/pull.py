"""The ``pull`` line: a layer of 100 MB compressed, from a real registry on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import random
import statistics
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Outcome
from bench.stage import Stage, until
from tests.framework.host import Host

PARTS = 220
"""Files of a megabyte that gzip to 100 MB together."""
PORT = 5050


def _tree(folder: Path) -> Path:
    """Make a tar of 220 MB that gzips to about 100 MB, as programs and text do."""
    target = folder / "layer.tar"
    source = random.Random(1)
    words = [source.randbytes(8) for _ in range(4096)]
    with tarfile.open(target, "w") as tar:
        for number in range(PARTS):
            data = b"".join(source.choice(words) * 3 + source.randbytes(4) for _ in range(36_000))
            path = folder / "part"
            path.write_bytes(data)
            tar.add(path, f"data/{number:04d}")
    return target


@contextlib.contextmanager
def _registry(host: Host, folder: Path) -> Iterator[str]:
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: "
        f"{{rootdirectory: {folder}/registry}}\nhttp: {{addr: '127.0.0.1:{PORT}'}}\n"
    )
    process = subprocess.Popen(
        [*host.netns.enter, "docker-registry", "serve", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        probe = f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 5)"
        until(lambda: host.inside("python3", "-c", probe).code == 0)
        yield f"127.0.0.1:{PORT}"
    finally:
        process.terminate()
        process.wait()


def _largest(folder: Path) -> Path:
    """Return the registry's biggest blob: the layer as it travels."""
    blobs = (folder / "registry").rglob("data")
    return max((path for path in blobs if path.is_file()), key=lambda path: path.stat().st_size)


def pull(stage: Stage) -> Outcome:
    """Return how many times longer a pull takes than ``gzip -dc`` of the layer alone."""
    host = stage.host
    folder = host.root / "pull"
    folder.mkdir()
    tar = _tree(folder)
    with _registry(host, folder) as address:
        name = f"{address}/bench/layer:1"
        with tar.open("rb") as file:
            host.docker("import", "-", name, stdin=file.read())
        host.docker("push", "-q", name)
        blob = _largest(folder)
        ratios, pulls, plain = [], [], []
        for _ in range(3):
            host.docker("rmi", name)
            began = time.perf_counter()
            subprocess.run(
                ["gzip", "-dc"], stdin=blob.open("rb"), stdout=subprocess.DEVNULL, check=True
            )
            plain.append(time.perf_counter() - began)
            began = time.perf_counter()
            host.docker("pull", "-q", name)
            pulls.append(time.perf_counter() - began)
            ratios.append(pulls[-1] / plain[-1])
        host.docker("rmi", name)
    digest = hashlib.sha256(blob.read_bytes()).hexdigest()[:12]
    notes = (
        f"layer {blob.stat().st_size / 1e6:.0f} MB ({digest}), pull "
        f"{statistics.median(pulls):.2f} s, gzip -dc {statistics.median(plain):.2f} s",
    )
    return Outcome(value=statistics.median(ratios), samples=ratios, notes=notes)
