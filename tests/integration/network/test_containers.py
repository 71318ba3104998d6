"""Networks as a user sees them: the real CLI, real guests, a daemon that dies."""

from __future__ import annotations

import json
import time

import pytest

from tests.framework.host import Host

SERVE = "mkdir -p /w && echo {word} > /w/index.html && exec httpd -f -p 80 -h /w"


def serve(host: Host, name: str, *options: str) -> None:
    host.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c",
                SERVE.format(word=name))  # fmt: skip


def get(host: Host, url: str, bound: float = 5.0) -> str:
    """Fetch a page from the host, waiting for the server in the container to come up."""
    end = time.monotonic() + bound
    while (done := host.inside("busybox", "wget", "-q", "-O-", url)).code:
        assert time.monotonic() < end, f"{url}: {done.err}"
        time.sleep(0.05)
    return done.out.strip()


def test_a_published_port_answers_also_while_there_is_no_daemon(host: Host) -> None:
    serve(host, "web", "-p", "8080:80")
    urls = [f"http://{address}:8080/" for address in ("127.0.0.1", "[::1]", "172.17.0.1")]
    for url in urls:
        assert get(host, url) == "web"
    host.kill()
    for url in urls:
        assert get(host, url) == "web"
    host.start()
    for url in urls:
        assert get(host, url) == "web"
    # Older clients leave the brackets out.
    assert host.docker("port", "web").out.replace(" :::", " [::]:").split() == [
        "80/tcp", "->", "0.0.0.0:8080", "80/tcp", "->", "[::]:8080",
    ]  # fmt: skip
    host.docker("rm", "-f", "web")
    assert host.inside("busybox", "wget", "-q", "-O-", urls[0]).code != 0


def test_a_taken_port_says_so_and_the_container_can_be_started_later(host: Host) -> None:
    serve(host, "first", "-p", "8080:80")
    host.docker("create", "--name", "second", "-p", "8080:80", "busybox", "true")
    failed = host.docker("start", "second", check=False)
    assert failed.code == 1
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in failed.err
    host.docker("stop", "-t", "0", "first")
    host.docker("start", "second")


def test_containers_find_each_other_by_name_and_alias(host: Host) -> None:
    host.docker("network", "create", "blue")
    try:
        serve(host, "web", "--network", "blue", "--network-alias", "www")
        script = "for n in web www; do wget -q -O- http://$n/; done; cat /etc/resolv.conf"
        out = host.docker("run", "--rm", "--network", "blue", "busybox", "sh", "-c", script).out
        assert out.splitlines()[:2] == ["web", "web"]
        assert "nameserver 127.0.0.11" in out
        plain = host.docker("run", "--rm", "busybox", "wget", "-q", "-O-", "http://web/",
                            check=False)  # fmt: skip
        assert plain.code != 0
    finally:
        host.remove_everything()
        host.docker("network", "rm", "blue")


def test_a_running_container_joins_and_leaves_a_network(host: Host) -> None:
    host.docker("network", "create", "blue")
    try:
        serve(host, "web", "--network", "blue")
        host.docker("run", "-d", "--name", "late", "busybox", "sleep", "1000")
        host.docker("network", "connect", "blue", "late")
        address = json.loads(host.docker("inspect", "web").out)[0]["NetworkSettings"]["Networks"][
            "blue"
        ]["IPAddress"]
        fetched = host.docker("exec", "late", "wget", "-q", "-O-", f"http://{address}/").out
        assert fetched.strip() == "web"
        members = json.loads(host.docker("network", "inspect", "blue").out)[0]["Containers"]
        assert sorted(member["Name"] for member in members.values()) == ["late", "web"]
        host.kill()
        host.start()
        fetched = host.docker("exec", "late", "wget", "-q", "-O-", f"http://{address}/").out
        assert fetched.strip() == "web"
        host.docker("network", "disconnect", "blue", "late")
        assert "eth1" not in host.docker("exec", "late", "ip", "addr").out
        refused = host.docker("network", "rm", "blue", check=False)
        assert "has active endpoints" in refused.err
    finally:
        host.remove_everything()
        host.docker("network", "rm", "blue")


def test_a_static_address_and_mac_are_given(host: Host) -> None:
    host.docker("network", "create", "--subnet", "10.77.0.0/24", "fixed")
    try:
        out = host.docker("run", "--rm", "--network", "fixed", "--ip", "10.77.0.77",
                          "--mac-address", "02:42:00:00:00:99",
                          "--add-host", "db:1.2.3.4",
                          "busybox", "sh", "-c",
                          "ip addr show eth0; cat /etc/hosts").out  # fmt: skip
        assert "inet 10.77.0.77/24" in out
        assert "02:42:00:00:00:99" in out
        assert "1.2.3.4\tdb" in out
    finally:
        host.docker("network", "rm", "fixed")


def test_network_none_has_nothing_but_loopback(host: Host) -> None:
    out = host.docker("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link").out
    assert [line.split(":")[1].strip() for line in out.splitlines()] == ["lo"]


@pytest.mark.parametrize("mode", ["host", "container:nobody"])
def test_modes_that_can_not_be_are_refused_in_a_sentence(host: Host, mode: str) -> None:
    failed = host.docker("run", "--rm", "--network", mode, "busybox", "true", check=False)
    assert failed.code == 125
    assert "virtual machine" in failed.err or "No such container" in failed.err


def test_nothing_of_a_containers_network_is_left(host: Host) -> None:
    for _ in range(3):
        host.docker("run", "--rm", "-p", "80", "busybox", "true")
    bound = time.monotonic() + 5
    while "hv" in host.inside("ip", "-o", "link").out:
        assert time.monotonic() < bound, host.inside("ip", "-o", "link").out
        time.sleep(0.1)
    assert "elements" not in host.inside("nft", "list", "map", "inet", "hyper", "any4").out
    assert not list((host.exec_root / "netns").iterdir())


def test_a_guest_reaches_neither_the_host_nor_its_daemon(host: Host) -> None:
    listening = "import socket,time; s=socket.socket(); s.bind(('0.0.0.0', 2375)); s.listen(); "
    import subprocess
    import sys

    server = subprocess.Popen(
        [*host.netns.enter, sys.executable, "-c", listening + "print(flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    server.stdout.readline()
    try:
        done = host.docker("run", "--rm", "busybox", "nc", "-w", "2", "172.17.0.1", "2375",
                           check=False)  # fmt: skip
        assert done.code != 0
        assert "refused" in done.err or "timed out" in done.err or "rohibited" in done.err
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
