"""The contract as the agent compiles it."""

from __future__ import annotations

import pytest

from hyperstack.guest import header, messages
from hyperstack.guest.fields import message
from tests.unit.guest.agent import NATIVE


def test_the_agents_header_is_what_the_contract_says() -> None:
    path = NATIVE / "agent" / "messages.h"
    assert path.read_text() == header.header(), (
        "run python -m hyperstack.guest.header > native/agent/messages.h"
    )


def test_every_operation_and_event_has_its_messages() -> None:
    assert set(messages.OPS) == set(messages.Op)
    assert set(messages.EVENTS) == set(messages.EventKind)


def test_a_field_that_is_not_empty_when_absent_is_refused() -> None:
    class Wrong:
        count: int = 3

    with pytest.raises(TypeError, match=r"Wrong\.count is not empty"):
        message(Wrong)
