"""Builds the guest kit unless the one that is there is what this checkout would build.

``hyper kit build`` asks the archive each time and takes what is newest. Here a kit will do as long
as it is whole, has the agent and the jail as they are built now, and was made by the same code.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import shutil
import sys
from pathlib import Path

from hyperstack.errors import HyperError, InternalError
from hyperstack.guest import kit, kitbuild

STAMP = ".made-by"
"""Beside the kits: the version of the one that was built here last, and the code that did it."""


def code() -> str:
    """Return a digest of the modules that make kits."""
    folder = Path(kit.__file__).parent
    sources = sorted([*folder.glob("kit*.py"), folder / "initramfs.py", folder / "ext4.py"])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def outdated(kit_dir: Path) -> str:
    """Say why a kit has to be built; nothing if the current one will do."""
    try:
        current = kit.Kit.load(kit_dir / "current")
    except HyperError as error:
        return error.message
    for name, place in (("jail", "jail"), ("agent", "guest/agent")):
        if kit.sha256(kit.native_binary(name)) != kit.sha256(current.path / place):
            return f"the {name} has changed"
    try:
        made = (kit_dir / STAMP).read_text()
    except OSError:
        made = ""
    return "" if made == f"{current.version} {code()}\n" else "the code that makes it has changed"


def provide(kit_dir: Path) -> None:
    """Build a kit if one is needed. Raises HyperError."""
    why = outdated(kit_dir)
    if not why:
        return
    sys.stdout.write(f"Building the guest kit ({why.partition(';')[0]}) ...\n")
    sys.stdout.flush()
    try:
        built = asyncio.run(kitbuild.build(kit_dir, say=_say))
    except HyperError as error:
        if "No space left on device" not in error.message:
            raise
        free = shutil.disk_usage(kit_dir).free >> 20
        raise InternalError(
            f"{free} MiB are not enough room for the guest kit in {kit_dir}"
        ) from error
    (kit_dir / STAMP).write_text(f"{built.version} {code()}\n")


def _say(text: str) -> None:
    sys.stdout.write(f"    {text}\n")
    sys.stdout.flush()


def main() -> int:
    """Provide the kit; a failure is one sentence."""
    parser = argparse.ArgumentParser(description="build the guest kit unless it is up to date")
    parser.add_argument("kit_dir", type=Path)
    try:
        provide(parser.parse_args().kit_dir)
    except HyperError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
