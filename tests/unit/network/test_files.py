"""Files that a container finds in /etc."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.network import files, host
from hyperstack.network.files import ResolvConf


def test_hosts_is_what_docker_writes() -> None:
    text = files.hosts(
        [("172.17.0.2", files.own_names("0123456789ab", ""))], [("1.2.3.4", "db")]
    ).decode()
    assert text == (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::\tip6-localnet\n"
        "ff00::\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n"
        "1.2.3.4\tdb\n"
        "172.17.0.2\t0123456789ab\n"
    )


def test_a_container_knows_its_long_and_its_short_name() -> None:
    assert files.own_names("web", "example.com") == "web.example.com web"
    assert files.own_names("web.example.com", "") == "web.example.com web"
    assert files.own_names("web", "") == "web"


def test_extra_hosts_are_read_with_the_gateway_in_place() -> None:
    entries = ("a:1.2.3.4", "six:::1", "eq=10.0.0.1", "b6:[fd00::1]", "host:host-gateway")
    assert files.extra_hosts(entries, ["172.17.0.1"]) == [
        ("1.2.3.4", "a"),
        ("::1", "six"),
        ("10.0.0.1", "eq"),
        ("fd00::1", "b6"),
        ("172.17.0.1", "host"),
    ]


@pytest.mark.parametrize("entry", ["a", ":1.2.3.4", "a:b", "a b:1.2.3.4", "a\n:1.2.3.4", "a:"])
def test_a_wrong_extra_host_is_refused(entry: str) -> None:
    with pytest.raises(InvalidParameter):
        files.extra_hosts([entry], [])


@given(st.text(max_size=60))
def test_no_extra_host_makes_a_line_of_its_own(entry: str) -> None:
    try:
        found = files.extra_hosts([entry], ["172.17.0.1"])
    except InvalidParameter:
        return
    assert files.hosts([], found).decode().count("\n") == 7


HOST = """
# comment
nameserver 127.0.0.1
nameserver 10.0.0.53
nameserver fd00::53
nameserver fe80::1%eth0
nameserver nonsense
search example.com corp
options edns0
options ndots:2
"""


def test_the_hosts_resolv_conf_is_read() -> None:
    conf = files.parse_resolv_conf(HOST)
    assert conf.servers == ("127.0.0.1", "10.0.0.53", "fd00::53", "fe80::1%eth0")
    assert conf.search == ("example.com", "corp")
    assert conf.options == ("edns0", "ndots:2")
    assert host.name_servers("nameserver 1.1.1.1\nnameserver") == ["1.1.1.1"]


def test_a_container_gets_the_hosts_servers_that_it_can_reach() -> None:
    conf = files.parse_resolv_conf(HOST)
    assert files.external(conf, ipv6=False, given=False).servers == ("10.0.0.53",)
    assert files.external(conf, ipv6=True, given=False).servers == ("10.0.0.53", "fd00::53")
    loopback = ResolvConf(servers=("127.0.0.53",))
    assert files.external(loopback, ipv6=False, given=False).servers == files.PUBLIC_SERVERS
    assert files.external(loopback, ipv6=False, given=True).servers == ("127.0.0.53",)


def test_what_the_user_says_goes_before_the_host() -> None:
    conf = files.overridden(
        files.parse_resolv_conf(HOST), dns=["9.9.9.9"], search=["."], options=["ndots:5"]
    )
    assert conf == ResolvConf(servers=("9.9.9.9",), options=("ndots:5",))
    with pytest.raises(InternalError, match="nine"):
        files.overridden(conf, dns=["nine"], search=[], options=[])


def test_the_embedded_server_is_asked_with_single_names_too() -> None:
    written = files.resolv_conf(
        files.embedded(ResolvConf(servers=("9.9.9.9",), search=("corp",), options=("edns0",)))
    )
    assert written.decode().splitlines()[1:] == [
        "nameserver 127.0.0.11",
        "search corp",
        "options edns0 ndots:0",
    ]
    kept = files.embedded(ResolvConf(options=("ndots:3",)))
    assert kept.options == ("ndots:3",)
