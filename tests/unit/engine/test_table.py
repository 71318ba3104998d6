from __future__ import annotations

import asyncio
import gc

import pytest

from hyperstack.engine.core import Core
from hyperstack.engine.table import Table
from hyperstack.errors import Conflict, InternalError, InvalidParameter, NotFound
from hyperstack.ids import ContainerId
from tests.unit.engine.making import added, container

A = "a" * 63 + "1"
B = "a" * 63 + "2"
C = "c" * 64


async def test_a_container_is_found_by_id_name_and_unique_prefix(core: Core) -> None:
    made = await added(core, "web", identifier=C)
    for reference in (C, "web", "/web", "c", C[:12]):
        assert core.table.get(reference) is made


async def test_a_prefix_of_two_is_refused(core: Core) -> None:
    await added(core, "one", identifier=A)
    await added(core, "two", identifier=B)
    with pytest.raises(InvalidParameter, match="multiple IDs found with provided prefix: aaa"):
        core.table.get("aaa")
    assert core.table.get(A).name == "one"


async def test_a_name_wins_over_a_prefix(core: Core) -> None:
    await added(core, "one", identifier=C)
    named = await added(core, "ccc", identifier=A)
    assert core.table.get("ccc") is named


async def test_an_unknown_container_is_named_in_the_error(core: Core) -> None:
    with pytest.raises(NotFound, match="No such container: nope"):
        core.table.get("nope")
    with pytest.raises(InvalidParameter, match="value is empty"):
        core.table.get("")


async def test_a_name_belongs_to_one_container(core: Core) -> None:
    made = await added(core, "web")
    core.table.claim("web", made.id)
    with pytest.raises(Conflict, match=f'"/web" is already in use by container "{made.id}"'):
        core.table.claim("web", ContainerId(C))
    core.table.release_name("web", ContainerId(C))
    assert core.table.get("web") is made


async def test_a_new_daemon_reads_what_was_saved(core: Core) -> None:
    made = await added(core, "web")
    made.state.exit_code = 7
    await core.table.save(made)
    again = Table(core.db)
    again.load()
    assert again.get("web") == made
    assert len(again) == 1


async def test_a_deleted_container_leaves_name_and_row(core: Core) -> None:
    made = await added(core, "web")
    await core.table.delete(made)
    await core.table.save(made)
    core.table.claim("web", ContainerId(C))
    again = Table(core.db)
    again.load()
    assert list(again) == []


async def test_a_save_beside_a_deletion_does_not_bring_the_row_back(core: Core) -> None:
    made = await added(core, "web")
    await asyncio.gather(core.table.delete(made), *(core.table.save(made) for _ in range(5)))
    again = Table(core.db)
    again.load()
    assert list(again) == []


async def test_what_the_database_refuses_is_neither_added_nor_forgotten(core: Core) -> None:
    first = await added(core, "one")
    core.db.close()
    with pytest.raises(InternalError):
        await core.table.add(container("two", identifier=C))
    with pytest.raises(InternalError):
        await core.table.delete(first)
    assert list(core.table) == [first]


async def test_a_lock_is_the_same_while_it_is_held_and_gone_afterwards(core: Core) -> None:
    identifier = ContainerId(C)
    async with core.table.lock(identifier):
        assert core.table.lock(identifier).locked()
    gc.collect()
    assert not core.table._locks


async def test_a_verb_waits_for_a_start_that_is_under_way_and_for_nothing_else(core: Core) -> None:
    made = await added(core)
    async with core.table.lock(made.id):
        await asyncio.wait_for(core.settled(made.id), 1)
        core.starting.add(made.id)
        waiting = asyncio.create_task(core.settled(made.id))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        core.starting.discard(made.id)
    await asyncio.wait_for(waiting, 1)
