from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hyperstack.cli import daemon, options
from hyperstack.cli.hyperd import main
from hyperstack.config import Config, GiB
from hyperstack.errors import Conflict, HyperError, InvalidParameter


def parsed(*flags: str, file: dict[str, Any] | None = None, folder: Path | None = None) -> Config:
    if file is None:
        return options.parse([*flags, "--config-file", os.devnull])[0]
    assert folder is not None
    path = folder / "daemon.json"
    path.write_text(json.dumps(file))
    return options.parse([*flags, "--config-file", str(path)])[0]


def test_nothing_said_is_the_defaults() -> None:
    assert parsed() == Config(config_file=Path(os.devnull))


def test_every_option_is_a_field_and_every_field_an_option() -> None:
    fields = {option.field for option in options.OPTIONS} - {""}
    assert fields == set(Config.__dataclass_fields__) - {"config_file"}


def test_flags_are_dockerds() -> None:
    config = parsed(
        "-H", "unix:///a", "--host=unix:///b", "-D", "--label", "a=b", "--label=c=d",
        "--registry-mirror", "https://m.example", "--insecure-registry", "r.example:5000",
        "--dns", "10.0.0.1", "--bip", "10.1.0.1/24", "--icc=false", "--log-opt", "max-size=10m",
        "--default-address-pool", "base=10.8.0.0/16,size=24", "--storage-size", "20g",
        "--data-root", "/x", "--tlsverify", "--shutdown-timeout", "3", "--live-restore",
    )  # fmt: skip
    assert config.hosts == ("unix:///a", "unix:///b")
    assert config.debug
    assert config.log_level == "debug"
    assert config.labels == ("a=b", "c=d")
    assert config.insecure_registries == ("127.0.0.0/8", "::1/128", "r.example:5000")
    assert config.icc is False
    assert config.log_opts == {"max-size": "10m"}
    assert config.default_address_pools == (("10.8.0.0/16", 24),)
    assert config.storage_size == 20 * GiB
    assert config.data_root == Path("/x")
    assert config.tls
    assert config.tls_verify


def test_the_file_has_dockerds_keys(tmp_path: Path) -> None:
    config = parsed(
        file={
            "hosts": ["unix:///a"],
            "log-opts": {"max-size": "1m"},
            "default-address-pools": [{"base": "10.8.0.0/16", "size": 24}],
            "icc": False,
            "mtu": 1400,
            "live-restore": True,
        },
        folder=tmp_path,
    )
    assert config.hosts == ("unix:///a",)
    assert config.log_opts == {"max-size": "1m"}
    assert config.default_address_pools == (("10.8.0.0/16", 24),)
    assert (config.icc, config.mtu) == (False, 1400)


def test_a_thing_said_twice_is_an_error_in_dockers_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parsed("--debug", "-H", "unix:///b", folder=tmp_path,
               file={"debug": False, "hosts": ["unix:///a"]})  # fmt: skip
    assert caught.value.message.endswith(
        "the following directives are specified both as a flag and in the configuration file: "
        "debug: (from flag: true, from file: false), "
        "hosts: (from flag: [unix:///b], from file: [unix:///a])"
    )


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ({"zz": 1}, "the following directives don't match any configuration option: zz"),
        ({"debug": "maybe"}, "invalid value 'maybe' for \"debug\""),
        ({"hosts": "unix:///a"}, 'for "hosts": a list is wanted'),
        ({"mtu": "x"}, 'for "mtu": a whole number is wanted'),
        ({"dns": ["x"]}, "x is not an ip address"),
        ({"labels": ["x"]}, "bad attribute format: x"),
        ({"log-level": "loud"}, "invalid logging level: loud"),
        ({"bip": "x"}, 'invalid value "x" for bip'),
        ({"registry-mirrors": ["ftp://x"]}, 'invalid mirror: "ftp://x" is not a valid URI'),
        ({"live-restore": False}, "live-restore can't be turned off"),
        ({"max-concurrent-downloads": 0}, "invalid max concurrent downloads: 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    tmp_path: Path, file: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parsed(file=file, folder=tmp_path)
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text("{")
    with pytest.raises(InvalidParameter, match=r"daemon\.json"):
        options.parse(["--config-file", str(path)])
    with pytest.raises(InvalidParameter, match="no such file"):
        options.parse(["--config-file", str(tmp_path / "none.json")])


def test_an_unknown_flag_ends_with_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--no-such-flag"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_configuration_can_be_validated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--validate", "--config-file", os.devnull]) == 0
    assert capsys.readouterr().err == "configuration OK\n"
    assert main(["--validate", "-H", "tcp://0.0.0.0:2375"]) == 1
    assert "--allow-insecure-tcp" in capsys.readouterr().err


def test_a_data_root_has_one_daemon(tmp_path: Path) -> None:
    with (
        daemon.data_root_lock(tmp_path / "data"),
        pytest.raises(Conflict, match=f"used by another hyperd \\(PID {os.getpid()}\\)"),
        daemon.data_root_lock(tmp_path / "data"),
    ):
        pass
    with daemon.data_root_lock(tmp_path / "data"):
        pass


def test_a_data_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HyperError, match="file/data"),
        daemon.data_root_lock(tmp_path / "file" / "data"),
    ):
        pass


def test_a_pid_file_of_a_running_process_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "d.pid"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        path.write_text(str(child.pid))
        with (
            pytest.raises(Conflict, match="ensure hyperd is not running or delete"),
            daemon.pid_file(path),
        ):
            pass
    finally:
        child.communicate(b"\n")
    with daemon.pid_file(path):
        assert path.read_text() == str(os.getpid())
    assert not path.exists()


def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        daemon.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
