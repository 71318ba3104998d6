from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine import tmpfs
from hyperstack.engine.tmpfs import parse_tmpfs
from hyperstack.errors import InternalError

BASE = tmpfs.MS_NOEXEC | tmpfs.MS_NOSUID | tmpfs.MS_NODEV


@pytest.mark.parametrize(
    ("options", "flags", "data"),
    [
        ("", BASE, ""),
        ("size=1m,mode=700", BASE, "size=1m,mode=700"),
        ("exec,suid,dev", 0, ""),
        ("ro,exec", BASE & ~tmpfs.MS_NOEXEC | tmpfs.MS_RDONLY, ""),
        ("ro,rw", BASE, ""),
        ("size=1m,size=2m", BASE, "size=2m"),
        ("rprivate,noatime", BASE | tmpfs.MS_NOATIME, ""),
    ],
)
def test_options_become_flags_and_data(options: str, flags: int, data: str) -> None:
    assert parse_tmpfs(options) == (flags, data)


@pytest.mark.parametrize("options", ["wings", "size", "ro=1", "huge=always,ro"])
def test_an_unknown_option_is_refused(options: str) -> None:
    with pytest.raises(InternalError, match="invalid tmpfs option"):
        parse_tmpfs(options)


@given(st.text(alphabet="sizemod=01,ro", max_size=20))
def test_nothing_but_known_names_reaches_the_guest(options: str) -> None:
    try:
        _, data = parse_tmpfs(options)
    except InternalError:
        return
    assert all(part.partition("=")[0] in tmpfs._DATA for part in data.split(",") if part)
