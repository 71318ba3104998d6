"""What the guest's agent would not take is refused before it travels."""

from __future__ import annotations

import pytest

from hyperstack.engine import bounds
from hyperstack.errors import InvalidParameter
from hyperstack.guest import messages


def process(**fields: object) -> messages.Process:
    """Return a process that is fine but for *fields*."""
    return messages.Process(**{"handle": 1, "argv": ("true",), "cwd": "/", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"argv": ("echo", "x" * (128 << 10))}, "argument list too long"),
        ({"env": ("A=" + "é" * (64 << 10),)}, "argument list too long"),
        ({"cwd": "/" + "x" * 4095}, "working directory"),
        ({"user": "u" * 256}, "user"),
        ({"groups": ("7",) * 1025}, "more than 1024 additional groups"),
    ],
)
def test_what_is_too_long_is_named(fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        bounds.check_process(process(**fields))
    assert words in refused.value.message
    assert len(refused.value.message) < 400


def test_what_is_just_short_enough_is_taken() -> None:
    most = "x" * ((128 << 10) - 1)
    bounds.check_process(process(argv=("echo", most), env=(most,), cwd="/" + "x" * 4094))


def test_a_containers_mounts_are_looked_at() -> None:
    long = messages.Mount(kind=messages.MountKind.TMPFS, target="/" + "x" * 5000)
    with pytest.raises(InvalidParameter, match="mount target"):
        bounds.check_container(messages.Container(id="a" * 64, mounts=(long,)))
