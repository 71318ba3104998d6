from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine import security, spec
from hyperstack.engine.spec import Rooms, Streams
from hyperstack.errors import InvalidParameter
from hyperstack.guest import messages
from hyperstack.guest.messages import VERSION, Namespace
from hyperstack.model import ContainerConfig, ExecConfig, HostConfig, MountPoint, Ulimit
from tests.unit.engine.making import container

ROOT = messages.Root(layers=(), disk=messages.Source())


def message(
    config: ContainerConfig | None = None,
    host: HostConfig | None = None,
    mounts: tuple[messages.Mount, ...] = (),
) -> messages.Container:
    made = container(config=config, host=host, args=("-c", "true"))
    return spec.container_message(
        made, Rooms(root=ROOT, mounts=mounts), handle=1, seccomp=b"bpf", streams=Streams()
    )


def test_later_variables_win_and_names_without_value_go() -> None:
    config = ContainerConfig(env=("A=1", "B=2", "PATH=/mine"), hostname="h")
    made = spec.environment(config, ("A=3", "B", "C=x=y"), tty=False)
    assert made == ["PATH=/mine", "HOSTNAME=h", "A=3", "C=x=y"]


def test_a_terminal_gets_a_type() -> None:
    assert "TERM=xterm" in spec.environment(ContainerConfig(), tty=True)
    assert "TERM=vt100" in spec.environment(ContainerConfig(env=("TERM=vt100",)), tty=True)
    assert not any(e.startswith("TERM") for e in spec.environment(ContainerConfig(), tty=False))


@given(st.lists(st.text(alphabet="AB=x", max_size=4)))
def test_no_variable_comes_twice(entries: list[str]) -> None:
    made = spec.environment(ContainerConfig(env=tuple(entries)), tty=False)
    names = [entry.partition("=")[0] for entry in made]
    assert len(set(names)) == len(names)


def test_limits_of_processes_are_dockers_unless_given() -> None:
    assert [(r.resource, r.soft) for r in spec.rlimits(())] == [
        (resource.RLIMIT_NOFILE, spec.DEFAULT_NOFILE)
    ]
    given_ = spec.rlimits([Ulimit(name="nofile", soft=5, hard=9), Ulimit(name="core", soft=-1)])
    assert {r.resource: (r.soft, r.hard) for r in given_} == {
        resource.RLIMIT_NOFILE: (5, 9),
        resource.RLIMIT_CORE: (-1, 0),
    }
    with pytest.raises(InvalidParameter, match="invalid ulimit type: wings"):
        spec.rlimits([Ulimit(name="wings")])


def test_every_namespace_is_new_unless_the_guest_s_own_is_asked_for() -> None:
    assert message().namespaces == int(spec.ALL_NEW)
    shared = HostConfig(pid_mode="host", ipc_mode="host", uts_mode="host", cgroupns_mode="host")
    assert message(host=shared).namespaces == Namespace.MOUNT | Namespace.NET


def test_a_namespace_that_is_joined_is_not_made() -> None:
    rooms = Rooms(root=ROOT, joins=(messages.Join(namespace=Namespace.NET, container="x" * 64),))
    made = spec.container_message(container(), rooms, handle=1, seccomp=b"", streams=Streams())
    assert not made.namespaces & Namespace.NET


def test_mounts_are_ordered_from_the_root_down() -> None:
    deep = messages.Mount(kind=messages.MountKind.SHARE, target="/t/a/b", source="/m0")
    made = message(host=HostConfig(tmpfs={"/t": "size=1m"}), mounts=(deep,))
    assert [mount.target for mount in made.mounts] == ["/t", "/t/a/b"]


def test_tmpfs_comes_from_both_options() -> None:
    point = MountPoint(
        type="tmpfs", target="/m", tmpfs_size=4096, tmpfs_mode=0o700, read_only=True,
        tmpfs_options=(("exec",),),
    )  # fmt: skip
    (made,) = message(host=HostConfig(mounts=(point,))).mounts
    assert made.data == "size=4096,mode=700"
    assert made.flags & 1
    assert not made.flags & 8  # exec


def test_sysctls_add_to_dockers() -> None:
    made = {s.name: s.value for s in message(host=HostConfig(sysctls={"net.core.x": "1"})).sysctls}
    assert made == {**spec.DEFAULT_SYSCTLS, "net.core.x": "1"}


@pytest.mark.parametrize(("asked", "told"), [(None, 0), (0, -1), (-1, -1), (12, 12)])
def test_the_limit_of_processes_is_told(asked: int | None, told: int) -> None:
    assert spec.limits(HostConfig(pids_limit=asked), version=VERSION).pids_max == told


def test_memory_limits_are_told() -> None:
    wished = HostConfig(memory=64 << 20, memory_reservation=32 << 20)
    made = spec.limits(wished, version=VERSION)
    assert (made.memory_max, made.memory_low) == (64 << 20, 32 << 20)


@pytest.mark.parametrize(
    ("memory", "both", "told"), [(0, 0, 0), (64, 0, 0), (64, -1, -1), (64, 128, 64), (64, 64, 1)]
)
def test_swap_is_what_both_have_beside_the_memory(memory: int, both: int, told: int) -> None:
    wished = HostConfig(memory=memory, memory_swap=both)
    assert spec.limits(wished, version=VERSION).swap_max == told


def test_paths_are_masked_unless_the_user_says_otherwise() -> None:
    assert message().masked_paths == spec.MASKED_PATHS
    assert message(host=HostConfig(privileged=True)).readonly_paths == ()
    assert message(host=HostConfig(masked_paths=("/x",))).masked_paths == ("/x",)
    assert message(host=HostConfig(masked_paths=())).masked_paths == ()


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("no-new-privileges", True),
        ("no-new-privileges:true", True),
        ("no-new-privileges=true", True),
        ("no-new-privileges:false", False),
        ("seccomp=unconfined", False),
    ],
)
def test_no_new_privileges_is_read_as_docker_reads_it(option: str, wanted: bool) -> None:
    assert security.no_new_privileges(HostConfig(security_opt=(option,))) is wanted


def test_an_exec_inherits_what_it_does_not_say() -> None:
    made = container(config=ContainerConfig(user="u", working_dir="/w", env=("A=1",)))
    inherits = spec.exec_process(
        made, ExecConfig(cmd=("x",)), handle=2, seccomp=b"bpf", streams=Streams()
    )
    assert (inherits.user, inherits.cwd, inherits.seccomp) == ("u", "/w", b"bpf")
    assert "A=1" in inherits.env
    own = ExecConfig(cmd=("x",), user="v", working_dir="/v", privileged=True, env=("A=2",))
    says = spec.exec_process(made, own, handle=2, seccomp=b"bpf", streams=Streams())
    assert (says.user, says.cwd, says.seccomp) == ("v", "/v", b"bpf")
    assert "A=2" in says.env
    assert says.cap_effective > inherits.cap_effective


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20))
def test_streams_of_two_processes_never_meet(one: int, two: int) -> None:
    def ids(handle: int) -> set[int]:
        made = Streams.of(handle, stdin=True, stdout=True, stderr=True)
        return {made.stdin, made.stdout, made.stderr}

    assert len(ids(one)) == 3
    assert one == two or not ids(one) & ids(two)
