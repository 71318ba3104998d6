"""Networks by the API: what create refuses, how they are shown, how containers join and leave them.

Statuses and sentences are those that dockerd 28.5.2 gave to the same requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.conformance.raw import ask
from tests.framework.host import Host

SLEEP = ("busybox", "sleep", "1000")
CONFIG = "invalid network config:\n"
BRIDGE = "com.docker.network.bridge."


@pytest.fixture(autouse=True)
def _clean(host: Host) -> Iterator[None]:
    yield
    host.remove_everything()
    host.docker("network", "prune", "-f")


def ipam(*configs: dict[str, Any]) -> dict[str, Any]:
    return {"IPAM": {"Config": list(configs)}}


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"Name": " "}, 400, "invalid name: name is empty"),
    ({"Name": "host"}, 403, "operation is not permitted on predefined host network "),
    ({"Driver": "null"}, 403, 'only one instance of "null" network is allowed'),
    ({"Driver": "wings"}, 404, 'plugin "wings" not found'),
    ({"Scope": "swarm"}, 403, "cannot create a swarm scoped network when swarm is not active"),
    ({"EnableIPv4": False}, 400, "IPv4 or IPv6 must be enabled"),
    ({"ConfigFrom": {"Network": "x"}}, 404, 'configuration network "x" does not exist'),
    (ipam({}), 400, CONFIG + "invalid subnet : invalid CIDR block notation"),
    (
        ipam({"Subnet": "10.9.0.1/16"}),
        400,
        CONFIG + "invalid subnet 10.9.0.1/16: it should be 10.9.0.0/16",
    ),
    (
        ipam({"Subnet": "10.9.0.0/16", "Gateway": "10.8.0.1"}),
        400,
        CONFIG + "invalid gateway 10.8.0.1: parent subnet 10.9.0.0/16 doesn't contain this address",
    ),
    (
        ipam({"Subnet": "10.9.0.0/16", "IPRange": "10.0.0.0/8"}),
        400,
        CONFIG + "invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet "
        "10.9.0.0/16",
    ),
    (
        ipam({"Subnet": "x"}, {"Subnet": "10.9.0.0/24", "Gateway": "::1"}),
        400,
        CONFIG + "* invalid subnet x: invalid CIDR block notation\n"
        "* invalid gateway ::1: parent subnet is an IPv4 block",
    ),
    (
        ipam({"Subnet": "172.17.5.0/24"}),
        403,
        "invalid pool request: Pool overlaps with other one on this address space",
    ),
    (
        ipam({"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.0"}),
        500,
        "failed to allocate gateway (10.9.0.0): Address already in use",
    ),
    (
        {"Options": {BRIDGE + "enable_icc": "x"}},
        400,
        f'failed to parse {BRIDGE}enable_icc value: x (strconv.ParseBool: parsing "x": invalid '
        "syntax)",
    ),
    ({"Options": {"com.docker.network.driver.mtu": "-1"}}, 400, "invalid MTU number: -1"),
    (
        {"Options": {BRIDGE + "gateway_mode_ipv4": "isolated"}},
        500,
        "gateway mode 'isolated' can only be used for an internal network",
    ),
]


@pytest.mark.parametrize(("body", "status", "words"), REFUSED)
def test_a_network_that_can_not_be_is_refused_in_dockers_words(
    host: Host, body: dict[str, Any], status: int, words: str
) -> None:
    answer = ask(host, "POST", "/v1.51/networks/create", {"Name": "made", **body})
    assert answer == (status, {"message": words})


def test_a_network_is_shown_as_it_was_asked_for(host: Host) -> None:
    config = [{"Subnet": "fd00:7::/64"}, {"Subnet": "10.77.0.0/16", "IPRange": "10.77.1.0/24"}]
    body = {
        "Name": "an odd/name",
        "IPAM": {"Config": config, "Options": {}},
        "EnableIPv6": True,
        "Internal": True,
        "Labels": {"a": "b"},
    }
    assert ask(host, "POST", "/v1.51/networks/create", body)[0] == 201
    shown = ask(host, "GET", "/v1.51/networks/" + quote("an odd/name"))[1]
    assert shown["IPAM"] == {"Driver": "default", "Options": {}, "Config": config}
    assert (shown["EnableIPv4"], shown["EnableIPv6"], shown["Internal"]) == (True, True, True)
    assert shown["ConfigFrom"] == {"Network": ""}
    none = ask(host, "GET", "/v1.51/networks/none")[1]
    assert none["IPAM"] == {"Driver": "default", "Options": None, "Config": None}
    assert ask(host, "POST", "/v1.51/networks/create", body)[0] == 409
    assert ask(host, "DELETE", "/v1.51/networks/" + shown["Id"][:10])[0] == 204


def test_networks_are_made_from_a_configuration(host: Host) -> None:
    host.docker("network", "create", "--config-only", "--subnet", "10.78.0.0/24", "plan")
    host.docker("network", "create", "--config-from", "plan", "made")
    assert json.loads(host.docker("network", "inspect", "made").out)[0]["IPAM"]["Config"] == [
        {"Subnet": "10.78.0.0/24"}
    ]
    refused = host.docker("network", "rm", "plan", check=False)
    assert 'configuration network "plan" is in use' in refused.err
    host.docker("network", "rm", "made")
    host.docker("network", "rm", "plan")


PLAN = {"ConfigFrom": {"Network": "plan"}}
WRITTEN = (
    "user specified configurations are not supported if the network depends on a configuration "
    "network"
)
FIELDS = (
    "configuration network can only contain network specific fields. Network operator fields like "
    "[ ingress | internal | attachable | scope ] are not supported."
)


def test_configurations_say_what_they_may_and_nothing_else(host: Host) -> None:
    create = "/v1.51/networks/create"
    for plan in ({"Name": "plan"}, {"Name": "nothing", "EnableIPv4": False}):
        assert ask(host, "POST", create, {"ConfigOnly": True, **plan})[0] == 201
    refusals: list[tuple[dict[str, Any], int, str]] = [
        ({"ConfigOnly": True, "Internal": True}, 403, FIELDS),
        ({"ConfigOnly": True, "Scope": "local"}, 403, FIELDS),
        ({**PLAN, "ConfigOnly": True}, 403,
         "a configuration network cannot depend on another configuration network"),
        ({**PLAN, "EnableIPv4": False}, 403, WRITTEN),
        ({**PLAN, "IPAM": {"Driver": "x"}}, 403, WRITTEN),
        ({**PLAN, "EnableIPv4": False, "Options": {"a": "b"}}, 403, WRITTEN),
        ({"ConfigFrom": {"Network": "nothing"}}, 400, "IPv4 or IPv6 must be enabled"),
    ]  # fmt: skip
    for asked, status, words in refusals:
        body = {"Name": "made", **asked}
        assert ask(host, "POST", create, body) == (status, {"message": words}), asked
    assert ask(host, "POST", create, {"Name": "made", "Internal": True, **PLAN})[0] == 201
    assert ask(host, "GET", "/v1.51/networks/made")[1]["Internal"] is True
    refused = host.docker("run", "--rm", "--network", "plan", "busybox", "true", check=False)
    assert "networking: cannot create endpoint on configuration-only network" in refused.err
    host.docker("network", "rm", "made")
    host.docker("network", "rm", "plan", "nothing")


def test_endpoints_have_the_addresses_and_parameters_that_were_asked_for(host: Host) -> None:
    host.docker("network", "create", "--subnet", "10.82.0.0/24", "blue")
    endpoint = "com.docker.network.endpoint.sysctls"
    wish = f"name=blue,link-local-ip=169.254.5.6,driver-opt={endpoint}="
    look = "ip -4 -o addr show eth0; cat /proc/sys/net/ipv4/conf/eth0/log_martians"
    out = host.docker(
        *("run", "--rm", "--network", wish + "net.ipv4.conf.IFNAME.log_martians=1"),
        *("busybox", "sh", "-c", look),
    ).out
    assert "inet 169.254.5.6/16" in out
    assert out.endswith("\n1\n")


def test_a_paused_container_joins_and_leaves_networks(host: Host) -> None:
    """By the way: of two networks the one with both IP versions has the default route."""
    host.docker("network", "create", "--subnet", "10.83.0.0/24", "blue")
    host.docker("network", "create", "--subnet", "10.84.0.0/24", "--ipv6", "zebra")
    host.docker("run", "-d", "--name", "calm", "--network", "blue", *SLEEP)
    host.docker("pause", "calm")
    host.docker("network", "connect", "zebra", "calm")
    host.docker("network", "disconnect", "blue", "calm")
    host.docker("network", "connect", "blue", "calm")
    host.docker("unpause", "calm")
    routes = host.docker("exec", "calm", "ip", "route").out
    assert "default via 10.84.0.1" in routes
    assert "10.83.0.0/24" in routes


def test_lists_are_filtered_and_filters_are_checked(host: Host) -> None:
    host.docker("network", "create", "--label", "k=v", "first")
    host.docker("network", "create", "second")
    for wanted, found in (
        ({"name": ["^fir"]}, ["first"]),
        ({"label": ["k=v"]}, ["first"]),
        ({"type": ["custom"]}, ["first", "second"]),
        ({"driver": ["null", "host"]}, ["host", "none"]),
        ({"dangling": ["true"], "name": ["sec"]}, ["second"]),
        ({"scope": ["swarm"]}, []),
    ):
        got = ask(host, "GET", "/v1.51/networks?filters=" + quote(json.dumps(wanted)))
        assert (got[0], sorted(one["Name"] for one in got[1])) == (200, found)
    for wrong, status, words in (
        ({"dangling": ["maybe"]}, 400, "invalid value for filter 'dangling', must be \"true\" (or "
                                       '"1"), or "false" (or "0")'),
        ({"type": ["odd"]}, 500, "invalid filter: 'type'='odd'"),
        ({"odd": ["x"]}, 400, "invalid filter 'odd'"),
    ):  # fmt: skip
        got = ask(host, "GET", "/v1.51/networks?filters=" + quote(json.dumps(wrong)))
        assert got == (status, {"message": words})


def test_wishes_that_no_network_can_grant_are_refused(host: Host) -> None:
    host.docker("network", "create", "--subnet", "10.79.0.0/24", "blue")
    host.docker("create", "--name", "idle", "--network", "blue", *SLEEP)
    connect = "/v1.51/networks/{}/connect"
    for network, wish, status, words in (
        ("blue", {"IPAMConfig": {"IPv4Address": "1.2.3.4"}}, 400, "invalid endpoint settings:\nno "
         "configured subnet or ip-range contain the IP address 1.2.3.4"),
        ("bridge", {"Aliases": ["x"]}, 400, "invalid endpoint settings:\nnetwork-scoped alias is "
         "supported only for containers in user defined networks"),
        ("blue", {"MacAddress": "x"}, 400, "invalid MAC address x"),
        ("none", {}, 400, "container cannot be connected to multiple networks with one of the "
         "networks in private (none) mode"),
        ("host", {}, 400, "cannot connect container to host network - container must be created in "
         "host network mode"),
    ):  # fmt: skip
        body = {"Container": "idle", "EndpointConfig": wish}
        assert ask(host, "POST", connect.format(network), body) == (status, {"message": words})
    assert ask(host, "POST", connect.format("blue"), {"Container": ""})[0] == 400
    assert ask(host, "POST", connect.format("later"), {"Container": "idle"})[0] == 200
    forced = {"Container": "ghost", "Force": True}
    assert ask(host, "POST", "/v1.51/networks/blue/disconnect", forced) == (
        404,
        {"message": "endpoint ghost not found"},
    )


def test_names_routes_and_ports_follow_a_container_from_network_to_network(host: Host) -> None:
    host.docker("network", "create", "--subnet", "10.80.0.0/24", "blue")
    serve = "mkdir /w; echo served > /w/index.html; exec httpd -f -h /w"
    host.docker("run", "-d", "--name", "web", "-p", "8090:80", "busybox", "sh", "-c", serve)
    host.docker("run", "-d", "--name", "peer", "--network", "blue", *SLEEP)
    host.docker("network", "connect", "--ip", "10.80.0.9", "--alias", "www", "blue", "web")
    inside = ("exec", "web", "sh", "-c")
    # As with Docker: of networks that lead outside the first by name has the route, and the ports.
    assert "via 10.80.0.1" in host.docker(*inside, "ip route | grep default").out
    fetch = ("busybox", "wget", "-qO-", "http://127.0.0.1:8090/")
    assert host.inside(*fetch).out == "served\n"
    assert "10.80.0.2" in host.docker(*inside, "nslookup peer").out
    assert host.docker("exec", "peer", "wget", "-qO-", "http://www/").out == "served\n"

    host.docker("network", "disconnect", "bridge", "web")
    assert "via 10.80.0.1" in host.docker(*inside, "ip route | grep default").out
    assert host.inside(*fetch).out == "served\n"
    assert host.docker("port", "web", "80").out.splitlines()[0] == "0.0.0.0:8090"
    shown = json.loads(host.docker("inspect", "web").out)[0]["NetworkSettings"]["Networks"]
    assert list(shown) == ["blue"]
    assert shown["blue"]["DNSNames"][:2] == ["web", "www"]

    host.docker("network", "disconnect", "blue", "web")
    assert host.docker("port", "web").out == ""
    host.docker("network", "connect", "blue", "web")
    assert host.inside(*fetch).out == "served\n"


def test_links_of_the_default_bridge_are_names_and_variables(host: Host) -> None:
    host.docker("run", "-d", "--name", "db", "-e", "KEY=value", "--expose", "5432", *SLEEP)
    host.docker("run", "-d", "--name", "web", "--link", "db:the-db", *SLEEP)
    told = host.docker("exec", "web", "env").out.splitlines()
    address = host.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db").out.strip()
    assert f"THE_DB_PORT_5432_TCP_ADDR={address}" in told
    assert {"THE_DB_NAME=/web/the-db", "THE_DB_ENV_KEY=value"} <= set(told)
    hosts = ("exec", "web", "grep", "the-db", "/etc/hosts")
    assert host.docker(*hosts).out.split()[:2] == [address, "the-db"]
    assert host.docker("inspect", "-f", "{{.HostConfig.Links}}", "web").out == "[/db:/web/the-db]\n"
    assert "db,web/the-db" in host.docker("ps", "--no-trunc", "--format", "{{.Names}}").out.split()

    host.docker("stop", "-t", "0", "db")
    refused = host.docker("run", "--rm", "--link", "db", "busybox", "true", check=False)
    assert "Cannot link to a non running container: /db AS " in refused.err
    host.docker("run", "-d", *SLEEP)  # which takes the address
    host.docker("start", "db")
    moved = host.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db").out.strip()
    assert moved != address
    assert host.docker(*hosts).out.split()[0] == moved

    host.docker("rm", "--link", "web/the-db")
    assert host.docker("inspect", "-f", "{{.HostConfig.Links}}", "web").out == "[]\n"
    assert host.docker(*hosts, check=False).code == 1
    ghost = host.docker("create", "--link", "ghost", "busybox", check=False)
    assert "could not get container for ghost: No such container: ghost" in ghost.err
