"""Threads that are thrown away: for work that changes the thread that does it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> T:
    """Run *work* in a thread of its own that ends with it; blocking. Raises what *work* raises.

    The thread begins in the namespaces of the caller's.
    """
    result: list[T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body, name="apart", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]
