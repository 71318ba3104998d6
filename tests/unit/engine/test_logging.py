from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine import logging as drivers
from hyperstack.engine.core import Core
from hyperstack.engine.logging import check, parse_size, settle
from hyperstack.errors import InvalidParameter, NotImplementedHere
from hyperstack.model import ContainerConfig, HostConfig, LogConfig, LogQuery, StreamKind
from tests.unit.engine.making import added, container


@pytest.mark.parametrize(
    ("text", "size"), [("10m", 10 << 20), ("1.5k", 1536), ("7", 7), ("-1", 0), ("2 GiB", 2 << 30)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(st.text(max_size=10))
def test_any_size_is_read_or_refused(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except InvalidParameter as error:
        assert text in error.message  # noqa: PT017  # both ways out are right


@pytest.mark.parametrize(
    ("driver", "options", "kept"),
    [
        ("", {}, (0, 1, False)),
        ("json-file", {"max-size": "1k", "max-file": "3"}, (1024, 3, False)),
        ("json-file", {"max-size": "1k", "max-file": "3", "compress": "true"}, (1024, 3, True)),
        ("local", {}, (20 << 20, 5, True)),
        ("local", {"max-file": "1"}, (20 << 20, 1, False)),
    ],
)
def test_options_are_dockers(
    driver: str, options: dict[str, str], kept: tuple[int, int, bool]
) -> None:
    assert settle(LogConfig(type=driver, config=options)) == kept


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("smoke", {}, 'plugin "smoke" not found'),
        ("json-file", {"wings": "1"}, "unknown log opt 'wings' for json-file log driver"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for local log driver"),
        ("json-file", {"max-size": "big"}, "big"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "2"}, "max-size should be set"),
        ("json-file", {"max-file": "x"}, "invalid syntax"),
        ("json-file", {"compress": "true"}, "compress cannot be true"),
        ("local", {"compress": "maybe"}, "invalid syntax"),
    ],
)
def test_wrong_options_are_refused(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        check(LogConfig(type=driver, config=options))


def test_a_driver_that_is_not_here_is_named() -> None:
    with pytest.raises(NotImplementedHere, match="journald"):
        check(LogConfig(type="journald"))


def test_labels_variables_and_tag_go_into_each_record() -> None:
    made = container(
        "web", identifier="ab" * 32,
        config=ContainerConfig(labels={"a": "1", "bb": "2"}, env=("X=1", "YY=2", "Z"), image="i:1"),
    )  # fmt: skip
    options = {
        "labels": "a,none", "labels-regex": "^b", "env": "X", "env-regex": "Y+",
        "tag": "{{.Name}}/{{ .ID }}/{{.ImageName}}/{{.Other}}",
    }  # fmt: skip
    assert dict(drivers._attributes(made, options)) == {
        "a": "1", "bb": "2", "X": "1", "YY": "2", "tag": "web/abababababab/i:1/{{.Other}}",
    }  # fmt: skip


async def test_each_driver_has_its_place(core: Core) -> None:
    for driver, name in (("", "-json.log"), ("local", "local-logs/container.log")):
        made = container(host=HostConfig(log_config=LogConfig(type=driver)))
        assert str(drivers.log_path(core, made)).endswith(name)
    made = await added(core, host=HostConfig(log_config=LogConfig(type="none")))
    assert drivers.log_path(core, made) is None
    with pytest.raises(NotImplementedHere, match="does not support reading"):
        drivers.reader_for(core, made, LogQuery())


async def test_a_log_is_written_by_one_run_and_read_after_it(core: Core) -> None:
    made = await added(core, host=HostConfig(log_config=LogConfig(type="local")))
    writer = drivers.open_log(core, made, fresh=True)
    writer.append(StreamKind.STDOUT, 0, b"hello\n", 5)
    writer.close()
    assert [r.data async for r in drivers.reader_for(core, made, LogQuery())] == [b"hello\n"]
