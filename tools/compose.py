"""Fetches Compose for the tests: Debian's package of it, made a plugin of the docker CLI.

Debian 12 has no Compose that is a plugin; the next release's runs with the libraries of this one.
It comes from the signed archive, by a source list and a state of their own below .cache: what the
machine's apt knows and has installed stays as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from hyperstack.errors import HyperError, Unavailable
from hyperstack.guest.kitapt import Suite, host_mirror

SUITE = "trixie"
PACKAGE = "docker-compose"
PROGRAM = "usr/libexec/docker/cli-plugins/docker-compose"
HERE = Path(__file__).parents[1]
CONFIG = HERE / ".cache" / "docker"
"""For DOCKER_CONFIG: where the CLI looks for its configuration and plugins."""


async def fetch(cache: Path, plugin: Path) -> None:
    """Put the program at *plugin*, which appears whole or not at all. Raises HyperError."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".apt-", dir=cache) as folder:
        suite = Suite(name=SUITE, folder=Path(folder), mirror=host_mirror())
        if not await suite.update():
            raise Unavailable(f"the suite {SUITE} can't be read: {suite.failure}")
        if await suite.version(PACKAGE) is None:
            raise Unavailable(f"the suite {SUITE} has no package {PACKAGE}")
        (tree,) = await suite.unpack(PACKAGE)
        plugin.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(tree / PROGRAM, plugin.with_suffix(".new"))
        plugin.with_suffix(".new").rename(plugin)


def main() -> int:
    """Fetch the plugin unless it is there; a failure is one sentence."""
    parser = argparse.ArgumentParser(description="fetch Compose for the tests, if it is missing")
    parser.add_argument("config", type=Path, nargs="?", default=CONFIG)
    plugin = parser.parse_args().config / "cli-plugins" / "docker-compose"
    if plugin.exists():
        return 0
    sys.stdout.write(f"Fetching {PACKAGE} of {SUITE} ...\n")
    sys.stdout.flush()
    try:
        asyncio.run(fetch(HERE / ".cache", plugin))
    except HyperError as error:
        sys.stderr.write(f"{PACKAGE} can't be fetched: {error.message}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
