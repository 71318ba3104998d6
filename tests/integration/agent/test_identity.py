"""Users, groups, capabilities, filters, terminals, working directories of processes."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from hyperstack.guest import caps, seccomp
from hyperstack.guest.client import AgentFailure
from hyperstack.guest.messages import Op, Resize, Stage
from tests.integration.agent.machine import CAPS, Machine

ERRNO_EPERM = 0x00050001
ALLOW = 0x7FFF0000
MKDIR = 83


def deny_mkdir() -> bytes:
    """A filter that lets everything pass but mkdir(2)."""
    program = (
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 0, 1, MKDIR),
        (0x06, 0, 0, ERRNO_EPERM),
        (0x06, 0, 0, ALLOW),
    )
    return b"".join(struct.pack("<HBBI", *step) for step in program)


def docker_filter() -> bytes:
    """Docker's default profile for a container with the default capabilities."""
    return seccomp.compile_profile(None, caps.names(CAPS))


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("", (), "0 0 0 /root"),
        ("user", (), "1000 1000 1000,100,10 /home"),
        ("1000", (), "1000 1000 1000,100,10 /home"),
        ("user:wheel", (), "1000 10 10 /home"),
        ("user:55", ("wheel", "77"), "1000 55 55,10,77 /home"),
        ("4242", (), "4242 0 0 /"),
        ("4242:4343", ("100",), "4242 4343 4343,100 /"),
    ],
)
async def test_a_user_is_looked_up_as_docker_does(
    guest: Machine, user: str, groups: tuple[str, ...], expected: str
) -> None:
    ran = await guest.run(
        "sh", "-c", "echo $(id -u) $(id -g) $(id -G | tr ' ' ,) $HOME",
        process={"user": user, "groups": groups},
    )  # fmt: skip
    uid, gid, all_groups, home = ran.text.split()
    assert [uid, gid, home] == [expected.split()[i] for i in (0, 1, 3)]
    assert set(all_groups.split(",")) == set(expected.split()[2].split(","))


@pytest.mark.parametrize(
    ("user", "groups", "sentence"),
    [
        ("ghost", (), "unable to find user ghost: no matching entries in passwd file"),
        ("root:ghosts", (), "unable to find group ghosts: no matching entries in group file"),
        ("", ("ghosts",), "unable to find group ghosts: no matching entries in group file"),
        ("99999999999", (), "uids and gids must be in range 0-2147483647"),
        ("-1", (), "uids and gids must be in range 0-2147483647"),
    ],
)
async def test_an_unknown_user_is_refused_in_dockers_words(
    guest: Machine, user: str, groups: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(AgentFailure) as failure:
        await guest.run("true", process={"user": user, "groups": groups})
    assert failure.value.stage == Stage.USER
    assert failure.value.detail == sentence


async def test_a_home_that_is_given_stays(guest: Machine) -> None:
    ran = await guest.run("sh", "-c", "echo $HOME", process={"env": ("PATH=/bin", "HOME=/mine")})
    assert ran.text == "/mine"


async def test_passwd_that_is_no_plain_file_is_not_read(guest: Machine) -> None:
    container = guest.container("sh", "-c", "rm /etc/passwd; mkfifo /etc/passwd; sleep 100")
    await guest.start(container)
    while (await guest.exec(container, "test", "-p", "/etc/passwd")).code:
        pass
    with pytest.raises(AgentFailure) as failure:
        await guest.exec(container, "true", user="user")
    assert failure.value.stage == Stage.USER
    ran = await guest.exec(container, "grep", "^Uid", "/proc/self/status", user="7")
    assert ran.text.split()[1] == "7"
    await guest.remove(container)


async def test_capabilities_are_what_was_asked_for(guest: Machine) -> None:
    show = ("grep", "-E", "^Cap", "/proc/self/status")
    ran = await guest.run(*show)
    sets = dict(line.split(":\t") for line in ran.text.splitlines())
    assert int(sets["CapEff"], 16) == int(sets["CapBnd"], 16) == CAPS
    assert int(sets["CapInh"], 16) == int(sets["CapAmb"], 16) == 0
    ran = await guest.run(*show, process={"user": "1000"})
    sets = dict(line.split(":\t") for line in ran.text.splitlines())
    assert int(sets["CapEff"], 16) == 0
    assert int(sets["CapBnd"], 16) == CAPS
    kill = 1 << 5
    ran = await guest.run(
        *show, process={"user": "1000", "cap_inheritable": kill, "cap_ambient": kill}
    )
    sets = dict(line.split(":\t") for line in ran.text.splitlines())
    assert int(sets["CapEff"], 16) == int(sets["CapAmb"], 16) == kill


@pytest.mark.parametrize("no_new_privs", [False, True])
async def test_a_seccomp_filter_is_in_force(guest: Machine, no_new_privs: bool) -> None:
    ran = await guest.run(
        "sh", "-c", "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; mkdir /x",
        process={"seccomp": deny_mkdir(), "no_new_privs": no_new_privs, "user": "0"},
    )  # fmt: skip
    assert ran.text.split() == ["NoNewPrivs:", str(int(no_new_privs)), "Seccomp:", "2"]
    assert b"Operation not permitted" in ran.err


@pytest.mark.parametrize(
    "process",
    [{}, {"user": "user"}, {"no_new_privs": True}, {"tty": True, "stderr": 0}],
    ids=["root", "user", "no_new_privs", "tty"],
)
@pytest.mark.parametrize("init", [False, True], ids=["plain", "init"])
async def test_dockers_own_filter_lets_a_process_come_to_life(
    guest: Machine, process: dict[str, Any], init: bool
) -> None:
    ran = await guest.run(
        "sh", "-c", "unshare -m true; grep -c '^Seccomp:.2' /proc/self/status; exit 3",
        init=init, process={"seccomp": docker_filter(), **process},
    )  # fmt: skip
    assert (ran.code, ran.text.splitlines()[-1]) == (3, "1")
    assert b"Operation not permitted" in ran.out + ran.err


async def test_a_filter_that_is_no_program_is_refused(guest: Machine) -> None:
    with pytest.raises(AgentFailure) as failure:
        await guest.run("true", process={"seccomp": struct.pack("<HBBI", 0xFFFF, 0, 0, 0)})
    assert failure.value.stage == Stage.SECCOMP


async def test_a_user_without_privileges_may_open_its_stdout_again(guest: Machine) -> None:
    ran = await guest.run("sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr",
                          process={"user": "user"})  # fmt: skip
    assert (ran.out, ran.err) == (b"out\n", b"err\n")


async def test_a_working_directory_is_made_for_the_first_process_only(guest: Machine) -> None:
    container = guest.container("sh", "-c", "pwd; sleep 100", process={"cwd": "/new/place"})
    await guest.start(container)
    assert (await guest.exec(container, "pwd", cwd="/new/place")).text == "/new/place"
    with pytest.raises(AgentFailure) as failure:
        await guest.exec(container, "pwd", cwd="/nowhere")
    assert failure.value.stage == Stage.CWD
    assert failure.value.detail == (
        'chdir to cwd ("/nowhere") set in config.json failed: no such file or directory'
    )
    await guest.remove(container)


async def test_a_working_directory_outside_of_the_root_is_refused(guest: Machine) -> None:
    for number in range(3, 12):
        with pytest.raises(AgentFailure) as failure:
            await guest.run("pwd", process={"cwd": f"/proc/self/fd/{number}"})
        assert failure.value.stage == Stage.CWD


async def test_a_terminal_is_the_controlling_one_and_can_be_resized(guest: Machine) -> None:
    container = guest.container(
        "sh", "-c", "tty; stty size; ls -l /dev/console; read x; stty size; echo $x",
        process={"tty": True, "rows": 33, "columns": 77, "stdin": 5, "stderr": 0},
    )  # fmt: skip
    assert container.process is not None
    await guest.start(container)
    output = guest.client.open_output(container.process.stdout)
    text = b""
    while b"console\r\n" not in text:
        text += (await anext(output))[1]
    await guest.client.call(Op.RESIZE, Resize(handle=container.process.handle, rows=11, columns=22))
    stdin = guest.client.open_input(5)
    await stdin.write(b"hello\n")
    async for _, piece in output:
        text += piece
    lines = text.decode().split("\r\n")
    assert lines[:2] == ["/dev/pts/0", "33 77"]
    assert "136," in lines[2]
    assert lines[3:6] == ["hello", "11 22", "hello"]
    await guest.remove(container)


async def test_an_exec_has_a_terminal_of_the_container(guest: Machine) -> None:
    container = guest.container("sleep", "100")
    await guest.start(container)
    for _ in range(2):
        ran = await guest.exec(
            container, "sh", "-c", "tty; id -u; echo >/dev/tty",
            tty=True, stderr=0, user="user", rows=5, columns=6,
        )  # fmt: skip
        assert ran.text.split() == ["/dev/pts/0", "1000"]
    ran = await guest.exec(container, "sh", "-c", "umount /dev/pts; rm /dev/ptmx")
    await guest.remove(container)


async def test_a_replaced_terminal_device_is_refused(guest: Machine) -> None:
    container = guest.container(
        "sh", "-c", "umount /dev/pts; mkfifo /dev/pts/ptmx; sleep 100",
        privileged=True, process={"cap_effective": -1, "cap_permitted": -1, "cap_bounding": -1},
    )  # fmt: skip
    await guest.start(container)
    while (await guest.exec(container, "test", "-p", "/dev/pts/ptmx")).code:
        pass
    with pytest.raises(AgentFailure) as failure:
        await guest.exec(container, "true", tty=True, stderr=0)
    assert failure.value.stage == Stage.TTY
    await guest.remove(container)
