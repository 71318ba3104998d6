"""Where the kit's packages come from: the host's mirror, and nothing that is not signed."""

from __future__ import annotations

import email.utils
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hyperstack.errors import Unavailable
from hyperstack.guest import kitapt
from hyperstack.guest.kitapt import KEYRINGS, Archive, host_mirror

CLASSIC = """\
# deb http://commented.example/debian bookworm main
deb-src http://sources.example/debian bookworm main
deb [arch=amd64 signed-by=/a b] http://vendor.example/apt stable main
deb [ arch=amd64 ] http://first.example/debian/ bookworm main contrib
deb http://second.example/debian bookworm main
"""
DEB822 = """\
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main

# a comment
Types: deb
# another
URIs: http://other.example/thing
  http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
"""


def _etc(tmp_path: Path, **files: str) -> Path:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    for name, text in files.items():
        (parts / name.replace("_", ".")).write_text(text)
    return tmp_path


def test_the_mirror_is_read_from_a_classic_sources_list(tmp_path: Path) -> None:
    etc = _etc(tmp_path)
    (etc / "sources.list").write_text(CLASSIC)
    assert host_mirror(etc) == "http://first.example/debian"


def test_the_mirror_is_read_from_a_deb822_file(tmp_path: Path) -> None:
    assert host_mirror(_etc(tmp_path, debian_sources=DEB822)) == "http://mirror.example/debian"


def test_a_list_in_the_folder_counts_as_well(tmp_path: Path) -> None:
    assert host_mirror(_etc(tmp_path, x_list=CLASSIC)) == "http://first.example/debian"


def test_without_a_mirror_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no Debian mirror is named by the sources"):
        host_mirror(_etc(tmp_path, x_list="deb http://a.example/ubuntu noble main\n"))


needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None or not any(path.exists() for path in KEYRINGS),
    reason="needs apt and Debian's keyring",
)


def _repository(folder: Path) -> Path:
    """Make an archive with one package that is whole and well-formed, and not signed."""
    index = folder / "dists" / "forky" / "main" / "binary-amd64"
    index.mkdir(parents=True)
    packages = (
        b"Package: user-mode-linux\nVersion: 9\nArchitecture: amd64\n"
        b"Filename: pool/u.deb\nSize: 1\nSHA256: " + b"0" * 64 + b"\nDescription: x\n\n"
    )
    (index / "Packages").write_bytes(packages)
    (folder / "dists" / "forky" / "Release").write_text(
        "Origin: Debian\nSuite: testing\nCodename: forky\nDate: Tue, 24 Nov 2026 00:00:00 UTC\n"
        "Architectures: amd64\nComponents: main\nSHA256:\n"
        f" {hashlib.sha256(packages).hexdigest()} {len(packages)} main/binary-amd64/Packages\n"
    )
    return folder


@needs_apt
async def test_nothing_is_taken_from_an_archive_that_is_not_signed(tmp_path: Path) -> None:
    mirror = f"file:{_repository(tmp_path / 'debian')}"
    archive = Archive(tmp_path / "state", mirror, suites=("forky",))
    with pytest.raises(Unavailable, match="has no user-mode-linux in a suite whose signature"):
        await archive.suite_with("user-mode-linux")
    assert archive.packages == ()


@needs_apt
async def test_a_mirror_without_the_suite_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "debian").mkdir()
    archive = Archive(tmp_path / "state", f"file:{tmp_path / 'debian'}", suites=("forky",))
    with pytest.raises(Unavailable) as caught:
        await archive.suite_with("user-mode-linux", (7, 2))
    assert "user-mode-linux 7.2 or later" in caught.value.message
    assert "\n" not in caught.value.message


def _gpg(home: Path, *argv: str | Path) -> bytes:
    done = subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--yes",
         "--passphrase", "", *argv], check=True, capture_output=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A signer's home; its name is short, for the agent has a socket in it."""
    home = Path(tempfile.mkdtemp(prefix="g"))
    try:
        _gpg(home, "--quick-generate-key", "Archive <archive@example>", "default", "sign", "1d")
        yield home
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
        shutil.rmtree(home)


@needs_apt
@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
@pytest.mark.parametrize(("age", "taken"), [(1, True), (30, True), (120, False)])
async def test_a_mirror_that_lags_is_taken_for_a_while(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, age: int, taken: bool
) -> None:
    folder = _repository(tmp_path / "debian") / "dists" / "forky"
    made = datetime.now(UTC) - timedelta(days=age)
    text = (folder / "Release").read_text().splitlines()
    text[3] = f"Date: {email.utils.format_datetime(made).replace('+0000', 'UTC')}"
    until = email.utils.format_datetime(made + timedelta(days=7)).replace("+0000", "UTC")
    (folder / "Release").write_text(
        "\n".join([*text[:4], f"Valid-Until: {until}", *text[4:]]) + "\n"
    )
    _gpg(home, "--clearsign", "-o", folder / "InRelease", folder / "Release")
    (tmp_path / "key.gpg").write_bytes(_gpg(home, "--export"))
    monkeypatch.setattr(kitapt, "KEYRINGS", (tmp_path / "key.gpg",))
    said: list[str] = []
    mirror = f"file:{tmp_path / 'debian'}"
    archive = Archive(tmp_path / "state", mirror, suites=("forky",), say=said.append)
    if not taken:
        with pytest.raises(Unavailable, match=f"is of {made:%Y-%m-%d}, over 90 days ago"):
            await archive.suite_with("user-mode-linux")
        return
    suite = await archive.suite_with("user-mode-linux")
    assert await suite.version("user-mode-linux") == "9"
    assert said == ([f"the mirror lags: forky is taken as of {made:%Y-%m-%d}"] if age > 7 else [])
