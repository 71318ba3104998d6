"""What ``labels``, ``env`` and ``tag`` of a container's log options come to.

``tag`` is a Go template over few fields (moby, ``daemon/logger/loggerutils/log_tag.go``); here a
field stands by itself between its braces, and what else a template may do is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hyperstack.errors import InternalError
from hyperstack.model import Container

OPTIONS = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
DEFAULT = "{{.ID}}"
"""The tag where none is asked for."""
_ACTION = re.compile(r"{{-?\s*(.*?)\s*-?}}", re.DOTALL)
_FIELD = re.compile(r"\.(\w+)\Z")


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
            matcher = _compiled(options[pattern])
            made.update({k: v for k, v in values.items() if matcher.search(k)})
    return tuple(sorted(made.items()))


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        words = "missing closing )" if "unterminated subpattern" in error.msg else error.msg
        raise InternalError(f"error parsing regexp: {words}: `{pattern}`") from error


def tag(container: Container, template: str) -> str:
    """Fill in the fields of a tag's template. Raises InternalError in the words of Go."""
    config = container.config
    fields = {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "ImageID": container.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": container.image_id,
        "ImageName": config.image,
        "DaemonName": "docker",
        "Command": " ".join((container.path, *container.args)),
        "ContainerID": container.id,
        "ContainerName": f"/{container.name}",
        "ContainerImageID": container.image_id,
        "ContainerImageName": config.image,
    }
    if template.rfind("{{") > template.rfind("}}"):
        raise InternalError("template: log-tag:1: unclosed action")
    return _ACTION.sub(lambda found: _value(found, fields), template)


def _value(found: re.Match[str], fields: Mapping[str, str]) -> str:
    field = _FIELD.match(found[1])
    if field is None:
        word = found[1].split(" ")[0]
        raise InternalError(f'template: log-tag:1: function "{word}" not defined')
    if field[1] not in fields:
        raise InternalError(
            f'template: log-tag:1:{found.start(1)}: executing "log-tag" at <{found[1]}>: can\'t '
            f"evaluate field {field[1]} in type *logger.Info"
        )
    return fields[field[1]]
