"""Build hook of the wheel: compiles agent and jail, and puts them into it as hyperstack/_native.

A checkout (an editable install) gets nothing: there ``hyperstack.guest.kit`` runs make by itself.
The wheel is of no Python version, but of one platform.
"""

from __future__ import annotations

import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = ("agent", "jail", "ports")


class NativeBuildHook(BuildHookInterface[Any]):
    """Named by ``tool.hatch.build.targets.wheel.hooks.custom``."""

    PLUGIN_NAME = "custom"
    _work: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the programs for a wheel; *version* is "editable" for a checkout."""
        if version == "editable":
            return
        self._work = tempfile.TemporaryDirectory(prefix="hyperstack-native-")
        build = Path(self._work.name)
        for program in PROGRAMS:
            source = Path(self.root) / "native" / program
            subprocess.run(
                ["make", "--no-print-directory", "-C", source, f"BUILD={build}", build / program],
                check=True,
            )
            build_data["force_include"][str(build / program)] = f"hyperstack/_native/{program}"
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was built, once it is in the wheel."""
        if self._work is not None:
            self._work.cleanup()
