"""Names of images: the reference grammar of Docker and the OCI distribution specification.

    reference := name [":" tag] ["@" digest]
    name      := [domain "/"] path
    domain    := host [":" port], a host name, an IPv4 address or an IPv6 address in brackets
    path      := component *("/" component), lower case

A name without a domain belongs to ``docker.io``; there a path of one component stands below
``library/``. The *familiar* form leaves both away, the *canonical* form spells them out. A first
component is a domain if it has a dot, a colon or an upper-case letter, or is ``localhost``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

from hyperstack.errors import InvalidParameter
from hyperstack.ids import Digest

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL = "library/"
DEFAULT_TAG = "latest"
MAX_PATH = 255
MAX_REFERENCE = 1024
"""No valid reference comes near: domain 255, path 255, tag 128, digest 71."""

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?\Z"
)
_TAG_ONLY = re.compile(rf"{_TAG}\Z")
_HEX64 = re.compile(r"[a-f0-9]{64}\Z")
_SHA256 = re.compile(r"sha256:[a-f0-9]{64}\Z")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A repository, and perhaps a tag, a digest or both."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference as a user writes it. Raises InvalidParameter in Docker's words."""
        if not text or len(text) > MAX_REFERENCE:
            raise InvalidParameter("invalid reference format")
        if _HEX64.match(text):
            raise InvalidParameter(
                f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )
        domain, remainder = _split_domain(text)
        repository = re.split("[:@]", remainder, maxsplit=1)[0]
        if repository.lower() != repository:
            raise InvalidParameter(
                f"invalid reference format: repository name ({repository}) must be lowercase"
            )
        match = _REFERENCE.match(f"{domain}/{remainder}")
        if match is None:
            raise InvalidParameter("invalid reference format")
        if len(match["path"]) > MAX_PATH:
            raise InvalidParameter(f"repository name must not be more than {MAX_PATH} characters")
        digest = parse_digest(match["digest"]) if match["digest"] else None
        return cls(domain=domain, path=match["path"], tag=match["tag"] or "", digest=digest)

    @classmethod
    def parse_with_tag(cls, name: str, tag: str) -> Self:
        """Read what the API gives in two parts; *tag* may be empty, a tag or a digest.

        A tag in *tag* replaces one in *name*; a digest is added to it. Raises InvalidParameter.
        """
        reference = cls.parse(name)
        if not tag:
            return reference
        if _SHA256.match(tag):
            return replace(reference, tag="", digest=Digest(tag))
        return reference.with_tag(tag)

    @property
    def name(self) -> str:
        """The canonical name of the repository: ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as Docker shows it: ``busybox``, ``user/app``, ``host:5000/app``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(OFFICIAL)
        return self.path if "/" in short else short

    def familiar(self) -> str:
        """Return the whole reference as Docker shows it."""
        return self.familiar_name + self._suffix()

    def canonical(self) -> str:
        """Return the whole reference with its domain spelled out."""
        return self.name + self._suffix()

    def __str__(self) -> str:
        return self.canonical()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    @property
    def is_name_only(self) -> bool:
        """Whether there is neither a tag nor a digest."""
        return not self.tag and self.digest is None

    @property
    def object(self) -> str:
        """What a registry is asked for: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or DEFAULT_TAG

    def repository(self) -> Self:
        """Return the repository alone."""
        return replace(self, tag="", digest=None)

    def with_tag(self, tag: str) -> Self:
        """Return the reference with another tag. Raises InvalidParameter for a bad one."""
        return replace(self, tag=check_tag(tag))

    def with_digest(self, digest: Digest) -> Self:
        """Return ``name@digest``."""
        return replace(self, tag="", digest=digest)

    def tagged(self) -> Self:
        """Return the reference with ``latest`` if it is only a name."""
        return replace(self, tag=DEFAULT_TAG) if self.is_name_only else self


def tag_name(repo: str, tag: str) -> Reference:
    """Read the name that an image is to have, by ``tag`` or ``import``. Raises InvalidParameter."""
    reference = Reference.parse(repo)
    if reference.digest is not None:
        raise InvalidParameter("cannot import digest reference")
    if reference.familiar_name == "sha256":
        raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
    return (reference.with_tag(tag) if tag else reference).tagged()


def check_tag(tag: str) -> str:
    """Return *tag* if it is one. Raises InvalidParameter."""
    if not _TAG_ONLY.match(tag):
        raise InvalidParameter("invalid tag format")
    return tag


def is_digest(text: str) -> bool:
    """Tell whether *text* is a sha256 digest."""
    return bool(_SHA256.match(text))


def parse_digest(text: str) -> Digest:
    """Return *text* as a digest; only sha256 is known. Raises InvalidParameter."""
    if _SHA256.match(text):
        return Digest(text)
    algorithm, _, encoded = text.partition(":")
    if not encoded:
        raise InvalidParameter("invalid checksum digest format")
    if algorithm != "sha256":
        raise InvalidParameter("unsupported digest algorithm")
    if len(encoded) != 64:
        raise InvalidParameter("invalid checksum digest length")
    raise InvalidParameter("invalid checksum digest format")


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, OFFICIAL + text
    if first == LEGACY_DOMAIN:
        first = DEFAULT_DOMAIN
    elif first != "localhost" and not re.search("[.:]", first) and first.lower() == first:
        first, rest = DEFAULT_DOMAIN, text
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL + rest
    return first, rest
