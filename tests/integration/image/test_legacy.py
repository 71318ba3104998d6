"""Archives as Docker wrote them before 1.10."""

from __future__ import annotations

import json
import tarfile

import pytest

from hyperstack.errors import InvalidParameter
from hyperstack.image.service import ImageService
from tests.integration.image.tars import SYM, body, digest, entry, files, made

ONE, TWO = "1" * 64, "2" * 64
LOWER, UPPER = files(a=b"x" * 100), files(b=b"y" * 10)


def archive(**changes: object) -> bytes:
    base = {
        "id": ONE, "created": "2015-01-01T00:00:00Z", "docker_version": "1.9.1", "os": "linux",
        "architecture": "amd64", "author": "me", "Size": 100,
        "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) ADD"]},
    }  # fmt: skip
    child = {
        "id": TWO, "parent": ONE, "created": "2015-01-02T00:00:00Z", "docker_version": "1.9.1",
        "config": {"Cmd": ["run"]}, "comment": "why", "throwaway": False,
    }  # fmt: skip
    child.update(changes)

    def build(tar: tarfile.TarFile) -> None:
        entry(tar, f"{TWO}/json", data=json.dumps(child).encode())
        entry(tar, f"{TWO}/layer.tar", data=UPPER)
        entry(tar, f"{ONE}/json", data=json.dumps(base).encode())
        entry(tar, f"{ONE}/real.tar", data=LOWER)
        entry(tar, f"{ONE}/layer.tar", SYM, link="real.tar")
        entry(tar, "repositories", data=json.dumps({"old": {"1": TWO}}).encode())

    return made(build)


async def test_each_folder_becomes_an_image_with_the_whole_chain_s_history(
    images: ImageService,
) -> None:
    assert [line async for line in images.load(body(archive()))] == []
    image = images.get("old:1")
    assert image.diff_ids == (digest(LOWER), digest(UPPER))
    assert image.config.cmd == ("run",)
    assert image.size == 110
    assert [(h.created_by, h.author, h.comment) for h in image.history] == [
        ("/bin/sh -c #(nop) ADD", "me", ""),
        ("", "", "why"),
    ]
    parent = images.get(image.parent)
    assert parent.diff_ids == (digest(LOWER),)
    assert parent.names == ()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parent": TWO}, "max depth exceeded"),
        ({"parent": "../x"}, "image ID '../x' is invalid"),
        ({"parent": "3" * 64}, f"open {'3' * 64}/json: no such file or directory"),
        ({"os": "windows"}, "cannot load windows image on linux"),
        ({"parent": 7}, "invalid image config"),
    ],
)
async def test_a_damaged_old_archive_is_refused_in_one_sentence(
    images: ImageService, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InvalidParameter, match=sentence):
        [line async for line in images.load(body(archive(**changes)))]
    assert not any(image.names for image in images.list(all_=True, filters={}))
