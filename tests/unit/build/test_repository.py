"""Addresses of git repositories, and the folders of their trees that become contexts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperstack.build import fetch, git, repository
from hyperstack.errors import InternalError


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("git://h/x", True),
        ("git@h:x", True),
        ("github.com/a/b", True),
        ("https://h/x.git", True),
        ("http://h/x.git#ref:dir", True),
        ("http://h/x.git#", False),
        ("http://h/x.gitt", False),
        ("http://h/x", False),
        ("ssh://h/x.git", False),
        ("file:///x.git", False),
        ("ext::sh.git", False),
    ],
)
def test_docker_knows_a_repository_by_its_address_alone(address: str, is_one: bool) -> None:
    assert fetch.is_git(address) == is_one


@pytest.mark.parametrize(
    ("address", "url", "ref", "folder", "host", "port"),
    [
        ("git://H/x", "git://H/x", "master", "", "h", 9418),
        ("git://h:7/x#:d/e", "git://h:7/x", "master", "d/e", "h", 7),
        ("git://h/x#r", "git://h/x", "r", "", "h", 9418),
        ("git://h/x#r:a:b", "git://h/x", "r", "a:b", "h", 9418),
        ("git://h/x#r%3Aa", "git://h/x", "r", "a", "h", 9418),
        ("git://h/x#r#s", "git://h/x", "r#s", "", "h", 9418),
        ("git@h:a/b.git#r%3Aa:d", "git@h:a/b.git", "r%3Aa", "d", "h", 22),
        ("github.com/a/b#v1", "https://github.com/a/b", "v1", "", "github.com", 443),
        ("http://[::1]:80/x.git", "http://[::1]:80/x.git", "master", "", "::1", 80),
    ],
)
def test_an_address_names_ref_and_folder_in_its_fragment(
    address: str, url: str, ref: str, folder: str, host: str, port: int
) -> None:
    found = repository.read(address)
    assert (found.url, found.ref, found.folder) == (url, ref, folder)
    assert (found.host, found.port) == (host, port)


def test_credentials_are_no_part_of_what_git_is_told() -> None:
    found = repository.read("https://me:se%20cret@h:1/a/x.git#r")
    assert found.url == "https://h:1/a/x.git"
    assert found.root == "https://h:1/"
    assert found.user == "me:se%20cret"


@pytest.mark.parametrize(
    "address",
    [
        "git://h/x#-r",
        "git://h/x#--upload-pack=sh:d",
        "git://-oProxyCommand=sh/x",
        "git@-oProxyCommand=sh:x",
        "git@host/x",
        "git://h\n[core]/x",
        "http://h/x\t.git",
        "git://h:99999/x",
        "git:///x",
        "git://" + "x" * 9000,
    ],
)
def test_what_git_or_its_helpers_would_take_for_an_option_is_refused(address: str) -> None:
    with pytest.raises(InternalError):
        repository.read(address)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "d" / "e").mkdir(parents=True)
    (made / "f").write_text("")
    (tmp_path / "outside").mkdir()
    for name, target in (
        ("l", "d/e"),
        ("d/up", "../../../d"),
        ("abs", "/d"),
        ("out", "../outside"),
        ("host", "/etc"),
        ("loop", "loop"),
    ):
        (made / name).symlink_to(target)
    return made


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", ""),
        ("d", "d"),
        ("/d//./e/", "d/e"),
        ("d/../l", "d/e"),
        ("l", "d/e"),
        ("d/up/e", "d/e"),
        ("abs/e", "d/e"),
    ],
)
def test_links_of_a_tree_lead_within_it(tree: Path, asked: str, found: str) -> None:
    assert git.resolved(tree, asked) == found


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("out", "outside: no such file or directory"),
        ("host", "etc: no such file or directory"),
        ("none/x", "none/x: no such file or directory"),
        ("f", "not a directory: "),
        ("f/x", "not a directory"),
        ("loop", "too many links"),
        ("..", '".." not within git root: evalSymlinksInScope: '),
        ("d/../../outside", "not within git root"),
    ],
)
def test_a_folder_outside_of_the_tree_is_none(tree: Path, asked: str, words: str) -> None:
    with pytest.raises(InternalError) as caught:
        git.resolved(tree, asked)
    assert words in caught.value.message
