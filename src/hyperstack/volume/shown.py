"""What the share of a sandbox shows: a folder of its server's jail, and the host's files in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyperstack.platform.jail import Bind

ROOT = "/share"
"""The folder that virtiofsd serves."""


@dataclass(frozen=True, kw_only=True)
class ShareMount:
    """A host directory or file that the guest finds as ``/share/NAME``."""

    name: str
    source: Path
    read_only: bool
    recursive: bool = True
    """With the mounts below *source*."""
    read_only_below: bool = True
    """Those are read-only too, if this one is."""
    beneath: Path | None = None
    """A volume that *source* lies in: no link that a guest puts into the path leads out of it."""

    @property
    def bind(self) -> Bind:
        """How it shows up in the jail of its server."""
        return Bind(
            source=self.source,
            target=f"{ROOT}/{self.name}",
            read_only=self.read_only,
            recursive=self.recursive,
            read_only_below=self.read_only_below,
        )
