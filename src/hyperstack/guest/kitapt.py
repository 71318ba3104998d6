"""The kit's packages: Debian's signed archive through an apt state of our own.

The host's sources name the mirror and are otherwise left alone, as are its packages: lists, cache
and status live in a temporary folder. Signatures are checked against Debian's archive keyring and
nothing unsigned is taken (apt-secure(8)); hashes are those of the signed index. One whose
Valid-Until has passed is taken for a while, which is said: mirrors lag, and an older suite would be
no newer. The host's apt.conf counts (proxies), but not its hooks.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hyperstack.errors import InternalError, Unavailable
from hyperstack.guest.kit import Package, sha256
from hyperstack.platform import process

SUITES = ("forky", "trixie", "bookworm")
"""Where a package is looked for, newest first."""
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
FETCH_TIMEOUT = 600.0
MAX_PACKAGES = 200
MOST_AGE = timedelta(days=90)
"""How old an index that has expired may be."""
MAX_RELEASE = 1 << 20
_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+\S+\s+.*\bmain\b")
_MIRROR = re.compile(r"^[a-z+]+:\S*/debian/?$")
_HOOKS = (
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
)


def host_mirror(etc: Path = Path("/etc/apt")) -> str:
    """Return the Debian mirror that the host's own sources name first. Raises Unavailable."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for path in files:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        found = _deb822(text) if path.suffix == ".sources" else _classic(text)
        for uri in found:
            if _MIRROR.match(uri):
                return uri.rstrip("/")
    raise Unavailable(f"no Debian mirror is named by the sources in {etc}; name one with --mirror")


def _classic(text: str) -> list[str]:
    """Return the URIs of a sources.list(5) in its one-line form."""
    return [match.group(1) for line in text.splitlines() if (match := _ONE_LINE.match(line))]


def _deb822(text: str) -> list[str]:
    """Return the URIs of the enabled stanzas of a deb822 source file."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes") != "no":
            found += fields.get("uris", "").split()
    return found


def _fields(stanza: str) -> dict[str, str]:
    """Read one deb822 stanza; names in lower case, comments left out, lines joined."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def keyring() -> Path:
    """Return Debian's archive keyring. Raises Unavailable if the host has none."""
    for path in KEYRINGS:
        if path.is_file():
            return path
    raise Unavailable(
        "Debian's archive keyring is missing; install the package debian-archive-keyring"
    )


@dataclass(kw_only=True)
class Suite:
    """One suite of the archive: its index in *folder*, and what was unpacked of it."""

    name: str
    folder: Path
    mirror: str
    used: dict[str, Package] = field(default_factory=dict)
    """The packages of which something is in the kit."""
    failure: str = ""
    """Why the index can't be used, in apt's words."""
    expired: datetime | None = None
    """When an index was made whose Valid-Until has passed."""
    _trees: dict[str, Path] = field(default_factory=dict)
    _index: dict[str, str] = field(default_factory=dict)

    async def update(self) -> bool:
        """Fetch the signed index; tell whether there is one that can be trusted."""
        for name in ("lists/partial", "cache/archives/partial", "debs", "trees"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        options = f"signed-by={keyring()} allow-insecure=no"
        (self.folder / "sources.list").write_text(
            f"deb [{options}] {self.mirror} {self.name} main\n"
        )
        (self.folder / "apt.conf").write_text(self._configuration(check="true"))
        await self._fetch_index()
        if "is expired" in self.failure:
            await self._take_expired()
        return not self.failure

    async def _fetch_index(self) -> None:
        done = await self._apt("apt-get", "-qq", "--error-on=any", "update", check=False)
        words = done.stderr.decode(errors="replace").splitlines() or [f"status {done.returncode}"]
        self.failure = words[0].strip()[:300] if done.returncode else ""

    async def _take_expired(self) -> None:
        (self.folder / "apt.conf").write_text(self._configuration(check="false"))
        await self._fetch_index()
        if self.failure:
            return
        made = _date(self.folder / "lists")
        if made is None or datetime.now(UTC) - made > MOST_AGE:
            when = "an unknown day" if made is None else f"{made:%Y-%m-%d}"
            self.failure = f"its index has expired and is of {when}, over {MOST_AGE.days} days ago"
        self.expired = made

    def _configuration(self, *, check: str) -> str:
        at = self.folder
        lines = [
            f'Dir::Etc::sourcelist "{at}/sources.list";',
            'Dir::Etc::sourceparts "/dev/null";',
            'Dir::Etc::preferences "/dev/null";',
            'Dir::Etc::preferencesparts "/dev/null";',
            f'Dir::State::lists "{at}/lists";',
            f'Dir::State::status "{at}/status";',
            f'Dir::Cache "{at}/cache";',
            'APT::Sandbox::User "root";',
            'APT::Get::AllowUnauthenticated "false";',
            'Acquire::AllowInsecureRepositories "false";',
            'Acquire::AllowWeakRepositories "false";',
            f'Acquire::Check-Valid-Until "{check}";',
            'Acquire::Check-Date "true";',
            'Acquire::Languages "none";',
            *(f"#clear {name};" for name in _HOOKS),
        ]
        return "\n".join(lines) + "\n"

    async def _apt(
        self, *argv: str, cwd: Path | None = None, check: bool = True
    ) -> process.Completed:
        program, *rest = argv
        return await process.run(
            [program, "-c", self.folder / "apt.conf", *rest],
            timeout=FETCH_TIMEOUT,
            cwd=cwd,
            check=check,
        )

    async def record(self, package: str) -> dict[str, str]:
        """Return a package's fields in the index, names in lower case; empty if it has none."""
        if not self._index:
            done = await self._apt("apt-cache", "dumpavail")
            for stanza in done.stdout.decode(errors="replace").split("\n\n"):
                self._index.setdefault(stanza.removeprefix("Package: ").split("\n", 1)[0], stanza)
        return _fields(self._index.get(package, ""))

    async def version(self, package: str) -> str | None:
        """Return the version that the suite has of a package, or None."""
        return (await self.record(package)).get("version")

    async def depends(self, package: str) -> tuple[str, ...]:
        """Return the names in a package's Depends and Pre-Depends, of alternatives the first."""
        record = await self.record(package)
        text = f"{record.get('pre-depends', '')},{record.get('depends', '')}"
        names = (re.split(r"[\s(|:]", part.strip(), maxsplit=1)[0] for part in text.split(","))
        return tuple(name for name in names if name)

    async def closure(self, package: str, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        """Return *package* and what it depends on, nearest first, as far as *wanted* says."""
        found = [package]
        for name in found:
            for dependency in await self.depends(name):
                if dependency not in found and wanted(dependency):
                    found.append(dependency)
            if len(found) > MAX_PACKAGES:
                raise InternalError(f"package {package} depends on too much")
        return tuple([name for name in found if await self.version(name)])

    async def unpack(self, *names: str) -> tuple[Path, ...]:
        """Download packages, check and unpack them; return their folders. Raises InternalError."""
        missing = [name for name in dict.fromkeys(names) if name not in self._trees]
        debs = self.folder / "debs"
        if missing:
            asked = [f"{name}={await self.version(name)}" for name in missing]
            await self._apt("apt-get", "-qq", "download", *asked, cwd=debs)
        for name in missing:
            (archive,) = debs.glob(f"{name}_*.deb")
            record = await self.record(name)
            if sha256(archive) != record.get("sha256"):
                raise InternalError(f"package {name} is not what the signed index says")
            tree = self.folder / "trees" / name
            await process.run(["dpkg-deb", "-x", archive, tree], timeout=FETCH_TIMEOUT)
            archive.unlink()
            self._trees[name] = tree
        return tuple(self._trees[name] for name in names)

    async def use(self, package: str) -> Path:
        """Unpack a package that goes into the kit; return its folder. Raises InternalError."""
        (tree,) = await self.unpack(package)
        record = await self.record(package)
        self.used[package] = Package(
            name=package, version=record["version"], suite=self.name, sha256=record["sha256"]
        )
        return tree


class Archive:
    """The suites of one mirror, each opened when it is first asked.

    *say* gets a line when an index is taken that has expired.
    """

    def __init__(
        self,
        folder: Path,
        mirror: str,
        suites: Iterable[str] = SUITES,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._mirror = mirror
        self._say = say
        self._names = tuple(suites)
        self._open: dict[str, Suite] = {}

    async def suite_with(self, package: str, at_least: tuple[int, ...] = ()) -> Suite:
        """Return the newest suite that has the package, in that version. Raises Unavailable."""
        for name in self._names:
            suite = await self._suite(name)
            version = None if suite.failure else await suite.version(package)
            if version and _numbers(version) >= at_least:
                return suite
        least = f" {'.'.join(map(str, at_least))} or later" if at_least else ""
        failures = [f"{s.name}: {s.failure}" for s in self._open.values() if s.failure]
        raise Unavailable(
            f"{self._mirror} has no {package}{least} in a suite whose signature is good "
            f"({', '.join(self._names)})" + "".join(f"; {failure}" for failure in failures)
        )

    async def _suite(self, name: str) -> Suite:
        if name not in self._open:
            suite = Suite(name=name, folder=self._folder / name, mirror=self._mirror)
            await suite.update()
            if suite.expired and not suite.failure:
                self._say(f"the mirror lags: {name} is taken as of {suite.expired:%Y-%m-%d}")
            self._open[name] = suite
        return self._open[name]

    @property
    def packages(self) -> tuple[Package, ...]:
        """Everything that was taken, sorted by name and suite."""
        taken = [p for suite in self._open.values() for p in suite.used.values()]
        return tuple(sorted(taken, key=lambda p: (p.name, p.suite)))


def _date(lists: Path) -> datetime | None:
    """Return when the one index in apt's folder of lists was made, as its signed Release says."""
    for path in lists.glob("*Release"):
        with path.open(errors="replace") as file:
            text = file.read(MAX_RELEASE)
        if found := re.search(r"^Date: (.{1,60})$", text, re.MULTILINE):
            try:
                made = email.utils.parsedate_to_datetime(found.group(1))
            except ValueError:
                return None
            return made if made.tzinfo else made.replace(tzinfo=UTC)
    return None


def _numbers(version: str) -> tuple[int, ...]:
    upstream = version.split(":")[-1].split("-")[0]
    return tuple(int(n) for n in re.findall(r"\d+", upstream))
