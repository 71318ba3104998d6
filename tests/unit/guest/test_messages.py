"""The contract as the agent compiles it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hyperstack.guest import header, messages
from tests.unit.guest.agent import NATIVE


def test_the_agents_header_is_what_the_contract_says() -> None:
    path = NATIVE / "agent" / "messages.h"
    assert path.read_text() == header.header(), (
        "run python -m hyperstack.guest.header > native/agent/messages.h"
    )


def test_every_operation_and_event_has_its_messages() -> None:
    assert set(messages.OPS) == set(messages.Op)
    assert set(messages.EVENTS) == set(messages.EventKind)


@pytest.mark.parametrize("cls", header.message_types(), ids=lambda cls: cls.__name__)
def test_tags_are_small_positive_and_used_once(cls: type[Any]) -> None:
    tags = [field.metadata["tag"] for field in dataclasses.fields(cls)]
    assert len(set(tags)) == len(tags)
    assert all(0 < tag < 1 << 16 for tag in tags)
