"""A malicious image: what its layers and its configuration name stays within the guest.

Layers alone are tested in ``tests/integration/image/test_layer.py``, registries that lie in
``tests/integration/registry/test_hostile.py``; here the daemon loads and runs what it was given.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.framework.host import Host, Result
from tests.framework.images import busybox_tar

NAME = "hostile:latest"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def layer(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info, data = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644,
          pax: dict[str, str] | None = None) -> tarfile.TarInfo:  # fmt: skip
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.pax_headers = kind, link, mode, pax or {}
    return info


def archive(config: bytes, layers: list[bytes], manifest: bytes | None = None) -> bytes:
    """Return what ``docker load`` reads."""
    files = {f"{digest(config)}.json": config}
    files |= {f"{digest(data)}/layer.tar": data for data in layers}
    made = (
        manifest
        or json.dumps(
            [
                {
                    "Config": f"{digest(config)}.json",
                    "RepoTags": [NAME],
                    "Layers": [f"{digest(data)}/layer.tar" for data in layers],
                }
            ]
        ).encode()
    )
    return layer(*((entry(name), data) for name, data in {**files, "manifest.json": made}.items()))


def config(layers: list[bytes], **settings: Any) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["true"], **settings},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(d)}" for d in layers]},
        }
    ).encode()


def names(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture
def clean(host: Host) -> Iterator[Host]:
    marks = [Path("/etc/passwd").stat(), Path("/etc/shadow").stat()]
    before = names(host.data_root), names("/")
    yield host
    host.remove_everything()
    host.docker("rmi", "-f", NAME, check=False)
    assert [Path("/etc/passwd").stat(), Path("/etc/shadow").stat()] == marks
    after = names(host.data_root), names("/")
    assert set(after[0]) - set(before[0]) <= {"containers", "sandboxes", "volumes", "layers"}
    assert after[1] == before[1]
    assert "Traceback" not in host.log.read_text()[-20_000:]


def load(host: Host, data: bytes) -> Result:
    return host.docker("load", stdin=data, check=False)


def run(host: Host, *words: str) -> Result:
    return host.docker("run", "--rm", *words, check=False, timeout=60)


@pytest.mark.parametrize(
    "volumes",
    [
        ["/../../../etc"], ["/../../data"], ["/proc"], ["/"], ["/dev"], ["/sys"], ["/proc/sys"],
        ["relative"], [""], ["/a\nb"], ["/" + "x" * 5000], ["/a:/etc:rw"], ["/etc/hosts/x"],
        ["/bin"], ["/v", "/v/", "//v"], ["/\x1b[2J"],
    ],
    ids=ascii,
)  # fmt: skip
def test_a_volume_of_an_image_is_a_place_in_the_guest(clean: Host, volumes: list[str]) -> None:
    base = busybox_tar()
    made = config([base], Volumes={name: {} for name in volumes})
    if load(clean, archive(made, [base])).code:
        return  # refused
    script = (
        "echo was here > /etc/mark; for d in /proc /dev /sys /etc; do touch $d/hostile; done; id -u"
    )
    done = run(clean, NAME, "sh", "-c", script)
    assert done.code != 0 or done.out.strip() == "0", done
    assert done.err.replace("\n", "").replace("\t", "").isprintable(), ascii(done.err)
    for place in ("/etc", "/proc", "/dev", "/sys", clean.data_root, clean.root):
        assert not (Path(place) / "hostile").exists()
        assert not (Path(place) / "mark").exists()
    for volume in (clean.data_root / "volumes").glob("*"):
        assert volume.parent == clean.data_root / "volumes"


@pytest.mark.parametrize(
    "settings",
    [
        {"User": "../../etc/passwd"}, {"User": "root:\n0"}, {"User": "4294967296"}, {"User": "-1"},
        {"User": "x" * 100_000}, {"User": "$(id)"}, {"User": "0:0:0"},
        {"WorkingDir": "/../../../../etc"}, {"WorkingDir": "/proc/1/root"}, {"WorkingDir": "rel"},
        {"WorkingDir": "/a\nb"}, {"WorkingDir": "/" + "d/" * 3000},
        {"Env": ["", "=", "A", "A=\n", "LD_PRELOAD=/x", "x" * 100_000, "PATH="]},
        {"Env": ["\udcff=1"]}, {"Labels": {"\n": "\x1b[2J", "x" * 100_000: "y"}},
        {"Entrypoint": ["../../bin/sh"]}, {"Entrypoint": [""]}, {"Entrypoint": ["a\nb"]},
        {"Cmd": ["x" * 200_000]}, {"Cmd": [""] * 50_000}, {"StopSignal": "SIGNOPE"},
        {"StopSignal": "-9"}, {"Hostname": "a\nb", "Domainname": "x" * 300},
        {"ExposedPorts": {"0/tcp": {}, "x/y": {}, "99999/tcp": {}, "1-65535/udp": {}}},
        {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": -1}},
        {"Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 1, "Timeout": 1, "Retries": -5}},
        {"Healthcheck": {"Test": ["NOPE"]}}, {"OnBuild": ["RUN x"] * 1000},
        {"Shell": [], "Tty": True, "OpenStdin": True}, {"MacAddress": "ff:ff:ff:ff:ff:ff"},
        {"Cmd": "string"}, {"Env": 7}, {"Labels": []}, {"User": None},
    ],
    ids=lambda s: ascii(s)[:60],
)  # fmt: skip
def test_any_configuration_is_refused_or_stays_in_the_guest(
    clean: Host, settings: dict[str, Any]
) -> None:
    base = busybox_tar()
    data = config([base], **settings)
    done = load(clean, archive(data, [base]))
    if done.code == 0:
        done = run(clean, NAME)
    assert "internal error" not in done.err, done.err
    assert done.err.replace("\n", "").replace("\t", "").isprintable(), ascii(done.err)[:500]
    assert clean.ping()
    clean.docker("ps", "-a")
    clean.docker("images")
    clean.docker("inspect", NAME, check=False)


def test_attributes_of_the_overlay_in_a_layer_have_no_effect(clean: Host) -> None:
    """A redirect or an opaque mark in trusted.* would let a layer pick names of those below."""
    base = busybox_tar()
    pax = {
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.metacopy": "x",
    }
    top = layer(
        entry("bin", tarfile.DIRTYPE, mode=0o755, pax=pax),
        entry("other", tarfile.DIRTYPE, mode=0o755, pax=pax),
    )
    assert load(clean, archive(config([base, top]), [base, top])).code == 0
    done = run(clean, NAME, "sh", "-c", "ls /bin/busybox; ls /other | wc -l")
    assert done.out.split() == ["/bin/busybox", "0"], done


def test_what_a_layer_holds_is_the_guests(clean: Host) -> None:
    """Devices, setuid files and links out are there, and lead nowhere but the guest."""
    base = busybox_tar()
    disk = entry("disk", tarfile.BLKTYPE, mode=0o666)
    disk.devmajor, disk.devminor = 254, 0
    memory = entry("mem", tarfile.CHRTYPE, mode=0o666)
    memory.devmajor, memory.devminor = 1, 1
    top = layer(
        disk, memory, entry("suid", mode=0o6777), entry("out", tarfile.SYMTYPE, "/etc/hostname"),
        entry("up", tarfile.SYMTYPE, "../../../../../../../../etc/hostname"),
    )  # fmt: skip
    assert load(clean, archive(config([base, top]), [base, top])).code == 0
    script = (
        "dd if=/disk of=/dev/null bs=512 count=1; dd if=/mem of=/dev/null count=1; cat /out /up"
    )
    done = run(clean, NAME, "sh", "-c", script)
    assert "Operation not permitted" in done.err
    assert Path("/etc/hostname").read_text() not in done.out


@pytest.mark.parametrize(
    "manifest",
    [
        b"", b"{}", b"[null]", b"[" * 50_000, b'[{"Config":"../../etc/passwd"}]',
        b'[{"Config":"manifest.json","Layers":["/etc/passwd"]}]',
        b'[{"Config":"x","RepoTags":["' + b"a" * 100_000 + b'"],"Layers":[]}]',
        b'[{"Config":"manifest.json","Layers":[' + b'"x",' * 5000 + b'"x"]}]',
        b'[{"Config":"manifest.json","RepoTags":["../../x:y"],"Layers":[]}]',
        b" " * (20 << 20),
    ],
    ids=lambda m: ascii(m)[:40],
)  # fmt: skip
def test_a_bad_manifest_is_one_sentence(clean: Host, manifest: bytes) -> None:
    base = busybox_tar()
    done = load(clean, archive(config([base]), [base], manifest or b" "))
    assert done.code != 0
    assert "internal error" not in done.err
    assert done.err.strip().replace("\n", "").isprintable()


def test_links_in_an_archive_lead_to_nothing_of_the_host(clean: Host) -> None:
    base = busybox_tar()
    made = config([base])
    manifest = json.dumps([{"Config": "c.json", "RepoTags": [NAME], "Layers": ["l.tar"]}]).encode()
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        data = layer(
            (entry("manifest.json"), manifest), entry("c.json", kind, "/etc/passwd"),
            entry("l.tar", kind, "../../../../../../etc/shadow"), (entry("other"), made),
        )  # fmt: skip
        done = load(clean, data)
        assert done.code != 0
        assert "root:" not in done.err + done.out
