from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.globs import Glob
from hyperstack.image.history import history
from hyperstack.image.listing import layers_size, list_images, shared_sizes
from hyperstack.image.reference import Reference
from hyperstack.image.remove import prune
from tests.unit.image.stores import Rows, open_store

DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    store = open_store(tmp_path)
    yield Rows(store)
    store.db.close()


@pytest.fixture
async def family(rows: Rows) -> dict[str, str]:
    """A nameless base, a child of it, something with a digest only, something dangling."""
    base = await rows.image(layers=("a",))
    return {
        "base": base,
        "child": await rows.image("child:1", "host:5000/x/child:2", parent=base,
                                  layers=("a", "b"), labels={"k": "v"}),
        "digest": await rows.image(f"busybox@{DIGEST}", layers=("c",)),
        "dangling": await rows.image(layers=("d",), labels={"k": "w"}),
    }  # fmt: skip


def names(
    rows: Rows, family: dict[str, str], filters: dict[str, str] | None = None, *, all_: bool = False
) -> list[str]:
    by_id = {image: name for name, image in family.items()}
    split = {key: value.split("|") for key, value in (filters or {}).items()}
    found = list_images(rows.store, all_=all_, filters=split)
    return [by_id[image.id] for image in found]


async def test_a_list_shows_the_newest_first_and_no_intermediate_ones(
    rows: Rows, family: dict[str, str]
) -> None:
    assert names(rows, family) == ["dangling", "digest", "child"]
    assert names(rows, family, all_=True) == ["dangling", "digest", "child", "base"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"dangling": "true"}, ["dangling", "digest"]),
        ({"dangling": "1"}, ["dangling", "digest"]),
        ({"dangling": "false"}, ["digest", "child"]),
        ({"label": "k"}, ["dangling", "child"]),
        ({"label": "k=v"}, ["child"]),
        ({"label": "k=v|x"}, []),
        ({"before": "child:1"}, []),
        ({"since": "child:1"}, ["dangling", "digest"]),
        ({"until": "3"}, ["digest", "child"]),
        ({"reference": "child"}, ["child"]),
        ({"reference": "child:2"}, []),
        ({"reference": "*:1"}, ["child"]),
        ({"reference": "*/*/child"}, ["child"]),
        ({"reference": "nothing|busybox"}, ["digest"]),
    ],
)
async def test_filters_are_docker_s(
    rows: Rows, family: dict[str, str], filters: dict[str, str], found: list[str]
) -> None:
    assert names(rows, family, filters) == found


async def test_a_reference_filter_shows_only_the_names_that_fit(
    rows: Rows, family: dict[str, str]
) -> None:
    (image,) = list_images(rows.store, all_=False, filters={"reference": ["child"]})
    assert image.names == ("child:1",)


async def test_an_image_of_no_known_age_is_neither_before_nor_since_anything(rows: Rows) -> None:
    config = b'{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    await rows.store.add(config=config, layers=[], names=[Reference.parse("ageless:1")])
    await rows.image("other:1")
    for filters in ({"before": ["other:1"]}, {"since": ["other:1"]}, {"until": ["1h"]}):
        found = list_images(rows.store, all_=True, filters=filters)
        assert "ageless:1" not in [name for image in found for name in image.names]
    await prune(rows.store, {"dangling": ["false"], "until": ["1h"]})
    assert [image.names for image in rows.store.catalog] == [("ageless:1",)]


async def test_wrong_filters_are_refused(rows: Rows, family: dict[str, str]) -> None:
    for filters in ({"foo": "x"}, {"dangling": "maybe"}):
        with pytest.raises(InvalidParameter):
            names(rows, family, filters)
    with pytest.raises(InvalidParameter, match="invalid filter 'dangling'"):
        list_images(rows.store, all_=True, filters={"dangling": []})
    for filters in ({"reference": "["}, {"reference": "a\\"}, {"until": "x"}):
        with pytest.raises(InternalError):
            names(rows, family, filters)
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        names(rows, family, {"before": "nope"})


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("*", "abc", True), ("*", "a/b", False), ("a*b*c", "axxbyybzc", True), ("a?c", "abc", True),
        ("a?c", "a/c", False), ("[a-c]x", "bx", True), ("[^a-c]x", "bx", False), ("", "", True),
        ("a\\*", "a*", True), ("a\\*", "ab", False), ("*/b", "a/b", True), ("a*/b", "a/c/b", False),
        ("[]a]", "]", None), ("[a", "a", None), ("[-a]", "-", None), ("ab*", "ab", True),
    ],
)  # fmt: skip
def test_patterns_are_go_s(pattern: str, text: str, fits: bool | None) -> None:
    if fits is None:
        with pytest.raises(InvalidParameter, match="syntax error in pattern"):
            Glob(pattern)
    else:
        assert Glob(pattern).matches(text) is fits


@given(st.text("ab*?/", max_size=12), st.text("ab/", max_size=12))
def test_a_pattern_fits_what_a_slow_and_plain_reading_says(pattern: str, text: str) -> None:
    def slow(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "*":
            return slow(p[1:], t) or bool(t and t[0] != "/" and slow(p, t[1:]))
        return bool(t and (p[0] == t[0] or (p[0] == "?" and t[0] != "/")) and slow(p[1:], t[1:]))

    assert Glob(pattern).matches(text) is slow(pattern, text)


def test_a_spiteful_pattern_takes_no_time() -> None:
    assert not Glob("*a" * 200).matches("a" * 199 + "b" * 1000)


async def test_shared_bytes_are_those_of_layers_that_others_have(
    rows: Rows, family: dict[str, str]
) -> None:
    shared = shared_sizes(rows.store)
    assert shared[family["child"]] == shared[family["base"]] == 100
    assert shared[family["dangling"]] == 0
    assert layers_size(rows.store) == 400


async def test_a_layer_on_another_one_is_another_layer_as_with_docker(rows: Rows) -> None:
    alone = await rows.image("alone:1", layers=("b",))
    await rows.image("above:1", layers=("a", "b"))
    assert shared_sizes(rows.store)[alone] == 0
    assert layers_size(rows.store) == 300


async def test_several_until_filters_all_hold(rows: Rows, family: dict[str, str]) -> None:
    assert names(rows, family, {"until": "3|2"}) == ["child"]


async def test_history_names_the_images_that_are_known(rows: Rows, family: dict[str, str]) -> None:
    steps = history(rows.store, rows.store.catalog.get("child:1"))
    assert [(s.id, s.created_by, s.size) for s in steps] == [
        (family["child"], "b", 100),
        (family["base"], "a", 100),
    ]
    assert steps[0].tags == ("child:1", "host:5000/x/child:2")
    assert (steps[0].created, steps[1].tags) == (2, ())
