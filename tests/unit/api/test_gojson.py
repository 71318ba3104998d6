from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.api.docker import gojson
from hyperstack.api.docker.schema.config import CONFIG, read_whole_config
from hyperstack.api.docker.schema.create import UPDATE, read_create
from hyperstack.api.docker.schema.host import HOST_CONFIG, HostConfigKind, host_config
from hyperstack.engine.update import UpdateConfig
from hyperstack.errors import InvalidParameter
from hyperstack.model import ContainerConfig, HostConfig, MountPoint, PortBinding

PREFIX = "invalid JSON: json: cannot unmarshal "


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([], "array into Go value of type container.CreateRequest"),
        ({"Image": 3}, "number into Go struct field .Image of type string"),
        (
            {"HostConfig": {"Memory": "x"}},
            "string into Go struct field .HostConfig.Memory of type int64",
        ),
        (
            {"hostconfig": {"memory": "x"}},
            "string into Go struct field .HostConfig.memory of type int64",
        ),
        (
            {"HostConfig": {"Memory": 1.5}},
            "number 1.5 into Go struct field .HostConfig.Memory of type int64",
        ),
        (
            {"HostConfig": {"Memory": 99999999999999999999}},
            "number 99999999999999999999 into Go struct field .HostConfig.Memory of type int64",
        ),
        (
            {"HostConfig": {"LogConfig": {"Type": 4}}},
            "number into Go struct field .HostConfig.LogConfig.Type of type string",
        ),
        (
            {"Healthcheck": {"Interval": "x"}},
            "string into Go struct field .Healthcheck.Interval of type time.Duration",
        ),
        ({"Cmd": 3}, "number into Go value of type string"),
        (
            {"Labels": []},
            "array into Go struct field .Labels of type map[string]string",
        ),
        (
            {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 80}]}}},
            "number into Go struct field .HostConfig.PortBindings.80~1tcp.0.HostPort of type "
            "string",
        ),
        (
            {"HostConfig": {"Ulimits": [{"Soft": "x"}]}},
            "string into Go struct field .HostConfig.Ulimits.0.Soft of type int64",
        ),
        (
            {"HostConfig": {"Mounts": [{"TmpfsOptions": {"Options": [None, [1]]}}]}},
            "number into .HostConfig.Mounts.0.TmpfsOptions.Options.1.0 of type string",
        ),
    ],
)
def test_a_wrong_type_is_named_as_go_names_it(body: Any, sentence: str) -> None:
    # Compared with what dockerd 28.5 answers to the same bodies.
    if isinstance(body, dict):
        body = {"User": "x", **body}
    with pytest.raises(InvalidParameter) as caught:
        read_create(body)
    assert caught.value.message == PREFIX + sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "invalid JSON: got EOF while reading request body"),
        (b" \n", "invalid JSON: got EOF while reading request body"),
        (b"{", "invalid JSON: unexpected EOF"),
        (b'{"a": "b', "invalid JSON: unexpected EOF"),
        (b'{"a":1} x', "unexpected content after JSON"),
        (b"[1,]", "invalid JSON: invalid character ']' looking for beginning of value"),
        (b"[nul]", "invalid JSON: invalid character ']' in literal null (expecting 'l')"),
        (b'["a" "b"]', "invalid JSON: invalid character '\"' after array element"),
        (b'["a\\q"]', "invalid JSON: invalid escape sequence `\\q` in string"),
        (b'["\\u12"]', 'invalid JSON: invalid escape sequence `\\u12"]` in string'),
        (b'["a\nb"]', "invalid JSON: invalid character '\\n' in string"),
        (b"\x07", "invalid JSON: invalid character '\\a' looking for beginning of value"),
        (b"\xc2\x82", "invalid JSON: invalid character '\\u0082' looking for beginning of value"),
        (b"[-]", "invalid JSON: invalid character ']' in numeric literal"),
        (b"[01]", "invalid JSON: invalid character '1' after array element"),
        (
            b'{"a":1,}',
            "invalid JSON: invalid character '}' looking for beginning of object key string",
        ),
        (b'{"a" 1}', "invalid JSON: invalid character '1' after object key"),
        (b"[" * 100_000, "invalid JSON: exceeded max depth"),
    ],
)
def test_broken_json_is_refused_in_gos_words(text: bytes, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        gojson.decode(text)
    assert caught.value.message == sentence


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_sentence(data: bytes) -> None:
    with contextlib.suppress(InvalidParameter):
        gojson.decode(data)


def test_an_empty_configuration_is_refused() -> None:
    for body in (None, {}, {"HostConfig": {"Memory": 1}}):
        with pytest.raises(InvalidParameter, match="config cannot be empty"):
            read_create(body)


def test_the_configuration_of_a_commit_is_that_of_a_create() -> None:
    assert read_whole_config({"cmd": ["x"], "HostConfig": {}}).cmd == ("x",)
    assert read_whole_config({}) == ContainerConfig()
    for body, sentence in (
        ({"StopTimeout": "x"}, "string into Go struct field .StopTimeout of type int"),
        ([], "array into Go value of type container.CreateRequest"),
    ):
        with pytest.raises(InvalidParameter, match=f"{PREFIX}{sentence}"):
            read_whole_config(body)


def test_an_update_must_have_the_right_types_in_what_comes_to_nothing_too() -> None:
    changes = UPDATE.read({"memory": 1 << 26, "Ulimits": [], "RestartPolicy": None})
    assert changes == UpdateConfig(memory=1 << 26)
    with pytest.raises(InvalidParameter) as refused:
        UPDATE.read({"Ulimits": [{"Name": 1}]})
    assert refused.value.message == (
        f"{PREFIX}number into Go struct field UpdateConfig.Ulimits.0.Name of type string"
    )


def test_nulls_leave_the_zero_value() -> None:
    body = read_create(
        {
            "Image": "x",
            "Env": None,
            "Cmd": None,
            "Labels": None,
            "HostConfig": {"Binds": None, "PidsLimit": None, "PortBindings": {"80/tcp": None}},
            "NetworkingConfig": {"EndpointsConfig": {"net": None}},
        }
    )
    assert body.config.env == ()
    assert body.config.cmd is None
    assert body.host.pids_limit is None
    assert body.host.port_bindings == {"80/tcp": ()}
    assert list(body.networks) == ["net"]


def test_names_match_in_any_case_and_unknown_ones_are_ignored() -> None:
    body = read_create({"iMaGe": "x", "Zzz": [1], "hostConfig": {"privileged": True, "?": 1}})
    assert body.config.image == "x"
    assert body.host.privileged


def test_broken_characters_are_replaced_as_go_replaces_them() -> None:
    assert gojson.decode(b'["\\ud800","a\xffb","\\ud83d\\ude00","\\\\ud800"]') == [
        "\ufffd",
        "a\ufffdb",
        "\U0001f600",
        "\\ud800",
    ]


def test_a_command_may_be_a_string() -> None:
    body = read_create({"Image": "x", "Cmd": "ls", "Entrypoint": [], "HostConfig": {"CapAdd": "A"}})
    assert body.config.cmd == ("ls",)
    assert body.config.entrypoint == ()
    assert body.host.cap_add == ("A",)


def test_everything_of_a_full_body_arrives() -> None:
    body = read_create(
        {
            "Image": "x",
            "ExposedPorts": {"80/tcp": {}},
            "StopTimeout": 0,
            "Volumes": {"/v": {}},
            "HostConfig": {
                "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
                "ConsoleSize": [24, 80],
                "Mounts": [
                    {
                        "Type": "volume",
                        "Source": "s",
                        "Target": "/t",
                        "VolumeOptions": {
                            "NoCopy": True,
                            "Subpath": "a",
                            "DriverConfig": {"Name": "local", "Options": {"o": "bind"}},
                        },
                    },
                    {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": 5, "Mode": 7}},
                ],
                "Init": True,
            },
            "NetworkingConfig": {
                "EndpointsConfig": {
                    "net": {
                        "Aliases": ["a"],
                        "IPAMConfig": {"IPv4Address": "10.0.0.9"},
                        "GwPriority": 3,
                    }
                }
            },
        }
    )
    assert body.config.exposed_ports == ("80/tcp",)
    assert body.config.stop_timeout == 0
    assert body.host.port_bindings["80/tcp"] == (
        PortBinding(host_ip="127.0.0.1", host_port="8080"),
    )
    assert body.host.console_size == (24, 80)
    volume, tmpfs = body.host.mounts
    assert volume == MountPoint(
        type="volume",
        source="s",
        target="/t",
        no_copy=True,
        subpath="a",
        driver="local",
        driver_options={"o": "bind"},
        given=("volume",),
    )
    assert (tmpfs.tmpfs_size, tmpfs.tmpfs_mode) == (5, 7)
    wish = body.networks["net"]
    assert (wish.aliases, wish.ipv4_address, wish.gw_priority) == (("a",), "10.0.0.9", 3)


def test_lists_and_maps_are_shown_as_they_were_given_empty_or_not_at_all() -> None:
    body: dict[str, Any] = {
        "Dns": [],
        "PortBindings": {},
        "Links": None,
        "Devices": [],
        "CapAdd": [],
    }
    shown = host_config(HostConfigKind().read(body, gojson.Where()))
    assert (shown["Dns"], shown["PortBindings"], shown["Devices"]) == ([], {}, [])
    assert shown["CapAdd"] == []
    for key in ("Links", "DnsSearch", "Ulimits", "BlkioDeviceReadBps", "CapDrop"):
        assert shown[key] is None
    assert "StorageOpt" not in shown


def test_what_is_written_is_read_back() -> None:
    host = HostConfig(
        binds=("a:/b",),
        memory=5,
        pids_limit=7,
        tmpfs={"/t": "size=1"},
        mounts=(
            MountPoint(
                type="bind", source="/s", target="/t", propagation="rslave", given=("bind",)
            ),
        ),
        port_bindings={"80/tcp": (PortBinding(host_port="1"),)},
        oom_kill_disable=False,
        masked_paths=(),
        given_empty=("dns",),
    )
    written = json.loads(gojson.encode(host_config(host)))
    assert HostConfigKind().read(written, gojson.Where()) == host
    assert HOST_CONFIG.write(host)["MaskedPaths"] == []


def test_html_is_not_escaped_and_maps_are_sorted() -> None:
    assert gojson.encode({"a": "<&>"}) == b'{"a":"<&>"}\n'
    assert list(gojson.STRING_MAP.write({"b": "1", "a": "2"})) == ["a", "b"]


@given(
    st.dictionaries(
        st.sampled_from([field.key for field in CONFIG.fields]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        max_size=6,
    )
)
def test_any_configuration_is_read_or_refused(raw: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidParameter):
        CONFIG.write(CONFIG.read(raw))
