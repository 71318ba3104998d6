"""Which system call filter a container's processes get."""

from __future__ import annotations

import pytest

from hyperstack.engine.seccomp import filter_for
from hyperstack.model import HostConfig

PROFILE = (
    'seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],'
    '"action":"SCMP_ACT_ERRNO"}]}'
)


@pytest.mark.parametrize(
    ("privileged", "options", "filtered"),
    [
        (False, (), True),
        (False, ("seccomp=unconfined",), False),
        (False, (PROFILE,), True),
        (False, (PROFILE.replace("=", ":", 1),), True),
        (False, ("seccomp=unconfined", PROFILE), True),
        (True, (), False),
        (True, ("seccomp=unconfined",), False),
        (True, (PROFILE,), True),
    ],
)
def test_a_privileged_container_has_the_filter_that_was_asked_for_and_no_other(
    privileged: bool, options: tuple[str, ...], filtered: bool
) -> None:
    host = HostConfig(privileged=privileged, security_opt=options)
    assert bool(filter_for(host)) is filtered
