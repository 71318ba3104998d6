"""``python -m bench [NAME ...]``: measure lines of SPECIFICATION.md and check their floors.

Without names all lines but ``density``. The daemon is started in a network namespace of its own
with a data root of its own; nothing of it stays. The exit status is 1 if a floor is broken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench import boot, cases, pull
from bench.floors import Floor, load
from bench.measure import Outcome
from tests.framework.host import KIT_DIR, Host, running_host
from tests.framework.images import busybox_tar

SINGLE: Mapping[str, cases.Case] = {
    "run": cases.run,
    "rate": cases.rate_of_starts,
    "twenty": cases.twenty,
    "exec": cases.execs,
    "stdout": cases.stdout,
    "stdin": cases.stdin,
    "port": cases.port,
    "volume-write": cases.volume_write,
    "volume-read": cases.volume_read,
    "pss": cases.memory,
    "density": cases.density,
}
CROWD = ("daemon-memory", "daemon-cpu", "restart")


def _show(floor: Floor, outcome: Outcome) -> bool:
    held = floor.held_by(outcome.value)
    sign = "<=" if floor.at_most else ">="
    sys.stdout.write(
        f"{floor.name:14} {outcome.value:9.3f} {floor.unit:10} floor {sign} {floor.limit:g}, "
        f"goal {floor.goal:g}  {'ok' if held else 'BROKEN'}\n"
    )
    if text := outcome.text():
        sys.stdout.write(f"{'':14} {text}\n")
    sys.stdout.flush()
    return held


def _on_host(root: Path, names: list[str], floors: Mapping[str, Floor], host: Host) -> bool:
    host.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar())
    held = True
    for name in names:
        if name in SINGLE:
            held &= _show(floors[name], SINGLE[name](host))
        elif name == "pull":
            folder = root / "pull"
            folder.mkdir()
            held &= _show(floors[name], pull.pull(host, folder))
    wanted = [name for name in CROWD if name in names]
    if wanted:
        outcomes = cases.crowd(host)
        shown = [_show(floors[name], outcomes[name]) for name in wanted]
        held &= all(shown)
    return held


def main(argv: list[str] | None = None) -> int:
    """Measure; return the exit status."""
    floors = load()
    parser = argparse.ArgumentParser(prog="hyper bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"lines to measure: {', '.join(floors)}")
    parser.add_argument("--kit-dir", type=Path, default=KIT_DIR)
    options = parser.parse_args(argv)
    names = options.name or [name for name in floors if name != "density"]
    for name in names:
        if name not in floors:
            parser.error(f"no line of SPECIFICATION.md is called {name}")
    held = True
    with tempfile.TemporaryDirectory(prefix="hb") as folder:
        root = Path(folder)
        if "boot" in names:
            held &= _show(floors["boot"], boot.boot(root / "boot", options.kit_dir))
        others = [name for name in names if name != "boot"]
        if others:
            with running_host(root / "host", 9) as host:
                held &= _on_host(root, others, floors, host)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
