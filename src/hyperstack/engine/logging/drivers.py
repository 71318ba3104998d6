"""Log drivers: which there are, their options, and where a container's log lies.

Options that only the driver's start can judge are refused then, as dockerd does. What a driver that
cannot be read gets is kept in a cache beside, for ``docker logs`` (Docker's dual logging).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hyperstack.engine.core import Core
from hyperstack.engine.logging import fluentd, gelf, journald, syslog, tagging
from hyperstack.engine.logging.kept import CACHE, flag, parse_size, settle
from hyperstack.engine.logging.logfile import LogSettings, LogWriter
from hyperstack.engine.logging.reading import LogReader
from hyperstack.engine.logging.sending import Sender, Terms
from hyperstack.errors import HyperError, InternalError, InvalidParameter, NotImplementedHere
from hyperstack.model import Container, LogConfig, LogQuery, LogRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Driver:
    """A driver: its own options, what else of them is checked at create, where lines go."""

    options: frozenset[str] = frozenset()
    check: Callable[[Mapping[str, str]], None] | None = None
    sender: Callable[[Container, Terms], Sender] | None = None
    unknown: str = "unknown log opt '{}' for {} log driver"


_FILES = frozenset({"max-size", "max-file", "compress"})
_DRIVERS = {
    "fluentd": _Driver(options=fluentd.OPTIONS, check=fluentd.check, sender=fluentd.sender),
    "gelf": _Driver(
        options=gelf.OPTIONS,
        check=gelf.check,
        sender=gelf.sender,
        unknown='unknown log opt "{}" for {} log driver',
    ),
    "journald": _Driver(options=tagging.OPTIONS, sender=journald.sender),
    "json-file": _Driver(options=_FILES | tagging.OPTIONS),
    "local": _Driver(options=_FILES, unknown="unknown log opt '{}' for log driver {}"),
    "none": _Driver(),
    "syslog": _Driver(options=syslog.OPTIONS, check=syslog.check, sender=syslog.sender),
}
DRIVERS = tuple(_DRIVERS)
_NOT_HERE = ("awslogs", "gcplogs", "splunk")
_ANY = frozenset({"mode", "max-buffer-size"})
FAILED = "failed to create task for container: failed to initialize logging driver: "


def check(config: LogConfig) -> None:
    """Raise InvalidParameter in Docker's words for a driver or option that is not known."""
    name = config.type or "json-file"
    if name in _NOT_HERE:
        raise NotImplementedHere(f"log driver {name} is not supported; use {', '.join(DRIVERS)}")
    driver = _DRIVERS.get(name)
    if driver is None:
        raise InvalidParameter(f'error looking up logging plugin {name}: plugin "{name}" not found')
    if name == "none":
        return  # whatever its options are
    _check_mode(config.config)
    flag(config.config, "cache-disabled", "invalid value for option cache-disabled: ")
    for key in config.config:
        if key not in driver.options | _ANY | CACHE:
            raise InvalidParameter(driver.unknown.format(key, name))
    if driver.check is not None:
        driver.check(config.config)


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" not in options:
        return
    if mode != "non-blocking":
        raise InvalidParameter(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        )
    try:
        parse_size(options["max-buffer-size"])
    except InvalidParameter as error:
        raise InvalidParameter(f"error parsing option max-buffer-size: {error.message}") from error


def log_path(core: Core, container: Container) -> Path | None:
    """Return where the container's newest log file lies; None if nothing is kept."""
    config = container.host.log_config
    driver = config.type or "json-file"
    folder = core.container_dir(container.id)
    if driver == "json-file":
        return folder / f"{container.id}-json.log"
    if driver == "local":
        return folder / "local-logs" / "container.log"
    # Docker reads the journal itself: its copy here is no cache that could be disabled.
    if driver == "none" or (driver != "journald" and flag(config.config, "cache-disabled", "")):
        return None
    return folder / "cached-logs" / "container-cached.log"


async def begin_log(core: Core, container: Container) -> LogWriter:
    """Open the log of a run that begins, connected to where it goes. Raises HyperError."""
    sender: Sender | None = None
    try:
        sender = _sender(container)
        if sender is not None and not sender.lazy:
            await sender.connect()
        return LogWriter(
            _settings(core, container), container.generation + 1, fresh=True, sender=sender
        )
    except BaseException as error:
        if sender is not None:
            sender.close()
        if not isinstance(error, HyperError):
            raise
        # dockerd goes by these words, wherever they come from.
        missing = "no such file or directory" in error.message
        kind = InvalidParameter if missing else InternalError
        raise kind(FAILED + error.message) from error


def resume_log(core: Core, container: Container) -> LogWriter:
    """Open the log of an earlier daemon's run, which goes on where its record ends.

    Never fails: a container is more than its log.
    """
    sender: Sender | None = None
    try:
        sender = _sender(container)
        settings = _settings(core, container)
    except HyperError as error:
        log.error("the log of %s can't go on: %s", container.name, error)
        settings = LogSettings(path=None, state=core.container_dir(container.id) / "log.state")
    return LogWriter(settings, container.generation, fresh=False, sender=sender)


def _sender(container: Container) -> Sender | None:
    config = container.host.log_config
    options = config.config
    driver = _DRIVERS.get(config.type)
    if driver is None or driver.sender is None:
        return None
    terms = Terms(blocking=options.get("mode") != "non-blocking")
    if "max-buffer-size" in options:
        terms = Terms(blocking=terms.blocking, bound=parse_size(options["max-buffer-size"]))
    return driver.sender(container, terms)


def _settings(core: Core, container: Container) -> LogSettings:
    size, files, compress = settle(container.host.log_config)
    path = log_path(core, container)
    if path is not None and path.parent != core.container_dir(container.id):
        with contextlib.suppress(OSError):  # opening the log says what is wrong
            path.parent.mkdir(mode=0o710, exist_ok=True)
    return LogSettings(
        path=path,
        state=core.container_dir(container.id) / "log.state",
        max_size=size,
        max_files=files,
        compress=compress,
        attributes=tuple(sorted(_attributes(container).items())),
    )


def _attributes(container: Container) -> dict[str, str]:
    config = container.host.log_config
    if config.type == "journald":
        return journald.attributes(container)
    found = dict(tagging.attributes(container))
    if config.type in ("", "json-file") and "tag" in config.config:
        found["tag"] = tagging.tag(container, config.config["tag"])
    return found


def reader_for(core: Core, container: Container, query: LogQuery) -> AsyncIterator[LogRecord]:
    """Return the records of a container's log.

    Raises NotImplementedHere if none is kept, HyperError if its driver could not have started.
    """
    path = log_path(core, container)
    if path is None:
        raise NotImplementedHere("configured logging driver does not support reading")
    _check_start(container)
    live = core.live.get(container.id)
    timed = container.host.log_config.type == "journald"
    writer = live.log if live is not None else None
    return LogReader(path, query, writer, timed=timed).records()


def _check_start(container: Container) -> None:
    settle(container.host.log_config)
    tagging.attributes(container)
    if template := container.host.log_config.config.get("tag"):
        tagging.tag(container, template)
