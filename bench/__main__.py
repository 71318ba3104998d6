"""Measure lines of SPECIFICATION.md and check their floors: ``hyper bench [NAME ...]``.

Without names all lines but ``density``. The daemon is started in a network namespace of its own
with a data root of its own; nothing of it stays. The exit status is 1 if a floor is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import boot, crowd, flows, pull, starts
from bench.floors import Floor, load
from bench.measure import Outcome
from bench.report import Report
from bench.stage import Stage, dockerd
from tests.framework.host import KIT_DIR, running_host

NUMBER = 9
"""Of the daemon under test, among those that tests may run at the same time."""
CASES: Mapping[str, Callable[[Stage], Outcome]] = {
    "run": starts.run,
    "rate": starts.rate_of_starts,
    "twenty": starts.twenty,
    "exec": starts.execs,
    "stdout": flows.stdout,
    "stdin": flows.stdin,
    "port": flows.port,
    "volume-write": flows.volume_write,
    "volume-read": flows.volume_read,
    "pull": pull.pull,
    "pss": crowd.memory,
    "density": crowd.density,
}
CROWD = ("daemon-memory", "daemon-cpu", "restart")


def measure(
    stage: Stage, names: Sequence[str], floors: Mapping[str, Floor], report: Report
) -> None:
    """Measure lines on a daemon that runs."""
    for name in names:
        if name in CASES:
            report.add(floors[name], CASES[name](stage))
    wanted = [name for name in CROWD if name in names]
    if wanted:
        outcomes = crowd.crowd(stage)
        for name in wanted:
            report.add(floors[name], outcomes[name])


def _options(floors: Mapping[str, Floor], argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hyper bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"lines to measure: {', '.join(floors)}")
    parser.add_argument("--kit-dir", type=Path, default=KIT_DIR)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument(
        "--dockerd", action="store_true", help="measure run, twenty and exec beside a real dockerd"
    )
    options = parser.parse_args(argv)
    options.name = options.name or [name for name in floors if name != "density"]
    for name in options.name:
        if name not in floors:
            parser.error(f"no line of SPECIFICATION.md is called {name}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return the exit status."""
    floors = load()
    options = _options(floors, argv)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="hb") as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        if "boot" in options.name:
            report.add(floors["boot"], boot.boot(root / "boot", options.kit_dir))
        others = [name for name in options.name if name != "boot"]
        if others:
            host = stack.enter_context(
                running_host(root / "host", NUMBER, ["--kit-dir", str(options.kit_dir)])
            )
            reference = stack.enter_context(dockerd(root / "d")) if options.dockerd else None
            stage = Stage(host=host, reference=reference)
            stage.prepare()
            measure(stage, others, floors, report)
    if options.json is not None:
        report.write(options.json)
    return 0 if report.held else 1


if __name__ == "__main__":
    sys.exit(main())
