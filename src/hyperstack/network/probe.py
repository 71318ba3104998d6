"""Whether this kernel can make the links that networks need: tried in a namespace of its own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hyperstack.network import rtnetlink
from hyperstack.platform import netns

_MAC = "02:42:00:00:00:01"


def can_make_links() -> tuple[str, ...]:
    """Return the kinds of links that can't be made, none if all is well; blocking.

    Raises InternalError if not even a namespace can be made.
    """
    with tempfile.TemporaryDirectory(prefix="hyper-") as folder:
        path = Path(folder) / "probe"
        netns.create(path)
        try:
            return netns.in_netns(path, _missing)
        finally:
            netns.delete(path)


def _missing() -> tuple[str, ...]:
    missing: list[str] = []
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with rtnetlink.Rtnetlink() as kernel:
            try:
                kernel.do(rtnetlink.bridge_new("probe0", _MAC, 1500))
            except OSError:
                return ("bridge",)
            bridge = kernel.link("probe0")
            assert bridge is not None
            try:
                kernel.do(rtnetlink.veth_new("probe1", "probe2", own, bridge.index, 1500))
            except OSError:
                missing.append("veth")
    finally:
        os.close(own)
    return tuple(missing)
