"""What ``labels``, ``env`` and ``tag`` of a container's log options come to.

``tag`` is a Go template over what moby knows of the container (``logger.Info``); its actions are in
``gotemplate.py``.
"""

from __future__ import annotations

import re
import socket
import warnings
from datetime import UTC, datetime

from hyperstack.engine.logging import gotemplate
from hyperstack.engine.pattern import found
from hyperstack.errors import InternalError
from hyperstack.model import Container

OPTIONS = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
DEFAULT = "{{.ID}}"
"""The tag where none is asked for."""


def attributes(container: Container) -> tuple[tuple[str, str], ...]:
    """Return what goes into every record. Raises InternalError in Docker's words."""
    options = container.host.log_config.config
    environment = dict(e.split("=", 1) for e in container.config.env if "=" in e)
    made: dict[str, str] = {}
    for values, names, pattern in (
        (container.config.labels, "labels", "labels-regex"),
        (environment, "env", "env-regex"),
    ):
        for name in options.get(names, "").split(","):
            if name in values:
                made[name] = values[name]
        if options.get(pattern) and (values or pattern == "labels-regex"):
            _check(options[pattern])
            made.update({k: v for k, v in values.items() if _fits(options[pattern], k)})
    return tuple(sorted(made.items()))


_UNSUPPORTED = re.compile(r"\(\?(?:<?[=!]|\(|#|>|P=)")
"""What Go's expressions have not: looking around, conditions, comments, references."""


def _fits(pattern: str, name: str) -> bool:
    fits = found(pattern, name)
    if fits is None:
        raise _refusal("invalid or unsupported Perl syntax", pattern)
    return fits


def _check(pattern: str) -> None:
    """Refuse what is no expression, in Go's words where those are easily told."""
    if (found := _UNSUPPORTED.search(pattern)) is not None:
        raise _refusal("invalid or unsupported Perl syntax", found[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(pattern)
    except re.error as error:
        at = error.pos or 0
        for start, words, part in (
            ("missing ), unterminated", "missing closing )", pattern),
            ("unterminated character set", "missing closing ]", pattern[at:]),
            ("multiple repeat", "invalid nested repetition operator", pattern[at - 1 : at + 1]),
            ("nothing to repeat", "missing argument to repetition operator", pattern[at]),
            ("unbalanced parenthesis", "unexpected )", pattern),
        ):
            if error.msg.startswith(start):
                raise _refusal(words, part) from error
        raise _refusal(error.msg, pattern) from error


def _refusal(words: str, part: str) -> InternalError:
    return InternalError(f"error parsing regexp: {words}: `{part}`")


def tag(container: Container, template: str) -> str:
    """Fill in a tag's template. Raises InternalError in the words of Go."""
    return gotemplate.fill(template, _values(container))


def _values(container: Container) -> dict[str, gotemplate.Value]:
    config = container.config
    created = datetime.fromtimestamp(container.created_ns // 10**9, UTC)
    fraction = f".{container.created_ns % 10**9:09d}".rstrip("0").rstrip(".")
    return {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "ImageID": container.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": container.image_id,
        "ImageName": config.image,
        "DaemonName": "docker",
        "Command": " ".join((container.path, *container.args)),
        "Hostname": socket.gethostname(),
        "Config": dict(container.host.log_config.config),
        "ContainerID": container.id,
        "ContainerName": f"/{container.name}",
        "ContainerEntrypoint": container.path,
        "ContainerArgs": container.args,
        "ContainerImageID": container.image_id,
        "ContainerImageName": config.image,
        "ContainerCreated": f"{created:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC",
        "ContainerEnv": config.env,
        "ContainerLabels": dict(config.labels),
        "LogPath": "",
    }
