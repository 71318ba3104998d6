from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import InvalidParameter, NotFound
from hyperstack.image import configfile
from hyperstack.image import rows as row_module
from hyperstack.image.catalog import Catalog, chain_ids
from hyperstack.image.configfile import ImageConfig
from hyperstack.image.reference import Reference
from hyperstack.image.values import HistoryEntry
from hyperstack.model import ContainerConfig, Healthcheck
from tests.unit.image.stores import Rows, open_store

DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    store = open_store(tmp_path)
    yield Rows(store)
    store.db.close()


async def test_an_image_is_found_by_every_name_and_id(rows: Rows) -> None:
    image = await rows.image("busybox:1", "host:5000/a/b", f"busybox@{DIGEST}")
    refs = [
        "busybox:1", "docker.io/library/busybox:1", "host:5000/a/b", f"busybox@{DIGEST}",
        f"busybox:other@{DIGEST}", image, image[7:], image[7:19], image[:20],
    ]  # fmt: skip
    for ref in refs:
        assert rows.store.catalog.get(ref).id == image
    found = rows.store.catalog.get(image)
    assert found.names == ("busybox:1", "host:5000/a/b:latest")
    assert found.repo_digests == (f"busybox@{DIGEST}",)


async def test_a_name_comes_before_the_prefix_of_an_id(rows: Rows) -> None:
    one = await rows.image()
    other = await rows.image(f"{one[7:15]}:latest")
    assert rows.store.catalog.get(one[7:15]).id == other


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        ("nope", "No such image: nope:latest"),
        ("nope:1", "No such image: nope:1"),
        ("docker.io/library/nope", "No such image: nope:latest"),
        (f"nope@{DIGEST}", f"No such image: nope@{DIGEST}"),
        ("f" * 64, f"No such image: sha256:{'f' * 64}"),
        ("sha256:abc", "No such image: sha256:abc"),
    ],
)
async def test_an_unknown_image_is_said_in_docker_s_words(
    rows: Rows, ref: str, sentence: str
) -> None:
    await rows.image("busybox:1")
    with pytest.raises(NotFound) as caught:
        rows.store.catalog.get(ref)
    assert caught.value.message == sentence


async def test_an_ambiguous_prefix_is_nothing(rows: Rows) -> None:
    for number in range(40):
        await rows.image(layers=(str(number),))
    first = next(iter(rows.store.catalog)).id
    clashing = [c for c in "0123456789abcdef" if sum(i.id[7] == c for i in rows.store.catalog) > 1]
    with pytest.raises(NotFound):
        rows.store.catalog.get(clashing[0])
    assert rows.store.catalog.get(first[7:]).id == first


async def test_a_name_moves_to_the_image_that_takes_it(rows: Rows) -> None:
    first = await rows.image("app:1")
    second = await rows.image("app:1", layers=("b",))
    assert rows.store.catalog.get("app:1").id == second
    assert rows.store.catalog.get(first).names == ()
    before = rows.store.catalog.get(first).last_tagged_ns
    await rows.store.tag(first, Reference.parse("app:1"))
    assert rows.store.catalog.get("app:1").id == first
    assert rows.store.catalog.get(first).last_tagged_ns > before


async def test_the_next_daemon_finds_all_that_this_one_knew(rows: Rows) -> None:
    base = await rows.image("base")
    await rows.image("child:1", f"child@{DIGEST}", parent=base, layers=("a", "b"))
    await rows.store.tag(base, Reference.parse("other:2"))
    again = Catalog(row_module.load(rows.store.db))
    assert sorted(again, key=lambda i: i.id) == sorted(rows.store.catalog, key=lambda i: i.id)
    assert again.layers == rows.store.catalog.layers


def test_chain_ids_are_those_of_the_specification() -> None:
    one, two = ("sha256:" + c * 64 for c in "ab")
    chains = chain_ids([one, two])
    assert chains[0] == one
    assert chains[1] == f"sha256:{hashlib.sha256(f'{one} {two}'.encode()).hexdigest()}"


FULL = ImageConfig(
    created="2024-01-02T03:04:05.6Z",
    author="me",
    comment="why",
    container="c" * 64,
    docker_version="1",
    architecture="arm64",
    variant="v8",
    os="linux",
    os_version="1",
    config=ContainerConfig(
        user="u",
        exposed_ports=("80/tcp",),
        env=("A=1",),
        entrypoint=("e",),
        cmd=("c",),
        healthcheck=Healthcheck(test=("CMD", "x"), interval=1, timeout=2, retries=3),
        args_escaped=True,
        volumes=("/v",),
        working_dir="/w",
        on_build=("RUN x",),
        labels={"k": "v"},
        stop_signal="TERM",
        stop_timeout=0,
        shell=("sh",),
    ),
    diff_ids=(DIGEST,),
    history=(HistoryEntry(created="2024-01-02T03:04:05Z", created_by="x", empty_layer=True),),
)


def test_a_config_written_here_reads_back_the_same() -> None:
    assert configfile.parse(configfile.encode(FULL)) == FULL
    assert configfile.encode(FULL) == configfile.encode(FULL)


def test_the_container_of_which_an_image_was_made_is_written_and_read_on_its_own() -> None:
    made_of = ContainerConfig(hostname="h", tty=True, cmd=("sh",), labels={"a": "b"})
    data = configfile.encode(replace(FULL, made_of=made_of))
    assert configfile.parse(data) == FULL
    assert configfile.made_of(data) == {
        "Hostname": "h", "Tty": True, "Cmd": ["sh"], "Labels": {"a": "b"},
    }  # fmt: skip
    for other in (configfile.encode(FULL), b"{", b'{"container_config":[]}', b"[]"):
        assert configfile.made_of(other) == {}


def test_null_is_the_zero_value_and_unknown_keys_are_ignored() -> None:
    data = {
        "config": {"Env": None, "Cmd": None, "Labels": None, "New": 1, "Entrypoint": "one"},
        "rootfs": {"diff_ids": None},
        "history": None,
        "created": None,
        "new": [1],
    }
    parsed = configfile.parse(json.dumps(data).encode())
    assert parsed.config == ContainerConfig(entrypoint=("one",))
    assert configfile.parse(b'{"config": null, "rootfs": null}').diff_ids == ()


def test_what_is_no_port_is_left_out() -> None:
    ports: dict[str, object] = {"80": {}, "53/UDP": {}, "99999/tcp": {}, "x": {}, "1/foo": {}}
    parsed = configfile.parse(json.dumps({"config": {"ExposedPorts": ports}}).encode())
    assert parsed.config.exposed_ports == ("80/tcp", "53/udp")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{", b'{"config": 1}', b'{"config": {"Env": [1]}}', b"\xff",
        b'{"rootfs": {"diff_ids": ["../x"]}}', b'{"rootfs": {"diff_ids": ["sha256:ABC"]}}',
        b'{"x":' + b"[" * 3_000_000 + b"]" * 3_000_000 + b"}",
        json.dumps({"config": {"Env": ["a"] * 10_001}}).encode(),
        json.dumps({"config": {"Labels": {str(n): "" for n in range(10_001)}}}).encode(),
        json.dumps({"rootfs": {"diff_ids": [DIGEST] * 501}}).encode(),
        b'{"author": "' + b"x" * (8 << 20) + b'"}',
    ],
)  # fmt: skip
def test_a_config_that_is_none_or_too_large_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidParameter):
        configfile.parse(data)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T01:00:00.5+01:00", 5 * 10**8),
        ("1969-12-31T23:00:00-01:00", 0),
        ("0001-01-01T00:00:00Z", -62135596800 * 10**9),
        ("2024-02-30T00:00:00Z", 0),
        ("yesterday", 0),
        ("", 0),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, ns: int) -> None:
    assert configfile.to_ns(text) == ns


@given(st.integers(0, 4 * 10**18))
def test_times_written_here_read_back_the_same(ns: int) -> None:
    assert configfile.to_ns(configfile.from_ns(ns)) == ns
