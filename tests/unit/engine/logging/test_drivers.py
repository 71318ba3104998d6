from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine.core import Core
from hyperstack.engine.logging import drivers, tagging
from hyperstack.engine.logging.drivers import check
from hyperstack.engine.logging.kept import parse_size, settle
from hyperstack.errors import InternalError, InvalidParameter, NotImplementedHere
from hyperstack.model import ContainerConfig, HostConfig, LogConfig, LogQuery, StreamKind
from tests.unit.engine.making import added, container


@pytest.mark.parametrize(
    ("text", "size"), [("10m", 10 << 20), ("1.5k", 1536), ("7", 7), ("2 GiB", 2 << 30)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10q", "invalid suffix: 'q'"),
        ("10mibx", "invalid suffix: 'mibx'"),
        ("10bb", "invalid suffix: 'bb'"),
        (" 10m", 'strconv.ParseFloat: parsing " 10": invalid syntax'),
        ("1.5.5k", 'strconv.ParseFloat: parsing "1.5.5": invalid syntax'),
        ("-5k", "invalid size: '-5k'"),
        ("k", "invalid size: 'k'"),
    ],
)
def test_wrong_sizes_are_refused_in_the_words_of_dockers_library(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_size(text)
    assert refused.value.message == words


@given(st.text("0123456789.kmgtpib eE+-x", max_size=10) | st.text(max_size=5))
def test_any_size_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidParameter):
        assert parse_size(text) >= 0 or float(text.rstrip("kmgtpibKMGTPIB ")) > 1e3


@pytest.mark.parametrize(
    ("driver", "options", "kept"),
    [
        # Nobody's log grows without end.
        ("", {}, (512 << 20, 2, False)),
        ("json-file", {"max-file": "3"}, (512 << 20, 2, False)),
        ("json-file", {"max-size": "1t"}, (10**12, 1, False)),
        ("json-file", {"max-size": "1k", "max-file": "3"}, (1000, 3, False)),
        ("json-file", {"max-size": "1k", "max-file": "3", "compress": "true"}, (1000, 3, True)),
        ("local", {}, (20 << 20, 5, True)),
        ("local", {"max-file": "0", "compress": "false"}, (20 << 20, 1, False)),
        ("syslog", {"cache-max-size": "1k", "cache-max-file": "7"}, (1000, 7, True)),
        ("syslog", {"cache-max-size": "x"}, (20 << 20, 5, True)),
    ],
)
def test_options_are_dockers(
    driver: str, options: dict[str, str], kept: tuple[int, int, bool]
) -> None:
    assert settle(LogConfig(type=driver, config=options)) == kept


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("smoke", {}, 'error looking up logging plugin smoke: plugin "smoke" not found'),
        ("json-file", {"wings": "1"}, "unknown log opt 'wings' for json-file log driver"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for log driver local"),
        ("local", {"mode": "x"}, "logger: logging mode not supported: x"),
        (
            "local",
            {"max-buffer-size": "1m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "json-file",
            {"mode": "non-blocking", "max-buffer-size": "x"},
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
        ("syslog", {"cache-disabled": "x"}, "invalid value for option cache-disabled: x"),
        ("syslog", {"syslog-address": "x"}, "unsupported scheme: ''"),
        ("syslog", {"syslog-address": "unix:///nosuch"}, "stat /nosuch: no such file or directory"),
        ("syslog", {"syslog-facility": "99"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "x"}, "Invalid syslog format"),
    ],
)
def test_wrong_options_are_refused_when_a_container_is_made(
    driver: str, options: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidParameter) as refused:
        check(LogConfig(type=driver, config=options))
    assert refused.value.message == words


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("json-file", {"max-size": "-1"}, "invalid size: '-1'"),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        (
            "json-file",
            {"compress": "true"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("json-file", {"labels-regex": "("}, "error parsing regexp: missing closing ): `(`"),
        ("json-file", {"tag": "{{"}, "template: log-tag:1: unclosed action"),
        (
            "json-file",
            {"tag": "{{.Foo}}"},
            'template: log-tag:1:2: executing "log-tag" at <.Foo>: can\'t evaluate field Foo in '
            "type *logger.Info",
        ),
        ("json-file", {"compress": "{x}"}, 'strconv.ParseBool: parsing "{x}": invalid syntax'),
        ("json-file", {"max-file": "1_0"}, 'strconv.Atoi: parsing "1_0": invalid syntax'),
        (
            "json-file",
            {"max-file": "9" * 5000},
            f'strconv.Atoi: parsing "{"9" * 5000}": value out of range',
        ),
        (
            "json-file",
            {"labels-regex": "a**"},
            "error parsing regexp: invalid nested repetition operator: `**`",
        ),
        (
            "json-file",
            {"labels-regex": "(?=x)"},
            "error parsing regexp: invalid or unsupported Perl syntax: `(?=`",
        ),
        ("local", {"max-file": "-1"}, "max file count cannot be less than 0"),
        ("local", {"max-size": "x"}, "invalid value for max-size: x: invalid size: 'x'"),
        (
            "local",
            {"max-file": "1"},
            "compression cannot be enabled when max file count is 1",
        ),
    ],
)
async def test_what_only_a_start_can_judge_is_refused_then(
    core: Core, driver: str, options: dict[str, str], words: str
) -> None:
    config = LogConfig(type=driver, config=options)
    check(config)
    made = await added(core, host=HostConfig(log_config=config))
    with pytest.raises(InternalError) as refused:
        await drivers.begin_log(core, made)
    assert refused.value.message == (
        f"failed to create task for container: failed to initialize logging driver: {words}"
    )


def test_a_driver_that_is_not_here_is_named() -> None:
    with pytest.raises(NotImplementedHere, match="splunk"):
        check(LogConfig(type="splunk"))


def test_labels_variables_and_tag_go_into_each_record() -> None:
    options = {"labels": "a,none", "labels-regex": "^b", "env": "X", "env-regex": "Y+"}
    made = container(
        "web", identifier="ab" * 32,
        config=ContainerConfig(labels={"a": "1", "bb": "2"}, env=("X=1", "YY=2", "Z"), image="i:1"),
        host=HostConfig(log_config=LogConfig(config=options)),
    )  # fmt: skip
    assert dict(tagging.attributes(made)) == {"a": "1", "bb": "2", "X": "1", "YY": "2"}
    tag = tagging.tag(made, "{{.Name}}/{{ .ID }}/{{.ImageName}}")
    assert tag == "web/abababababab/i:1"


def test_an_expression_that_goes_back_for_ever_elsewhere_ends() -> None:
    made = container(
        config=ContainerConfig(labels={"a" * 60 + "!": "1"}),
        host=HostConfig(log_config=LogConfig(config={"labels-regex": "^(a+)+$"})),
    )
    assert tagging.attributes(made) == ()


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
    writer = await drivers.begin_log(core, made)
    writer.append(StreamKind.STDOUT, 0, b"hello\n", 5)
    writer.close()
    assert [r.data async for r in drivers.reader_for(core, made, LogQuery())] == [b"hello\n"]
