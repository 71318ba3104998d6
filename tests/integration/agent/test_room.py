"""What a container finds around it: namespaces, files of the kernel, devices, mounts."""

from __future__ import annotations

import errno
import io
import tarfile

import pytest

from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure
from hyperstack.guest.messages import Mount, MountKind, Op, Stage
from tests.integration.agent.machine import Machine


async def test_a_container_has_namespaces_of_its_own(guest: Machine) -> None:
    ran = await guest.run(
        "sh", "-c", "echo $$; hostname; ls /sys/class/net; cat /proc/1/cgroup; ls /proc/1/ns/* -l"
    )
    lines = ran.text.splitlines()
    assert lines[:4] == ["1", "box", "lo", "0::/"]
    host = await guest.run("readlink", "/proc/self/ns/uts", namespaces=0x20020000)
    own = next(line for line in lines if "/ns/uts" in line)
    assert host.text not in own


async def test_kernel_files_are_mounted_as_docker_mounts_them(guest: Machine) -> None:
    ran = await guest.run("cat", "/proc/mounts")
    mounts = {line.split()[1]: line.split() for line in ran.text.splitlines()}
    assert mounts["/"][2] == "overlay"
    assert mounts["/sys"][3].startswith("ro,nosuid,nodev,noexec")
    assert mounts["/sys/fs/cgroup"][::2][:2] == ["cgroup", "cgroup2"]
    assert mounts["/sys/fs/cgroup"][3].startswith("ro,")
    assert "gid=5,mode=620,ptmxmode=666" in mounts["/dev/pts"][3]
    assert mounts["/dev/shm"][::2][:2] == ["shm", "tmpfs"]
    assert "size=65536k" in mounts["/dev/shm"][3]
    assert mounts["/dev/mqueue"][2] == "mqueue"
    order = ("/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm")
    assert [target for target in mounts if target in order] == list(order)
    assert mounts["/proc/sys"][3].startswith("ro,")


async def test_nothing_of_the_guest_is_left_in_the_mount_namespace(guest: Machine) -> None:
    ran = await guest.run("sh", "-c", "cut -d' ' -f2 /proc/mounts; ls /; ls /out/")
    for name in ("layers", "disks", "agent", "modules", "share"):
        assert name not in ran.text.split()
    assert "passwd" in ran.text


async def test_masked_paths_are_empty_and_read_only_paths_refuse(guest: Machine) -> None:
    ran = await guest.run(
        "sh", "-c",
        "wc -c </proc/keys; wc -c </secret; ls /sys/firmware | wc -l;"
        "echo 1 >/proc/sys/kernel/panic; echo b >/proc/sysrq-trigger; touch /sys/firmware/x",
    )  # fmt: skip
    assert ran.out.split() == [b"0", b"0", b"0"]
    assert ran.err.count(b"Read-only file system") == 3


async def test_standard_devices_are_there_and_no_others_may_be_used(guest: Machine) -> None:
    ran = await guest.run(
        "sh", "-c",
        "echo x >/dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c;"
        "mknod /disk b 98 16 && echo made; head -c 1 /disk; readlink /dev/fd; readlink /dev/ptmx",
    )  # fmt: skip
    assert ran.out.split() == [b"4", b"4", b"made", b"/proc/self/fd", b"pts/ptmx"]
    assert b"Operation not permitted" in ran.err


async def test_a_device_that_was_asked_for_is_made_and_may_be_used(guest: Machine) -> None:
    device = messages.Device(
        path="/dev/my/disk", type=ord("b"), major=98, minor=16, mode=0o640, gid=6
    )
    ran = await guest.run(
        "sh", "-c", "stat -c '%a %g %F' /dev/my/disk; head -c 4 /dev/my/disk | wc -c",
        devices=(device,),
    )  # fmt: skip
    assert ran.text == "640 6 block special file\n4"


async def test_a_privileged_container_sees_every_device_and_writes_to_sysfs(
    guest: Machine,
) -> None:
    ran = await guest.run(
        "sh", "-c",
        "head -c 4 /dev/ubdb | wc -c; mkdir /sys/fs/cgroup/mine && echo made;"
        "grep ' /sys ' /proc/mounts; echo max >/sys/fs/cgroup/memory.max",
        privileged=True, masked_paths=(), readonly_paths=(),
    )  # fmt: skip
    assert ran.text.splitlines()[:2] == ["4", "made"]
    assert " rw," in ran.text.splitlines()[2]
    assert (
        ran.err == b"sh: write error: Operation not permitted\n"
    )  # its own limits are the guest's to set


async def test_a_read_only_root_refuses_writes_but_its_tmpfs_does_not(guest: Machine) -> None:
    mount = Mount(kind=MountKind.TMPFS, target="/tmp", data="size=1m", flags=2 | 4 | 8)
    ran = await guest.run(
        "sh", "-c", "touch /x; touch /tmp/x /dev/x && echo ok; stat -c %a /tmp;"
        "grep ' /tmp ' /proc/mounts; dd if=/dev/zero of=/tmp/big bs=1M count=2",
        root=guest.root(None, read_only=True), mounts=(mount,),
    )  # fmt: skip
    lines = ran.text.splitlines()
    assert lines[:2] == ["ok", "1777"]
    assert "rw,nosuid,nodev,noexec" in lines[2]
    assert "size=1024k" in lines[2]
    assert b"/x: Read-only file system" in ran.err
    assert b"No space left" in ran.err


async def test_a_private_file_is_mounted_and_can_be_rewritten(guest: Machine) -> None:
    hosts = Mount(kind=MountKind.FILE, target="/etc/hosts", content=b"127.0.0.1 box\n", mode=0o644)
    container = guest.container("sleep", "100", mounts=(hosts,))
    await guest.start(container)
    assert (await guest.exec(container, "cat", "/etc/hosts")).out == b"127.0.0.1 box\n"
    await guest.client.call(
        Op.FILE_WRITE,
        messages.FileWrite(container=container.id, path="/etc/hosts", content=b"new\n"),
    )
    assert (await guest.exec(container, "cat", "/etc/hosts")).out == b"new\n"
    with pytest.raises(AgentFailure) as failure:
        await guest.client.call(
            Op.FILE_WRITE, messages.FileWrite(container=container.id, path="/etc/passwd")
        )
    assert failure.value.errno == 2
    await guest.remove(container)


async def test_a_lease_on_a_private_file_holds_nobody_up(guest: Machine) -> None:
    hosts = Mount(kind=MountKind.FILE, target="/etc/hosts", content=b"127.0.0.1 box\n")
    container = guest.container("probe", "lease", "/etc/hosts", mounts=(hosts,))
    await guest.start(container)
    assert container.process is not None
    output = guest.client.open_output(container.process.stdout)
    assert (await anext(output))[1] == b"leased\n"
    with pytest.raises(AgentFailure) as failure:
        await guest.client.call(
            Op.FILE_WRITE,
            messages.FileWrite(container=container.id, path="/etc/hosts", content=b"new\n"),
            timeout=10.0,
        )
    assert failure.value.errno == errno.EAGAIN
    await guest.remove(container)


async def test_the_kernels_files_are_no_files_and_their_folders_are_empty(guest: Machine) -> None:
    container = guest.container("sleep", "100", root=guest.root(0))
    await guest.start(container)
    for stream, path in enumerate(("/proc", "/sys/", "/dev/pts"), 900):
        request = messages.ArchiveRequest(container=container.id, path=path, stream=stream)
        found = await guest.client.call(Op.ARCHIVE_GET, request)
        data = await guest.read(stream)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert tar.getnames() == [found.name] == [path.strip("/").split("/")[-1]]
    for path in ("/proc/version", "/sys/fs/cgroup", "/dev/pts/ptmx"):
        request = messages.ArchiveRequest(container=container.id, path=path)
        with pytest.raises(AgentFailure) as failure:
            await guest.client.call(Op.ARCHIVE_STAT, request)
        assert failure.value.errno == errno.ENOENT
    await guest.remove(container)


async def test_targets_are_made_and_links_stay_in_the_root(guest: Machine) -> None:
    mounts = (
        Mount(kind=MountKind.FILE, target="/link/deep/file", content=b"a"),
        Mount(kind=MountKind.TMPFS, target="/new/../other/dir"),
        Mount(kind=MountKind.FILE, target="/out/../../../made", content=b"b"),
        Mount(kind=MountKind.TMPFS, target="/proc/self/cwd/dangling/../x"),
    )
    ran = await guest.run(
        "sh", "-c", "cat /target/of/link/deep/file /made; ls -d /other/dir /new", mounts=mounts[:3]
    )
    assert ran.text == "ab/new\n/other/dir"
    with pytest.raises(AgentFailure) as failure:
        await guest.run("true", mounts=mounts[3:])
    assert failure.value.stage == Stage.MOUNT


async def test_less_deep_mounts_come_first_whatever_the_order(guest: Machine) -> None:
    mounts = (
        Mount(kind=MountKind.FILE, target="/a/b/file", content=b"inner"),
        Mount(kind=MountKind.TMPFS, target="/a"),
    )
    assert (await guest.run("cat", "/a/b/file", mounts=mounts)).out == b"inner"


async def test_a_mount_of_its_own_replaces_the_usual_one(guest: Machine) -> None:
    mount = Mount(kind=MountKind.TMPFS, target="/dev/shm/", data="size=3m")
    ran = await guest.run("grep", "/dev/shm", "/proc/mounts", mounts=(mount,))
    assert ran.text.count("\n") == 0
    assert "size=3072k" in ran.text


async def test_shared_memory_has_the_size_that_was_asked_for(guest: Machine) -> None:
    ran = await guest.run("df", "-k", "/dev/shm", shm_size=5 << 20)
    assert "5120" in ran.text


async def test_sysctls_of_namespaces_are_set_and_others_refused(guest: Machine) -> None:
    def sysctl(name: str, value: str) -> messages.Sysctl:
        return messages.Sysctl(name=name, value=value)

    ran = await guest.run(
        "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/shmmni",
        sysctls=(sysctl("net.ipv4.ip_unprivileged_port_start", "0"),
                 sysctl("kernel.shmmni", "1234")),
    )  # fmt: skip
    assert ran.text == "0\n1234"
    for name in ("kernel.panic", "net..ipv4", "vm.swappiness"):
        with pytest.raises(AgentFailure) as failure:
            await guest.run("true", sysctls=(sysctl(name, "1"),))
        assert failure.value.stage == Stage.SYSCTL


async def test_what_is_written_survives_on_the_disk_of_the_container(guest: Machine) -> None:
    await guest.run("sh", "-c", "echo kept >/kept; rm /plain", root=guest.root(0))
    ran = await guest.run("sh", "-c", "cat /kept; ls /plain", root=guest.root(0))
    assert ran.out == b"kept\n"
    other = await guest.run("ls", "/kept", "/plain", root=guest.root(1))
    assert other.out == b"/plain\n"


async def test_an_image_without_any_layer_is_an_empty_root(guest: Machine) -> None:
    with pytest.raises(AgentFailure) as failure:
        await guest.run("/bin/true", root=messages.Root())
    assert failure.value.stage == Stage.EXEC_LOOKUP


async def test_files_of_all_layers_have_one_device_number(guest: Machine) -> None:
    ran = await guest.run("stat", "-c", "%d", "/plain", "/bin/busybox", "/etc", root=guest.root(0))
    assert len(set(ran.text.split())) == 1


async def test_rlimits_and_umask_and_oom_score_are_set(guest: Machine) -> None:
    process = {
        "rlimits": (messages.Rlimit(resource=7, soft=100, hard=200),
                    messages.Rlimit(resource=4, soft=-1, hard=-1)),
        "umask": 0o077 + 1,
        "oom_score_adj": 300,
    }  # fmt: skip
    ran = await guest.run(
        "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c; umask; cat /proc/self/oom_score_adj",
        process=process,
    )  # fmt: skip
    assert ran.text.split() == ["100", "200", "unlimited", "0077", "300"]


async def test_nothing_of_the_agent_is_open_in_a_container(guest: Machine) -> None:
    container = guest.container("sh", "-c", "ls -l /proc/self/fd; sleep 100")
    await guest.start(container)
    ran = await guest.exec(container, "ls", "-l", "/proc/self/fd", "/proc/1/fd")
    targets = [line.split(" -> ")[1] for line in ran.text.splitlines() if " -> " in line]
    assert all(t.startswith(("pipe:", "/dev/null", "/proc/")) for t in targets), targets
    await guest.remove(container)


async def test_programs_can_tell_that_they_are_in_a_container(guest: Machine) -> None:
    script = "test -f /.dockerenv && readlink /etc/mtab; rm /.dockerenv"
    for _ in range(2):
        assert (await guest.run("sh", "-c", script, root=guest.root(0))).text == "/proc/mounts"


async def test_a_container_that_changes_nothing_has_no_changes(guest: Machine) -> None:
    hosts = Mount(kind=MountKind.FILE, target="/etc/hosts", content=b"127.0.0.1 box\n")
    container = guest.container("true", root=guest.root(0), mounts=(hosts,))
    await guest.start(container)
    assert container.process is not None
    await guest.finish(container.process)
    ref = messages.ContainerRef(id=container.id)
    assert (await guest.client.call(Op.CHANGES, ref)).changes == ()
    await guest.remove(container)
