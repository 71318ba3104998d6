from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperstack.errors import Conflict, InternalError, InvalidParameter, NotFound
from hyperstack.image import rows as tables
from hyperstack.image.catalog import chain_ids
from hyperstack.image.reference import Reference
from hyperstack.image.remove import Removed, prune, remove
from hyperstack.model import Status
from tests.unit.image.stores import Rows, open_store

DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    store = open_store(tmp_path)
    yield Rows(store)
    store.db.close()


async def rmi(rows: Rows, ref: str, *, force: bool = False, prune: bool = True) -> list[Removed]:
    return await remove(rows.store, ref, force=force, prune=prune)


def events(rows: Rows) -> list[str]:
    return [event.action for event in rows.store.events.past(0)]


def chain(*names: str) -> str:
    return chain_ids(f"sha256:{name.encode().hex():0>64}" for name in names)[-1]


async def test_the_last_name_takes_the_image_and_its_layers_along(rows: Rows) -> None:
    image = await rows.image("app:1", layers=("a", "b"))
    assert await rmi(rows, "app:1") == [
        ("untagged", "app:1"),
        ("deleted", image),
        ("deleted", chain("a", "b")),
        ("deleted", chain("a")),
    ]
    assert events(rows) == ["untag", "delete"]
    assert len(rows.store.catalog) == 0
    left = tables.load(rows.store.db)
    assert (left.images, left.names, left.layers) == ([], {}, [])


async def test_one_name_of_several_is_only_taken_away(rows: Rows) -> None:
    image = await rows.image("app:1", "app:2")
    assert await rmi(rows, "app:1") == [("untagged", "app:1")]
    assert rows.store.catalog.get("app:2").id == image


async def test_layers_of_other_images_stay(rows: Rows) -> None:
    await rows.image("one", layers=("a", "b"))
    image = await rows.image("two", layers=("a", "c"))
    assert await rmi(rows, "two") == [
        ("untagged", "two:latest"),
        ("deleted", image),
        ("deleted", chain("a", "c")),
    ]


async def test_an_id_with_several_names_must_be_forced(rows: Rows) -> None:
    image = await rows.image("app:1", "other:2")
    with pytest.raises(Conflict) as caught:
        await rmi(rows, image[7:19])
    assert caught.value.message == (
        f"conflict: unable to delete {image[7:19]} (must be forced) - image is referenced in "
        "multiple repositories"
    )
    assert (await rmi(rows, image[7:19], force=True))[:3] == [
        ("untagged", "app:1"),
        ("untagged", "other:2"),
        ("deleted", image),
    ]


async def test_an_id_with_one_name_and_its_digest_goes(rows: Rows) -> None:
    image = await rows.image("app:1", f"app@{DIGEST}")
    assert [text for what, text in await rmi(rows, image) if what == "untagged"] == [
        "app:1",
        f"app@{DIGEST}",
    ]
    assert len(rows.store.catalog) == 0


async def test_the_last_tag_of_a_repository_takes_its_digests_along(rows: Rows) -> None:
    image = await rows.image("app:1", f"app@{DIGEST}", "other:1")
    assert await rmi(rows, "app:1") == [("untagged", "app:1"), ("untagged", f"app@{DIGEST}")]
    assert events(rows) == ["untag"]
    assert rows.store.catalog.get("other:1").id == image


async def test_removing_a_digest_leaves_the_tag(rows: Rows) -> None:
    image = await rows.image("app:1", f"app@{DIGEST}")
    assert await rmi(rows, f"app@{DIGEST}") == [("untagged", f"app@{DIGEST}")]
    assert rows.store.catalog.get("app:1").id == image


async def test_a_name_whose_image_a_container_uses_must_be_forced(rows: Rows) -> None:
    image = await rows.image("app:1")
    container = rows.container(image, Status.EXITED)
    with pytest.raises(Conflict) as caught:
        await rmi(rows, "app:1")
    assert caught.value.message == (
        'conflict: unable to remove repository reference "app:1" (must force) - container '
        f"{container.id[:12]} is using its referenced image {image[7:19]}"
    )
    assert rows.store.catalog.get("app:1").id == image


async def test_with_another_name_left_a_container_forbids_nothing(rows: Rows) -> None:
    image = await rows.image("app:1", "app:2")
    rows.container(image, Status.RUNNING)
    assert await rmi(rows, "app:1") == [("untagged", "app:1")]


async def test_a_stopped_container_keeps_the_layers_of_a_forced_removal(rows: Rows) -> None:
    image = await rows.image("app:1")
    rows.container(image, Status.EXITED)
    assert (await rmi(rows, "app:1", force=True))[:2] == [
        ("untagged", "app:1"),
        ("deleted", image),
    ]
    store = rows.store
    assert len(store.catalog) == 0
    with pytest.raises(NotFound):
        store.catalog.get(image)
    assert store.catalog.find(image) is not None
    assert len(tables.load(store.db).layers) == 1
    rows.containers.clear()
    await store.drop_hidden()
    assert store.catalog.find(image) is None
    assert tables.load(store.db).layers == []


async def test_a_running_container_cannot_be_overruled(rows: Rows) -> None:
    image = await rows.image("app:1")
    container = rows.container(image, Status.RUNNING)
    with pytest.raises(Conflict) as caught:
        await rmi(rows, image, force=True)
    assert caught.value.message == (
        f"conflict: unable to delete {image[7:19]} (cannot be forced) - image is being used by "
        f"running container {container.id[:12]}"
    )
    # By name the name goes, and the image stays without one.
    assert await rmi(rows, "app:1", force=True) == [("untagged", "app:1")]
    assert rows.store.catalog.get(image).names == ()


async def test_a_stopped_container_forbids_removal_by_id(rows: Rows) -> None:
    image = await rows.image()
    container = rows.container(image, Status.EXITED)
    with pytest.raises(Conflict) as caught:
        await rmi(rows, image)
    assert caught.value.message == (
        f"conflict: unable to delete {image[7:19]} (must be forced) - image is being used by "
        f"stopped container {container.id[:12]}"
    )


async def test_an_image_that_others_were_made_from_cannot_go(rows: Rows) -> None:
    base = await rows.image("base")
    await rows.image("child", parent=base, layers=("a", "b"))
    with pytest.raises(Conflict) as caught:
        await rmi(rows, base, force=True)
    assert caught.value.message == (
        f"conflict: unable to delete {base[7:19]} (cannot be forced) - image has dependent child "
        "images"
    )
    assert await rmi(rows, "base") == [("untagged", "base:latest")]


async def test_nameless_parents_go_along_if_asked(rows: Rows) -> None:
    base = await rows.image()
    middle = await rows.image(parent=base, layers=("a", "b"))
    child = await rows.image("child", parent=middle, layers=("a", "b", "c"))
    assert await rmi(rows, "child") == [
        ("untagged", "child:latest"),
        ("deleted", child),
        ("deleted", chain("a", "b", "c")),
        ("deleted", middle),
        ("deleted", chain("a", "b")),
        ("deleted", base),
        ("deleted", chain("a")),
    ]


async def test_nameless_parents_stay_if_not_asked_or_needed(rows: Rows) -> None:
    base = await rows.image()
    await rows.image("one", parent=base, layers=("a", "b"))
    await rows.image("two", parent=base, layers=("a", "c"))
    await rmi(rows, "one")
    assert rows.store.catalog.visible(base)
    await rmi(rows, "two", prune=False)
    assert rows.store.catalog.visible(base)


@pytest.mark.parametrize("ref", ["nope", "nope:1", "0123456789ab", DIGEST])
async def test_what_is_not_there_is_not_found(rows: Rows, ref: str) -> None:
    with pytest.raises(NotFound, match="No such image: "):
        await rmi(rows, ref)


async def test_prune_removes_what_has_no_tag_and_no_user(rows: Rows) -> None:
    tagged = await rows.image("app:1", layers=("a",))
    gone = await rows.image(layers=("b", "c"))
    digest_only = await rows.image(f"app@{DIGEST}", layers=("d",))
    used = await rows.image(layers=("e",))
    rows.container(used, Status.EXITED)
    done, freed = await prune(rows.store, {})
    assert {text for what, text in done if what == "deleted"} >= {gone, digest_only}
    assert freed == 300
    assert {image.id for image in rows.store.catalog} == {tagged, used}
    last = rows.store.events.past(0)[-1]
    assert (last.action, dict(last.attributes)) == ("prune", {"reclaimed": "300"})


async def test_prune_of_all_spares_only_what_is_used(rows: Rows) -> None:
    await rows.image("app:1", "app:2", layers=("a",))
    used = await rows.image("used:1", layers=("b",))
    rows.container(used, Status.CREATED)
    done, _ = await prune(rows.store, {"dangling": ["false"]})
    assert ("untagged", "app:2") in done
    assert [image.id for image in rows.store.catalog] == [used]


async def test_prune_spares_what_has_only_a_digest_and_a_child_unless_all_is_asked_for(
    rows: Rows,
) -> None:
    base = await rows.image(f"app@{DIGEST}")
    child = await rows.image("child:1", parent=base, layers=("a", "b"))
    assert await prune(rows.store, {}) == ([], 0)
    await prune(rows.store, {"dangling": ["false"]})
    assert not {base, child} & {image.id for image in rows.store.catalog}


async def test_a_name_for_an_image_that_goes_meanwhile_is_refused_and_leaves_nothing(
    rows: Rows,
) -> None:
    image = await rows.image("app:1")
    async with rows.store.lock:
        tagging = asyncio.create_task(rows.store.tag(image, Reference.parse("late:1")))
        await asyncio.sleep(0)
        await tables.remove(rows.store.db, tables.Removal(images=[image]))
        rows.store.catalog.drop(image)
    with pytest.raises(NotFound, match="No such image"):
        await tagging
    assert tables.load(rows.store.db).names == {}


async def test_prune_takes_whole_nameless_families(rows: Rows) -> None:
    base = await rows.image()
    child = await rows.image(parent=base, layers=("a", "b"))
    done, _ = await prune(rows.store, {})
    assert [text for what, text in done if text in (base, child)] == [child, base]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"label": ["keep"]}, 2),
        ({"label!": ["keep"]}, 2),
        ({"label": ["keep=2"]}, 3),
        ({"until": ["2"]}, 1),
        ({"until": ["1h"]}, 0),
    ],
)
async def test_prune_filters(rows: Rows, filters: dict[str, list[str]], left: int) -> None:
    await rows.image(labels={"keep": "1"}, layers=("a",))
    await rows.image(layers=("b",), created=2)
    await rows.image(labels={"other": "1"}, layers=("c",))
    if filters == {"label!": ["keep"]}:
        left = 1
    if filters == {"label": ["keep=2"]}:
        left = 3
    await prune(rows.store, filters)
    assert len(rows.store.catalog) == left


@pytest.mark.parametrize("filters", [{"x": ["1"]}, {"dangling": ["maybe"]}])
async def test_prune_refuses_unknown_filters(rows: Rows, filters: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidParameter):
        await prune(rows.store, filters)


@pytest.mark.parametrize("until", [["a", "b"], ["a"]])
async def test_prune_calls_a_bad_time_its_own_failure_as_docker_does(
    rows: Rows, until: list[str]
) -> None:
    with pytest.raises(InternalError):
        await prune(rows.store, {"until": until})
