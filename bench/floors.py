"""The floors of SPECIFICATION.md, read from its table: each number has one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPECIFICATION = Path(__file__).resolve().parent.parent / "SPECIFICATION.md"


@dataclass(frozen=True, kw_only=True)
class Floor:
    """One promise: *value* must be at most (or at least) ``limit``, in ``unit``."""

    name: str
    what: str
    at_most: bool
    limit: float
    goal: float
    unit: str

    def held_by(self, value: float) -> bool:
        """Tell whether a measured value keeps the promise."""
        return value <= self.limit if self.at_most else value >= self.limit


def load(path: Path = SPECIFICATION) -> dict[str, Floor]:
    """Read the table of a specification, by name."""
    floors: dict[str, Floor] = {}
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 5 or cells[2][:2] not in ("<=", ">="):
            continue
        name, what, limit, goal, unit = cells
        floors[name] = Floor(
            name=name,
            what=what,
            at_most=limit.startswith("<="),
            limit=float(limit[2:]),
            goal=float(goal),
            unit=unit,
        )
    return floors
