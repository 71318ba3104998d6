from __future__ import annotations

import pytest

from hyperstack.engine import platforms

SECOND = "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
THIRD = f"{SECOND} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
FOURTH = f"{THIRD} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ("", 1),
        (SECOND, 2),
        (SECOND.replace("popcnt", ""), 1),
        (THIRD, 3),
        (THIRD.replace("movbe", ""), 2),
        (FOURTH.replace("avx2 ", ""), 2),
        (f"{FOURTH} more", 4),
    ],
)
def test_a_processor_has_a_level_when_it_has_all_of_it_and_of_those_below(
    flags: str, level: int
) -> None:
    assert platforms.level(frozenset(flags.split())) == level
