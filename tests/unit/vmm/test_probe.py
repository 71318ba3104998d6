"""What is believed of /dev/kvm, and for how long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from hyperstack.config import Config
from hyperstack.errors import GuestError, InternalError, Unavailable
from hyperstack.guest.kit import QEMU, QEMU_FIRMWARE, QEMU_INITRAMFS, QEMU_KERNEL, Kit
from hyperstack.vmm import choose_default, drivers, probe
from hyperstack.vmm.base import Runtime
from hyperstack.vmm.qemu import driver as qemu
from hyperstack.vmm.qemu import verdict
from hyperstack.vmm.qemu.verdict import Verdict
from tests.unit.guest.test_kit import make_kit
from tests.unit.vmm.test_uml_command import make_spec


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Kit]:
    """A host with a kit that has QEMU, and with every device that is looked for."""
    folder = make_kit(tmp_path / "kit")
    for name in (QEMU, QEMU_FIRMWARE, QEMU_INITRAMFS, QEMU_KERNEL):
        path = folder / "qemu" / name.lstrip("/")
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.setattr(qemu, "DEVICES", ("/dev/null",))
    for module in (qemu, probe):
        monkeypatch.setattr(module, "KVM", "/dev/zero")
    config = Config(kit_dir=tmp_path / "kit", exec_root=tmp_path / "exec")
    return config, Kit.load(config.kit)


def _verdict(on: Kit, **changes: object) -> Verdict:
    made = Verdict(boot=verdict.boot_id(), kit=on.version, ok=True, seconds=0.5)
    return msgspec.structs.replace(made, **changes)


async def test_a_device_alone_is_not_believed(host: tuple[Config, Kit]) -> None:
    config, kit = host
    usable = await drivers(config, kit)[Runtime.KVM].usable()
    assert not usable.ok
    assert usable.reason == "no guest has been booted with /dev/zero yet since the host was"
    assert probe.needed(config, kit)


async def test_a_verdict_is_believed_and_makes_kvm_the_default(host: tuple[Config, Kit]) -> None:
    config, kit = host
    verdict.store(config.kit_dir, _verdict(kit))
    assert not probe.needed(config, kit)
    machines = drivers(config, kit)
    assert (await machines[Runtime.KVM].usable()).ok
    assert (await choose_default(config, machines)).runtime == Runtime.KVM


async def test_a_bad_verdict_is_the_reason_and_nothing_is_launched(
    host: tuple[Config, Kit], tmp_path: Path
) -> None:
    config, kit = host
    verdict.store(config.kit_dir, _verdict(kit, ok=False, reason="it hangs"))
    machines = drivers(config, kit)
    assert (await machines[Runtime.KVM].usable()).reason == "it hangs"
    with pytest.raises(GuestError, match="runtime hyper-kvm can't be used: it hangs"):
        await machines[Runtime.KVM].launch(make_spec(tmp_path))
    with pytest.raises(Unavailable, match="hyper-kvm can't be used: it hangs"):
        await choose_default(replace(config, default_runtime="hyper-kvm"), machines)


@pytest.mark.parametrize("changes", [{"boot": "another"}, {"kit": "another"}])
def test_another_boot_or_kit_is_another_question(
    host: tuple[Config, Kit], changes: dict[str, str]
) -> None:
    config, kit = host
    verdict.store(config.kit_dir, _verdict(kit, **changes))
    assert verdict.load(config.kit_dir, kit.version) is None
    assert probe.needed(config, kit)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ok": true}', "x" * 100_000])
def test_a_damaged_verdict_is_none(host: tuple[Config, Kit], text: str) -> None:
    config, kit = host
    (config.kit_dir / verdict.FILE).write_text(text)
    assert verdict.load(config.kit_dir, kit.version) is None


def test_a_verdict_replaces_the_old_one_as_a_whole(host: tuple[Config, Kit]) -> None:
    config, kit = host
    for ok in (True, False):
        verdict.store(config.kit_dir, _verdict(kit, ok=ok))
        found = verdict.load(config.kit_dir, kit.version)
        assert found is not None
        assert found.ok == ok
    assert not [p for p in config.kit_dir.iterdir() if p.name.startswith(f".{verdict.FILE}")]


def test_a_verdict_that_cannot_be_kept_is_told(tmp_path: Path, host: tuple[Config, Kit]) -> None:
    with pytest.raises(InternalError, match="can't be kept"):
        verdict.store(tmp_path / "none", _verdict(host[1]))


async def test_a_kit_without_qemu_says_what_to_do(tmp_path: Path) -> None:
    make_kit(tmp_path)
    config = Config(kit_dir=tmp_path)
    kit = Kit.load(config.kit)
    for runtime in (Runtime.TCG, Runtime.KVM):
        usable = await drivers(config, kit)[runtime].usable()
        assert not usable.ok
        assert "hyper kit build" in usable.reason or "is missing" in usable.reason
    assert not probe.needed(config, kit)


async def test_emulation_is_usable_and_warns(host: tuple[Config, Kit]) -> None:
    config, kit = host
    tcg = drivers(config, kit)[Runtime.TCG]
    usable = await tcg.usable()
    assert usable.ok
    assert "the jail alone stands" in usable.warnings[0]
    assert not tcg.capabilities.security_boundary


async def test_litter_of_a_killed_probe_is_removed(host: tuple[Config, Kit]) -> None:
    config, _ = host
    for name, text in (("probe-a", "1 1"), ("probe-b", "nonsense"), ("probe-c", None)):
        (config.exec_root / name).mkdir(parents=True)
        if text is not None:
            (config.exec_root / name / "process").write_text(text)
    (config.exec_root / "other").mkdir()
    await probe.sweep(config)
    assert [path.name for path in config.exec_root.iterdir()] == ["other"]
