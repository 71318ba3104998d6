from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import CASES, CROWD
from bench.floors import Floor, load
from bench.measure import Outcome
from bench.report import Report

TABLE = """
Text with a | in it.

| name | what | floor | goal | unit |
|---|---|---|---|---|
| run | `docker run`, p50 | <= 0.35 | 0.15 | s |
| port | bulk TCP | >= 300 | 1000 | MB/s |
| note | no floor here | - | 3 | x |
"""


def floor(sign: str, limit: float) -> Floor:
    return Floor(name="x", what="a thing", at_most=sign == "<=", limit=limit, goal=limit, unit="s")


def test_each_row_with_a_floor_is_read_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TABLE)
    assert load(page) == {
        "run": Floor(
            name="run", what="`docker run`, p50", at_most=True, limit=0.35, goal=0.15, unit="s"
        ),
        "port": Floor(
            name="port", what="bulk TCP", at_most=False, limit=300, goal=1000, unit="MB/s"
        ),
    }


def test_every_line_of_the_specification_can_be_measured() -> None:
    assert set(load()) == {"boot", *CASES, *CROWD}


def test_no_goal_of_the_specification_is_worse_than_its_floor() -> None:
    for name, line in load().items():
        assert line.held_by(line.goal), name


@pytest.mark.parametrize(
    ("sign", "value", "held"),
    [("<=", 1.0, True), ("<=", 1.01, False), (">=", 1.0, True), (">=", 0.99, False)],
)
def test_a_floor_holds_at_its_limit_and_not_beyond(sign: str, value: float, held: bool) -> None:
    assert floor(sign, 1.0).held_by(value) is held


def test_one_broken_floor_breaks_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report()
    report.add(floor("<=", 2.0), Outcome(value=1.5, samples=(1.0, 1.5, 9.0), notes=("why",)))
    assert report.held
    broken = Floor(name="y", what="", at_most=False, limit=3, goal=4, unit="MB/s")
    report.add(broken, Outcome(value=2.0))
    assert not report.held
    printed = capsys.readouterr().out
    assert "ok" in printed
    assert "BROKEN" in printed
    report.write(tmp_path / "out.json")
    lines = json.loads((tmp_path / "out.json").read_text())["lines"]
    assert lines["x"]["held"]
    assert lines["x"]["samples"] == [1.0, 1.5, 9.0]
    assert not lines["y"]["held"]
