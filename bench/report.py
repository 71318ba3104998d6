"""What the benchmark says: a line on the terminal for each figure, all of them as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.floors import Floor
from bench.measure import Outcome


@dataclass(kw_only=True)
class Report:
    """The figures of one run."""

    outcomes: dict[str, tuple[Floor, Outcome]] = field(default_factory=dict)

    def add(self, floor: Floor, outcome: Outcome) -> None:
        """Take a figure and print it."""
        self.outcomes[floor.name] = (floor, outcome)
        sign = "<=" if floor.at_most else ">="
        verdict = "ok" if floor.held_by(outcome.value) else "BROKEN"
        sys.stdout.write(
            f"{floor.name:14} {outcome.value:9.3f} {floor.unit:10} floor {sign} {floor.limit:g}, "
            f"goal {floor.goal:g}  {verdict}\n"
        )
        if text := outcome.text():
            sys.stdout.write(f"{'':14} {text}\n")
        sys.stdout.flush()

    @property
    def held(self) -> bool:
        """Whether no floor is broken."""
        return all(floor.held_by(outcome.value) for floor, outcome in self.outcomes.values())

    def write(self, path: Path) -> None:
        """Write everything as one JSON object."""
        lines = {
            name: {
                "value": outcome.value,
                "unit": floor.unit,
                "floor": floor.limit,
                "goal": floor.goal,
                "at_most": floor.at_most,
                "held": floor.held_by(outcome.value),
                "samples": list(outcome.samples),
                "cpu_seconds": outcome.cpu,
                "notes": list(outcome.notes),
            }
            for name, (floor, outcome) in self.outcomes.items()
        }
        about = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "kernel": os.uname().release,
            "machine": os.uname().machine,
            "processors": os.cpu_count(),
            "load": os.getloadavg(),
        }
        path.write_text(json.dumps({"host": about, "lines": lines}, indent=2) + "\n")
