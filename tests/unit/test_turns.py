"""A test that is to be alone waits for others, and they for it."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.framework.turns import turn

BOUND = 10.0


class Other(threading.Thread):
    """Another worker's test, held until it is told to end."""

    def __init__(self, folder: Path, *, alone: bool) -> None:
        super().__init__(daemon=True)
        self._folder, self._alone = folder, alone
        self.runs, self.may_end = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with turn(self._folder, alone=self._alone):
            self.runs.set()
            self.may_end.wait(BOUND)

    def end(self) -> None:
        self.may_end.set()
        self.join(BOUND)
        assert not self.is_alive()


def test_ordinary_tests_run_beside_each_other(tmp_path: Path) -> None:
    one, two = Other(tmp_path, alone=False), Other(tmp_path, alone=False)
    assert one.runs.wait(BOUND)
    assert two.runs.wait(BOUND)
    one.end()
    two.end()


def test_one_that_is_to_be_alone_waits_and_is_waited_for(tmp_path: Path) -> None:
    first = Other(tmp_path, alone=False)
    assert first.runs.wait(BOUND)
    alone = Other(tmp_path, alone=True)
    assert not alone.runs.wait(0.2)
    late = Other(tmp_path, alone=False)  # must not slip in before it
    assert not late.runs.wait(0.2)
    first.end()
    assert alone.runs.wait(BOUND)
    assert not late.runs.wait(0.2)
    alone.end()
    assert late.runs.wait(BOUND)
    late.end()
