"""Log drivers: which there are, their options, and where a container's log lies."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from hyperstack.engine.core import Core
from hyperstack.engine.logfile import LogSettings, LogWriter
from hyperstack.engine.logread import LogReader
from hyperstack.errors import InvalidParameter, NotImplementedHere
from hyperstack.model import Container, LogConfig, LogQuery, LogRecord

DRIVERS = ("json-file", "local", "none")
_NOT_HERE = (
    "awslogs",
    "etwlogs",
    "fluentd",
    "gcplogs",
    "gelf",
    "journald",
    "splunk",
    "syslog",
)
_SHARED = {"max-size", "max-file", "compress", "mode", "max-buffer-size"}
_OPTIONS = {
    "json-file": _SHARED | {"labels", "labels-regex", "env", "env-regex", "tag"},
    "local": _SHARED,
    "none": {"mode", "max-buffer-size"},
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?\Z", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return bytes of a size like ``10m``; -1 is no bound. Raises InvalidParameter."""
    if text == "-1":
        return 0
    match = _SIZE.match(text.strip())
    if match is None:
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def check(config: LogConfig) -> None:
    """Raise InvalidParameter in Docker's words unless driver and options can be used."""
    driver = config.type or "json-file"
    if driver in _NOT_HERE:
        raise NotImplementedHere(f"log driver {driver} is not supported; use json-file or local")
    if driver not in DRIVERS:
        raise InvalidParameter(
            f'error looking up logging plugin {driver}: plugin "{driver}" not found'
        )
    options = config.config
    for key in options:
        if key not in _OPTIONS[driver]:
            raise InvalidParameter(f"unknown log opt '{key}' for {driver} log driver")
    try:
        settle(config)
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to initialize logging driver: {error.message}") from error


def settle(config: LogConfig) -> tuple[int, int, bool]:
    """Return bytes per file, number of files, compression. Raises InvalidParameter."""
    driver = config.type or "json-file"
    options = config.config
    local = driver == "local"
    size = parse_size(options.get("max-size", "20m" if local else "-1"))
    files = _integer(options.get("max-file", "5" if local else "1"))
    if files < 1:
        raise InvalidParameter("max-file cannot be less than 1")
    if not size and files > 1 and not local and "max-file" in options:
        raise InvalidParameter("max-size should be set when max-file is set")
    compress = _boolean(options.get("compress", "true" if local and files > 1 else "false"))
    if compress and (files == 1 or not size) and "compress" in options:
        raise InvalidParameter(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        )
    return size, files, compress


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax') from None


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidParameter(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def log_path(core: Core, container: Container) -> Path | None:
    """Return where the container's newest log file lies; None for driver ``none``."""
    driver = container.host.log_config.type or "json-file"
    folder = core.container_dir(container.id)
    if driver == "none":
        return None
    if driver == "local":
        return folder / "local-logs" / "container.log"
    return folder / f"{container.id}-json.log"


def _attributes(container: Container, options: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return what ``labels``, ``env`` and ``tag`` put into every record."""
    environment = dict(e.split("=", 1) for e in container.config.env if "=" in e)
    made: dict[str, str] = {}
    for values, names, pattern in (
        (container.config.labels, "labels", "labels-regex"),
        (environment, "env", "env-regex"),
    ):
        for name in options.get(names, "").split(","):
            if name in values:
                made[name] = values[name]
        if options.get(pattern):
            matcher = re.compile(options[pattern])
            made.update({k: v for k, v in values.items() if matcher.search(k)})
    if "tag" in options:
        made["tag"] = _tag(options["tag"], container)
    return tuple(sorted(made.items()))


def _tag(template: str, container: Container) -> str:
    """Fill the template fields that Docker offers for tags."""
    fields = {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "ImageID": container.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": container.image_id,
        "ImageName": container.config.image,
        "DaemonName": "docker",
    }
    return re.sub(r"{{\s*\.(\w+)\s*}}", lambda m: fields.get(m[1], m[0]), template)


def open_log(core: Core, container: Container, *, fresh: bool) -> LogWriter:
    """Open the container's log for one run.

    *fresh* for a run that begins; otherwise the run of an earlier daemon goes on where its record
    ends. Raises InternalError if the disk refuses.
    """
    options = container.host.log_config.config
    size, files, compress = settle(container.host.log_config)
    path = log_path(core, container)
    if path is not None and path.parent.name == "local-logs":
        path.parent.mkdir(mode=0o710, exist_ok=True)
    settings = LogSettings(
        path=path,
        state=core.container_dir(container.id) / "log.state",
        max_size=size,
        max_files=files,
        compress=compress,
        attributes=_attributes(container, options),
    )
    generation = container.generation + (1 if fresh else 0)
    return LogWriter(settings, generation, fresh=fresh)


def reader_for(core: Core, container: Container, query: LogQuery) -> AsyncIterator[LogRecord]:
    """Return the records of a container's log. Raises NotImplementedHere if none is kept."""
    path = log_path(core, container)
    if path is None:
        raise NotImplementedHere("configured logging driver does not support reading")
    live = core.live.get(container.id)
    return LogReader(path, query, live.log if live is not None else None).records()
