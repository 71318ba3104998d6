"""``logs``: what a container wrote, from its log driver's files, followed while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator

from hyperstack.engine.core import Core
from hyperstack.engine.logging.drivers import reader_for
from hyperstack.errors import InvalidParameter
from hyperstack.model import Container, LogQuery, LogRecord


async def open_logs(core: Core, container: Container, query: LogQuery) -> AsyncIterator[LogRecord]:
    """Return the records that *query* asks for; with ``follow`` until the container ends.

    Raises InvalidParameter when no stream is chosen or the log driver can't be read.
    """
    if not (query.stdout or query.stderr):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    return reader_for(core, container, query)
