"""The address of a git repository as a build context: ``URL#ref:folder``.

Docker build reference, "Git repositories", as moby's ``builder/remotecontext`` reads it:
what comes after the first colon of the fragment is a folder of the tree, what comes before it a
branch, tag or commit, ``master`` if it is empty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from hyperstack.build.shell import go_quote
from hyperstack.errors import InternalError

DEFAULT_REF = "master"
MAX_ADDRESS = 8192
_PORTS = {"http": 80, "https": 443, "git": 9418, "ssh": 22}
_SCP = re.compile(r"git@(\[[^\]/]+\]|[^:/\[\]]+):", re.ASCII)
_URL = re.compile(
    r"([a-z]+)://(?:([^/?#@]*)@)?(\[[^\]/]+\]|[^:/?#\[\]@]*)(?::([0-9]*))?(?=[/?]|\Z)"
)
_HOST = re.compile(r"[A-Za-z0-9_.:%-]+\Z")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, kw_only=True)
class Repository:
    """What is fetched. ``url`` has no credentials and no fragment."""

    url: str
    ref: str
    folder: str
    """Below the tree's root, empty for the whole tree; links in it are not followed yet."""
    scheme: str
    host: str
    """In lower case, without brackets."""
    port: int
    user: str = ""
    """Credentials of ``http`` and ``https`` as they stand in the address: ``name:password``."""

    @property
    def root(self) -> str:
        """Return what the addresses of the same server begin with."""
        return self.url[: self.url.index("/", len(self.scheme) + 3) + 1]


def read(address: str) -> Repository:
    """Read an address that ``fetch.is_git`` took for one. Raises InternalError, as Docker does."""
    if len(address) > MAX_ADDRESS:
        raise InternalError("the repository's address is too long")
    if address.startswith("github.com/"):
        address = f"https://{address}"
    whole, _, fragment = address.partition("#")
    if (match := _SCP.match(whole)) is None:
        fragment = unquote(fragment)
    ref, _, folder = fragment.partition(":")
    if ref.startswith("-"):
        raise InternalError(f"invalid refspec: {ref}")
    if _CONTROL.search(whole):
        raise InternalError(f"parse {go_quote(whole)}: net/url: invalid control character in URL")
    if not match and whole.startswith("git@"):
        words = "fatal: transport 'file' not allowed"  # git's, for what has no colon
        raise InternalError(f"error fetching: {words}\n: exit status 128")
    found = _of_scp(whole, match) if match else _of_url(whole)
    url, scheme, host, port, user = found
    host = host.removeprefix("[").removesuffix("]").lower()
    if not _HOST.match(host) or host.startswith("-"):
        raise InternalError(f"parse {go_quote(whole)}: invalid host name")
    return Repository(
        url=url,
        ref=ref or DEFAULT_REF,
        folder=folder,
        scheme=scheme,
        host=host,
        port=port,
        user=user,
    )


def _of_scp(whole: str, match: re.Match[str]) -> tuple[str, str, str, int, str]:
    return whole, "ssh", match[1], _PORTS["ssh"], ""


def _of_url(whole: str) -> tuple[str, str, str, int, str]:
    """Read an address with a scheme; return it without credentials, and its parts."""
    match = _URL.match(whole)
    if match is None or match[1] not in _PORTS or int(match[4] or 1) > 65_535:
        raise InternalError(f"parse {go_quote(whole)}: invalid address of a repository")
    scheme, user, host, port = match[1], match[2] or "", match[3], match[4]
    rest = whole[match.end() :] or "/"
    if scheme == "ssh":
        kept, user = (f"{user}@" if user else ""), ""
    else:
        kept = ""
    numbered = f":{port}" if port else ""
    url = f"{scheme}://{kept}{host}{numbered}{rest}"
    return url, scheme, host, int(port) if port else _PORTS[scheme], user
