"""The daemon's options: dockerd's flags and the keys of its configuration file, one table for both.

As dockerd: a flag and the file may not both set the same thing, a key that nobody knows is an
error, and list options may be given many times. See ``docs/configuration.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hyperstack import __version__
from hyperstack.config import Config
from hyperstack.errors import InvalidParameter

DEFAULT_FILE = Path("/etc/hyper/daemon.json")
MAX_FILE = 1 << 20

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?\Z", re.IGNORECASE)
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def boolean(value: object) -> bool:
    """Read a switch, from a flag's text or JSON. Raises ValueError."""
    if isinstance(value, bool):
        return value
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise ValueError("true or false is wanted")


def size(value: object) -> int:
    """Read bytes: ``10g``, ``512MiB`` or a number. Raises ValueError."""
    match = _SIZE.match(str(value))
    if match is None or isinstance(value, bool):
        raise ValueError("a size like 512m or 10g is wanted")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def integer(value: object) -> int:
    """Read a whole number that is not negative. Raises ValueError."""
    if isinstance(value, bool) or not str(value).isascii() or not str(value).isdigit():
        raise ValueError("a whole number is wanted")
    return int(str(value))


def text(value: object) -> str:
    """Read a text. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("a text is wanted")
    return value


def path(value: object) -> Path:
    """Read an absolute path; a relative one counts from the working directory."""
    if not text(value):
        raise ValueError("a path is wanted")
    return Path(text(value)).absolute()


def seconds(value: object) -> float:
    """Read seconds. Raises ValueError."""
    return float(integer(value))


def pool(value: object) -> tuple[str, int]:
    """Read an address pool: ``base=10.0.0.0/8,size=24`` or the object of the file."""
    if isinstance(value, str):
        parts = dict(part.partition("=")[::2] for part in value.split(","))
    elif isinstance(value, Mapping):
        parts = {str(key).lower(): str(item) for key, item in value.items()}
    else:
        parts = {}
    if set(parts) != {"base", "size"}:
        raise ValueError("base=CIDR,size=BITS is wanted")
    return str(ipaddress.ip_network(parts["base"])), integer(parts["size"])


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option. *many*: a list; *mapping*: ``key=value``, many times."""

    flags: tuple[str, ...]
    key: str
    field: str
    read: Callable[[object], Any] = text
    many: bool = False
    mapping: bool = False
    help: str = ""


OPTIONS = (
    Option(flags=("--data-root", "-g"), key="data-root", field="data_root", read=path,
           help="Root directory of persistent state"),
    Option(flags=("--exec-root",), key="exec-root", field="exec_root", read=path,
           help="Root directory for execution state files"),
    Option(flags=("--pidfile", "-p"), key="pidfile", field="pidfile", read=path,
           help="Path to use for daemon PID file"),
    Option(flags=("--host", "-H"), key="hosts", field="hosts", many=True,
           help="Daemon socket(s) to listen on: unix://, tcp://, fd://"),
    Option(flags=("--group", "-G"), key="group", field="group",
           help="Group for the unix socket"),
    Option(flags=("--tls",), key="tls", field="tls", read=boolean,
           help="Use TLS; implied by --tlsverify"),
    Option(flags=("--tlsverify",), key="tlsverify", field="tls_verify", read=boolean,
           help="Use TLS and verify the remote"),
    Option(flags=("--tlscacert",), key="tlscacert", field="tls_ca_cert", read=path,
           help="Trust certs signed only by this CA"),
    Option(flags=("--tlscert",), key="tlscert", field="tls_cert", read=path,
           help="Path to TLS certificate file"),
    Option(flags=("--tlskey",), key="tlskey", field="tls_key", read=path,
           help="Path to TLS key file"),
    Option(flags=("--allow-insecure-tcp",), key="allow-insecure-tcp", field="allow_insecure_tcp",
           read=boolean, help="Give root on this host to everybody who reaches a tcp:// socket"),
    Option(flags=("--registry-mirror",), key="registry-mirrors", field="registry_mirrors",
           many=True, help="Preferred registry mirror"),
    Option(flags=("--insecure-registry",), key="insecure-registries",
           field="insecure_registries", many=True, help="Enable insecure registry communication"),
    Option(flags=("--max-concurrent-downloads",), key="max-concurrent-downloads",
           field="max_concurrent_downloads", read=integer,
           help="Set the max concurrent downloads"),
    Option(flags=("--max-concurrent-uploads",), key="max-concurrent-uploads",
           field="max_concurrent_uploads", read=integer, help="Set the max concurrent uploads"),
    Option(flags=("--max-download-attempts",), key="max-download-attempts",
           field="max_download_attempts", read=integer,
           help="Set the max download attempts for each pull"),
    Option(flags=("--bip",), key="bip", field="bip", help="Address of the default bridge, CIDR"),
    Option(flags=("--bridge", "-b"), key="bridge", field="bridge_name",
           help="Name of the default bridge's device"),
    Option(flags=("--fixed-cidr",), key="fixed-cidr", field="fixed_cidr",
           help="IPv4 subnet for fixed IPs"),
    Option(flags=("--mtu",), key="mtu", field="mtu", read=integer,
           help="Set the containers network MTU"),
    Option(flags=("--default-address-pool",), key="default-address-pools",
           field="default_address_pools", read=pool, many=True,
           help="Default address pools for networks: base=CIDR,size=BITS"),
    Option(flags=("--dns",), key="dns", field="dns", many=True, help="DNS server to use"),
    Option(flags=("--dns-search",), key="dns-search", field="dns_search", many=True,
           help="DNS search domains to use"),
    Option(flags=("--dns-opt",), key="dns-opts", field="dns_options", many=True,
           help="DNS options to use"),
    Option(flags=("--ip",), key="ip", field="default_publish_address",
           help="Host IP for port publishing from the default bridge network"),
    Option(flags=("--icc",), key="icc", field="icc", read=boolean,
           help="Enable inter-container communication on the default bridge network"),
    Option(flags=("--default-runtime",), key="default-runtime", field="default_runtime",
           help="Default runtime for containers"),
    Option(flags=("--allow-uml-fast",), key="allow-uml-fast", field="allow_uml_fast",
           read=boolean, help="Allow runtime hyper-uml-fast, whose isolation is the jail alone"),
    Option(flags=("--sandbox-memory",), key="sandbox-memory", field="sandbox_memory", read=size,
           help="Memory of a VM whose container has no limit"),
    Option(flags=("--sandbox-overhead",), key="sandbox-overhead", field="sandbox_overhead",
           read=size, help="Memory of a VM beside its container's limit"),
    Option(flags=("--storage-size",), key="storage-size", field="storage_size", read=size,
           help="Size of a container's writable disk"),
    Option(flags=("--kit-dir",), key="kit-dir", field="kit_dir", read=path,
           help="Directory of guest kits"),
    Option(flags=("--uid-base",), key="uid-base", field="uid_base", read=integer,
           help="First uid of sandboxes"),
    Option(flags=("--uid-count",), key="uid-count", field="uid_count", read=integer,
           help="Number of uids for sandboxes"),
    Option(flags=("--boot-timeout",), key="boot-timeout", field="boot_timeout", read=seconds,
           help="Seconds that a VM may take to come up"),
    Option(flags=("--log-driver",), key="log-driver", field="log_driver",
           help="Default driver for container logs"),
    Option(flags=("--log-opt",), key="log-opts", field="log_opts", mapping=True,
           help="Default log driver options for containers"),
    Option(flags=("--label",), key="labels", field="labels", many=True,
           help="Set key=value labels to the daemon"),
    Option(flags=("--log-level", "-l"), key="log-level", field="log_level",
           help='Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")'),
    Option(flags=("--debug", "-D"), key="debug", field="debug", read=boolean,
           help="Enable debug mode"),
    Option(flags=("--metrics-addr",), key="metrics-addr", field="metrics_addr",
           help="Address and port to serve the metrics API on"),
    Option(flags=("--shutdown-timeout",), key="shutdown-timeout", field="shutdown_timeout",
           read=integer, help="Set the default shutdown timeout"),
    Option(flags=("--live-restore",), key="live-restore", field="", read=boolean,
           help="Always on: containers outlive the daemon"),
)  # fmt: skip
_BY_KEY = {option.key: option for option in OPTIONS}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidParameter(f"{message}. See 'hyperd --help'.")


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser; values stay texts until ``settle``."""
    made = _Parser(
        prog="hyperd",
        description="A self-sufficient runtime for containers, one virtual machine each.",
        allow_abbrev=False,
    )
    made.add_argument("--version", "-v", action="version", version=f"Hyper version {__version__}")
    made.add_argument("--config-file", default=None, metavar="PATH", help="Configuration file")
    made.add_argument("--validate", action="store_true", help="Validate configuration and exit")
    for option in OPTIONS:
        kinds: dict[str, Any] = {"dest": option.key, "default": None, "help": option.help}
        if option.many or option.mapping:
            kinds |= {"action": "append", "metavar": "VALUE"}
        elif option.read is boolean:
            kinds |= {"nargs": "?", "const": "true", "metavar": "BOOL"}
        else:
            kinds |= {"metavar": "VALUE"}
        made.add_argument(*option.flags, **kinds)
    return made


def _read(option: Option, value: object) -> Any:
    try:
        if option.mapping:
            return _mapping(value)
        if option.many:
            if not isinstance(value, list):
                raise ValueError("a list is wanted")
            return tuple(option.read(item) for item in value)
        return option.read(value)
    except ValueError as error:
        raise InvalidParameter(f'invalid value {value!r} for "{option.key}": {error}') from error


def _mapping(value: object) -> dict[str, str]:
    if isinstance(value, list):
        pairs = [text(item).partition("=") for item in value]
        for key, equals, _ in pairs:
            if not equals:
                raise ValueError(f"key=value is wanted, not {key}")
        return {key: item for key, _, item in pairs}
    if not isinstance(value, Mapping):
        raise ValueError("an object is wanted")
    return {str(key): text(item) for key, item in value.items()}


def read_file(file: Path, *, needed: bool) -> dict[str, Any]:
    """Return the configuration file's directives. Raises InvalidParameter."""
    import msgspec

    prefix = f"unable to configure the daemon with file {file}"
    try:
        data = file.read_bytes() if file.stat().st_size <= MAX_FILE else b"too large"
    except FileNotFoundError:
        if needed:
            raise InvalidParameter(f"{prefix}: no such file") from None
        return {}
    except OSError as error:
        raise InvalidParameter(f"{prefix}: {error.strerror}") from error
    if not data.strip():
        return {}
    try:
        raw = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise InvalidParameter(f"{prefix}: {error}") from error
    unknown = [key for key in raw if key not in _BY_KEY]
    if unknown:
        raise InvalidParameter(
            f"{prefix}: the following directives don't match any configuration option: "
            + ", ".join(sorted(unknown))
        )
    return raw


def _conflicts(flags: Mapping[str, Any], directives: Mapping[str, Any], file: Path) -> None:
    both = [key for key in directives if flags.get(key) is not None]
    if both:
        said = ", ".join(
            f"{key}: (from flag: {_shown(flags[key])}, from file: {_shown(directives[key])})"
            for key in sorted(both)
        )
        raise InvalidParameter(
            f"unable to configure the daemon with file {file}: the following directives are "
            f"specified both as a flag and in the configuration file: {said}"
        )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return f"[{' '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def settle(options: argparse.Namespace) -> Config:
    """Make the configuration of flags and file. Raises InvalidParameter, one sentence."""
    flags = {option.key: getattr(options, option.key) for option in OPTIONS}
    file = Path(options.config_file).absolute() if options.config_file else DEFAULT_FILE
    directives = read_file(file, needed=options.config_file is not None)
    _conflicts(flags, directives, file)
    given = {**directives, **{key: value for key, value in flags.items() if value is not None}}
    values = {key: _read(_BY_KEY[key], value) for key, value in given.items()}
    if values.pop("live-restore", True) is False:
        raise InvalidParameter("live-restore can't be turned off: containers outlive the daemon")
    fields = {_BY_KEY[key].field: value for key, value in values.items()}
    config = dataclasses.replace(Config(), config_file=file, **fields)
    check(config)
    return _completed(config)


def _completed(config: Config) -> Config:
    insecure = dict.fromkeys((*Config().insecure_registries, *config.insecure_registries))
    return dataclasses.replace(
        config,
        insecure_registries=tuple(insecure),
        tls=config.tls or config.tls_verify,
        log_level="debug" if config.debug else config.log_level,
    )


def check(config: Config) -> None:
    """Refuse what can be seen to be wrong without starting. Raises InvalidParameter."""
    if config.log_level not in ("debug", "info", "warn", "warning", "error", "fatal"):
        raise InvalidParameter(f"invalid logging level: {config.log_level}")
    for label in config.labels:
        if not label.partition("=")[1]:
            raise InvalidParameter(f"bad attribute format: {label}")
    _addresses("dns", config.dns)
    _addresses("ip", (config.default_publish_address,))
    try:
        ipaddress.ip_interface(config.bip)
    except ValueError as error:
        raise InvalidParameter(f'invalid value "{config.bip}" for bip: {error}') from error
    for mirror in config.registry_mirrors:
        if not re.match(r"https?://[^/?#@]+(/[^?#]*)?\Z", mirror):
            raise InvalidParameter(f'invalid mirror: "{mirror}" is not a valid URI')
    if not 68 <= config.mtu <= 65535:
        raise InvalidParameter(f"invalid MTU: {config.mtu}")
    if not 1 <= config.max_concurrent_downloads <= 64:
        raise InvalidParameter(
            f"invalid max concurrent downloads: {config.max_concurrent_downloads}"
        )
    if not 1 <= config.max_concurrent_uploads <= 64:
        raise InvalidParameter(f"invalid max concurrent uploads: {config.max_concurrent_uploads}")
    if config.max_download_attempts < 1:
        raise InvalidParameter(f"invalid max download attempts: {config.max_download_attempts}")
    if config.uid_base < 1000 or config.uid_count < 3:
        raise InvalidParameter("uid-base must be 1000 at least, uid-count 3 at least")
    if not config.hosts:
        raise InvalidParameter("no host to listen on: give -H")


def _addresses(name: str, values: Iterable[str]) -> None:
    for value in values:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise InvalidParameter(f"{value} is not an ip address (option {name})") from None


def parse(arguments: Sequence[str]) -> tuple[Config, bool]:
    """Return the configuration and whether only to validate it. Raises InvalidParameter."""
    options = parser().parse_args(arguments)
    return settle(options), options.validate
