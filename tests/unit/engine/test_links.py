"""Links: how they are written, and the variables that they give."""

from __future__ import annotations

import pytest

from hyperstack.engine import links
from hyperstack.errors import HyperError
from hyperstack.ids import ContainerId
from hyperstack.model import Container, ContainerConfig, Link
from tests.unit.engine.making import container


def made(exposed: tuple[str, ...], env: tuple[str, ...] = ()) -> Container:
    return container("db", config=ContainerConfig(exposed_ports=exposed, env=env, hostname="data"))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("db", ("db", "db")),
        ("db:store", ("db", "store")),
        ("db:", ("db", "db")),
        ("/db:/web/store", ("/db", "store")),
    ],
)
def test_a_link_is_a_name_and_an_alias(text: str, read: tuple[str, str]) -> None:
    assert links._parse(text) == read


@pytest.mark.parametrize(
    ("text", "words"), [("", "empty string specified"), ("a:b:c", "bad format for links: a:b:c")]
)
def test_a_link_that_says_nothing_or_too_much_is_refused(text: str, words: str) -> None:
    with pytest.raises(HyperError, match=words):
        links._parse(text)


def test_variables_name_every_port_and_runs_of_ports_in_dockers_order() -> None:
    told = links.variables("web", "the-db", made(("53/udp", "81", "80/tcp", "90/tcp")), "10.0.0.2")
    assert told[0] == "THE_DB_PORT=tcp://10.0.0.2:80"
    assert told[1:5] == [
        "THE_DB_PORT_80_TCP=tcp://10.0.0.2:80",
        "THE_DB_PORT_80_TCP_ADDR=10.0.0.2",
        "THE_DB_PORT_80_TCP_PORT=80",
        "THE_DB_PORT_80_TCP_PROTO=tcp",
    ]
    run = told.index("THE_DB_PORT_80_TCP_START=tcp://10.0.0.2:80")
    assert told[run - 1] == "THE_DB_PORT_90_TCP_PROTO=tcp"
    assert told[run + 1 : run + 4] == [
        "THE_DB_PORT_80_TCP_PORT_START=80",
        "THE_DB_PORT_80_TCP_END=tcp://10.0.0.2:81",
        "THE_DB_PORT_80_TCP_PORT_END=81",
    ]
    assert told[run + 4] == "THE_DB_PORT_53_UDP=udp://10.0.0.2:53"
    assert told[-1] == "THE_DB_NAME=/web/the-db"


def test_a_run_of_ports_at_the_end_is_told_too() -> None:
    told = links.variables("web", "db", made(("80-82/tcp",)), "10.0.0.2")
    assert told[-2:] == ["DB_PORT_80_TCP_PORT_END=82", "DB_NAME=/web/db"]


def test_the_linked_containers_variables_are_told_but_home_and_path() -> None:
    told = links.variables("web", "db", made((), ("A=1", "HOME=/x", "PATH=/y")), "10.0.0.2")
    assert told == ["DB_NAME=/web/db", "DB_ENV_A=1"]


def test_links_are_shown_with_the_names_of_both() -> None:
    found = {"store": Link(container=ContainerId("1"), name="db")}
    assert links.shown("web", found) == ("/db:/web/store",)
