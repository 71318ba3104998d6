"""Container images made from Debian's packages: a root file system as a tar for ``docker import``.

The packages and what they depend on are unpacked by mmdebstrap (variant ``extract``: no maintainer
script runs), the users are a fixed few, and busybox is the shell. The mirror is the one that the
host's own sources name. A tar is kept in a cache folder and made once.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hyperstack.errors import HyperError
from hyperstack.guest.kitapt import host_mirror

CACHE = Path(os.environ.get("HYPER_IMAGE_CACHE", "/var/cache/hyper-images"))
FORM = 2
"""Of the tars: another number makes cached ones anew."""
SUITE = "bookworm"
USERS = (
    "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
    "www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
    "postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/sh\n"
    "redis:x:998:998:Redis:/var/lib/redis:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
)
GROUPS = (
    "root:x:0:\ndaemon:x:1:\nadm:x:4:\nwww-data:x:33:\npostgres:x:999:\nredis:x:998:\n"
    "nogroup:x:65534:\n"
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An image: packages, files to add (path to text), folders with owner, ``--change`` lines."""

    packages: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    changes: tuple[str, ...] = ()


RECIPES: Mapping[str, Recipe] = {
    "busybox": Recipe(packages=("busybox-static",), changes=('CMD ["sh"]',)),
    "nginx": Recipe(
        packages=("busybox-static", "nginx-light"),
        files={
            "etc/nginx/nginx.conf": (
                "user www-data;\ndaemon off;\nerror_log /dev/stderr;\n"
                "events {}\nhttp {\n  include mime.types;\n  access_log /dev/stdout;\n"
                "  server { listen 80; listen [::]:80; root /usr/share/nginx/html; }\n}\n"
            ),
            "usr/share/nginx/html/index.html": (
                "<h1>Welcome to nginx</h1><p>in a virtual machine of its own</p>\n"
            ),
        },
        folders={"var/log/nginx": (33, 33), "var/lib/nginx": (33, 33), "run": (0, 0)},
        changes=('CMD ["nginx"]', "EXPOSE 80/tcp", "STOPSIGNAL SIGQUIT"),
    ),
    "redis": Recipe(
        packages=("busybox-static", "redis-server"),
        folders={"data": (998, 998)},
        changes=(
            'CMD ["redis-server", "--protected-mode", "no", "--dir", "/data"]',
            "EXPOSE 6379/tcp",
            "VOLUME /data",
            "WORKDIR /data",
            "USER redis",
        ),
    ),
    "python": Recipe(
        packages=("busybox-static", "python3"),
        changes=('CMD ["python3"]', "ENV PYTHONUNBUFFERED=1"),
    ),
    "postgres": Recipe(
        packages=("busybox-static", "postgresql-15"),
        files={
            "usr/local/bin/start-postgres": (
                "#!/bin/sh\nset -e\n"
                "[ -s $PGDATA/PG_VERSION ] || initdb -D $PGDATA -A trust --no-sync\n"
                "echo 'host all all all trust' >> $PGDATA/pg_hba.conf\n"
                'exec postgres -D $PGDATA -c listen_addresses="*" '
                "-c unix_socket_directories=/tmp\n"
            )
        },
        folders={"var/lib/postgresql": (999, 999), "var/lib/postgresql/data": (999, 999)},
        changes=(
            'CMD ["/usr/local/bin/start-postgres"]',
            "ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin",
            "ENV PGDATA=/var/lib/postgresql/data",
            "EXPOSE 5432/tcp",
            "VOLUME /var/lib/postgresql/data",
            "USER postgres",
        ),
    ),
}


def _entry(name: str, mode: int, owner: tuple[int, int] = (0, 0)) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.mode, (made.uid, made.gid) = mode, owner
    return made


def _additions(recipe: Recipe, applets: Sequence[str], present: set[str], programs: str) -> bytes:
    """Return a tar with users, busybox's names in *programs*, files and folders of the recipe."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder, mode in (("tmp", 0o1777), ("root", 0o700), ("run", 0o755), ("proc", 0o555)):
            if f"./{folder}" not in present and folder not in recipe.folders:
                entry = _entry(f"./{folder}", mode)
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
        texts = {"etc/passwd": USERS, "etc/group": GROUPS, **recipe.files}
        for name, text in texts.items():
            data = text.encode()
            entry = _entry(f"./{name}", 0o755 if text.startswith("#!") else 0o644)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for name in applets:
            if name != "busybox" and not {f"./bin/{name}", f"./usr/bin/{name}"} & present:
                entry = _entry(f"{programs}/{name}", 0o777)
                entry.type, entry.linkname = tarfile.SYMTYPE, "/bin/busybox"
                tar.addfile(entry)
        for folder, owner in recipe.folders.items():
            entry = _entry(f"./{folder}", 0o755, owner)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
    return buffer.getvalue()


def _bootstrap(recipe: Recipe, target: Path) -> None:
    """Unpack the packages into a tar; a failure ends the program with one sentence."""
    try:
        source = f"deb {host_mirror()} {SUITE} main\n"
    except HyperError as error:
        raise SystemExit(error.message) from None
    done = subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=extract",
            f"--include={','.join(recipe.packages)}",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            SUITE,
            str(target),
            "-",
        ],
        input=source,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
        why = (said or ["E: it said nothing"])[0].removeprefix("E: ")
        raise SystemExit(f"{', '.join(recipe.packages)} can't be fetched by mmdebstrap: {why}")


def make(name: str) -> Path:
    """Return the tar of an image's root file system, made if it is not in the cache."""
    recipe = RECIPES[name]
    made_of = (FORM, SUITE, USERS, GROUPS, recipe)
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
    target = CACHE / f"{name}-{digest}.tar"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    partial = CACHE / f".{name}-{digest}.{os.getpid()}.tar"
    joined = partial.with_suffix(".joined")
    try:
        _bootstrap(recipe, partial)
        with tarfile.open(partial) as tar:
            present = set(tar.getnames())
            # Merged /usr: nothing may be put below a name that is a link.
            merged = "./bin" in present and tar.getmember("./bin").issym()
        applets = subprocess.run(
            ["busybox", "--list"], capture_output=True, check=True, text=True
        ).stdout.split()
        programs = "./usr/bin" if merged else "./bin"
        additions = io.BytesIO(_additions(recipe, applets, present, programs))
        _join(partial, additions, joined)
        joined.rename(target)
    finally:
        partial.unlink(missing_ok=True)
        joined.unlink(missing_ok=True)
    return target


def _join(root: Path, additions: io.BytesIO, target: Path) -> None:
    """Write both tars as one, without what the additions replace: Docker takes no path twice."""
    with (
        tarfile.open(root) as old,
        tarfile.open(fileobj=additions) as added,
        tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar,
    ):
        replaced = set(added.getnames())
        for source, left_out in ((old, replaced), (added, set[str]())):
            for entry in source:
                if entry.name not in left_out:
                    tar.addfile(entry, source.extractfile(entry) if entry.isfile() else None)


def main() -> None:
    """Make the named images and print where their tars lie."""
    parser = argparse.ArgumentParser(
        description="make image root file systems from Debian packages"
    )
    parser.add_argument("name", nargs="+", choices=sorted(RECIPES))
    for name in parser.parse_args().name:
        sys.stdout.write(f"{make(name)}\n")


if __name__ == "__main__":
    main()
