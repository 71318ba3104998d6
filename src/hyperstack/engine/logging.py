"""Log drivers: which there are, their options, and where a container's log lies.

Options that only the driver's start can judge are refused then, as dockerd does. What a driver that
cannot be read gets is kept in a cache beside, for ``docker logs`` (Docker's dual logging).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from hyperstack.engine import logtag, syslog
from hyperstack.engine.core import Core
from hyperstack.engine.logfile import LogSettings, LogWriter
from hyperstack.engine.logread import LogReader
from hyperstack.errors import HyperError, InternalError, InvalidParameter, NotImplementedHere
from hyperstack.model import Container, LogConfig, LogQuery, LogRecord

DRIVERS = ("json-file", "local", "none", "journald", "syslog")
_NOT_HERE = ("awslogs", "fluentd", "gelf", "splunk")
_ANY = frozenset({"mode", "max-buffer-size"})
_CACHE = frozenset({"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_FILES = frozenset({"max-size", "max-file", "compress"})
_TAGS = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
_OPTIONS = {
    "json-file": _FILES | _TAGS,
    "local": _FILES,
    "journald": _TAGS,
    "syslog": syslog.OPTIONS,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?\Z", re.IGNORECASE)
UNASKED = 512 << 20
"""Bytes of each of two files of a log that nobody has bounded: a guest may not fill the host."""
_JOURNAL = Path("/run/systemd/journal/socket")
FAILED = "failed to create task for container: failed to initialize logging driver: "


def parse_size(text: str) -> int:
    """Return bytes of a size like ``10m``. Raises InvalidParameter."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def check(config: LogConfig) -> None:
    """Raise InvalidParameter in Docker's words for a driver or option that is not known."""
    driver = config.type or "json-file"
    if driver in _NOT_HERE:
        raise NotImplementedHere(
            f"log driver {driver} is not supported; use json-file, local or syslog"
        )
    if driver not in DRIVERS:
        raise InvalidParameter(
            f'error looking up logging plugin {driver}: plugin "{driver}" not found'
        )
    _check_mode(config.config)
    _flag(config.config, "cache-disabled", "invalid value for option cache-disabled: {}")
    if driver == "none":
        return
    for key in config.config:
        if key not in _OPTIONS[driver] | _ANY | _CACHE:
            place = f"log driver {driver}" if driver == "local" else f"{driver} log driver"
            raise InvalidParameter(f"unknown log opt '{key}' for {place}")
    if driver == "syslog":
        syslog.check(config.config)


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


def _flag(options: Mapping[str, str], key: str, words: str, default: bool = False) -> bool:
    text = options.get(key, "").lower()
    if not text:
        return default
    if text not in ("1", "t", "true", "0", "f", "false"):
        raise InvalidParameter(words.format(options[key]))
    return text in ("1", "t", "true")


_Kept = tuple[int, int, bool]
"""Bytes of a file (0: no bound), how many files there are, whether old ones are compressed."""


def settle(config: LogConfig) -> _Kept:
    """Return how the files of a driver are kept. Raises HyperError in the words of its start."""
    driver = config.type or "json-file"
    if driver == "json-file":
        try:
            return _json_files(config.config)
        except InvalidParameter as error:
            raise InternalError(error.message) from error
    if driver == "local":
        return _local_files(config.config)
    return _cache_files(config.config)


def _json_files(options: Mapping[str, str]) -> _Kept:
    size = parse_size(options["max-size"]) if "max-size" in options else 0
    if not size and "max-size" in options:
        raise InvalidParameter("max-size must be a positive number")
    files = _integer(options.get("max-file", "1"))
    if files < 1:
        raise InvalidParameter("max-file cannot be less than 1")
    compress = _boolean(options.get("compress", "false"))
    if compress and (files == 1 or not size):
        raise InvalidParameter(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        )
    if not size:
        return UNASKED, 2, False
    return size, files, compress


def _local_files(options: Mapping[str, str]) -> _Kept:
    found: list[int] = []
    for key, read, default in (
        ("max-size", parse_size, "20m"),
        ("max-file", _integer, "5"),
    ):
        text = options.get(key, default)
        try:
            found.append(read(text))
        except InvalidParameter as error:
            words = f"invalid value for {key}: {text}: {error.message}"
            raise InvalidParameter(words) from error
    try:
        compress = _boolean(options.get("compress", "true"))
    except InvalidParameter as error:
        words = f"error reading compress log option: {error.message}"
        raise InvalidParameter(words) from error
    size, files = found
    if compress and files <= 1:
        raise InvalidParameter("compression cannot be enabled when max file count is 1")
    return size, max(1, files), compress


def _cache_files(options: Mapping[str, str]) -> _Kept:
    """Return how a cache is kept; as with Docker, what makes no sense is what was not said."""
    own = {key.removeprefix("cache-"): value for key, value in options.items() if key in _CACHE}
    with contextlib.suppress(InvalidParameter):
        return _local_files(own)
    return _local_files({})


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax') from None


def _boolean(text: str) -> bool:
    return _flag({"": text}, "", f'strconv.ParseBool: parsing "{text}": invalid syntax')


def log_path(core: Core, container: Container) -> Path | None:
    """Return where the container's newest log file lies; None if nothing is kept."""
    config = container.host.log_config
    driver = config.type or "json-file"
    folder = core.container_dir(container.id)
    if driver == "json-file":
        return folder / f"{container.id}-json.log"
    if driver == "local":
        return folder / "local-logs" / "container.log"
    if driver == "none" or _flag(config.config, "cache-disabled", ""):
        return None
    return folder / "cached-logs" / "container-cached.log"


async def begin_log(core: Core, container: Container) -> LogWriter:
    """Open the log of a run that begins, connected to where it goes. Raises HyperError."""
    sender: syslog.Sender | None = None
    try:
        if container.host.log_config.type == "journald":
            _refuse_journal()
        sender = _sender(container)
        if sender is not None:
            await sender.connect()
        return _open(core, container, sender, fresh=True)
    except BaseException as error:
        if sender is not None:
            sender.close()
        if not isinstance(error, HyperError):
            raise
        kind = InvalidParameter if isinstance(error, InvalidParameter) and sender else InternalError
        raise kind(FAILED + error.message) from error


def _refuse_journal() -> None:
    if not _JOURNAL.exists():
        raise InternalError("journald is not enabled on this host")
    raise InternalError("the journal can't be written to; use json-file, local or syslog")


def resume_log(core: Core, container: Container) -> LogWriter:
    """Open the log of an earlier daemon's run, which goes on where its record ends."""
    return _open(core, container, _sender(container), fresh=False)


def _sender(container: Container) -> syslog.Sender | None:
    config = container.host.log_config
    options = config.config
    if config.type != "syslog":
        return None
    bound = syslog.WAITING
    if "max-buffer-size" in options:
        bound = parse_size(options["max-buffer-size"])
    tag = logtag.tag(container, options.get("tag") or "{{.ID}}")
    blocking = options.get("mode") != "non-blocking"
    return syslog.Sender(options, tag, blocking=blocking, bound=bound)


def _open(
    core: Core, container: Container, sender: syslog.Sender | None, *, fresh: bool
) -> LogWriter:
    options = container.host.log_config.config
    size, files, compress = settle(container.host.log_config)
    path = log_path(core, container)
    if path is not None and path.parent != core.container_dir(container.id):
        with contextlib.suppress(OSError):  # opening the log says what is wrong
            path.parent.mkdir(mode=0o710, exist_ok=True)
    found = dict(logtag.attributes(container))
    if sender is None and "tag" in options:
        found["tag"] = logtag.tag(container, options["tag"])
    settings = LogSettings(
        path=path,
        state=core.container_dir(container.id) / "log.state",
        max_size=size,
        max_files=files,
        compress=compress,
        attributes=tuple(sorted(found.items())),
    )
    generation = container.generation + (1 if fresh else 0)
    return LogWriter(settings, generation, fresh=fresh, sender=sender)


def reader_for(core: Core, container: Container, query: LogQuery) -> AsyncIterator[LogRecord]:
    """Return the records of a container's log.

    Raises NotImplementedHere if none is kept, HyperError if its driver could not have started.
    """
    path = log_path(core, container)
    if path is None:
        raise NotImplementedHere("configured logging driver does not support reading")
    _check_start(container)
    live = core.live.get(container.id)
    return LogReader(path, query, live.log if live is not None else None).records()


def _check_start(container: Container) -> None:
    settle(container.host.log_config)
    logtag.attributes(container)
    if template := container.host.log_config.config.get("tag"):
        logtag.tag(container, template)
