"""Driver options and subnets as clients write them."""

from __future__ import annotations

import pytest

from hyperstack.errors import HyperError, InternalError, InvalidParameter
from hyperstack.network import asked
from hyperstack.network.rows import (
    BRIDGE_NAME,
    ENABLE_IPV6,
    GATEWAY_MODES,
    HOST_BINDING,
    HOST_IPV4,
    ICC,
    MTU,
    Subnet,
)


@pytest.mark.parametrize(
    ("key", "value", "kind", "words"),
    [
        (ICC, "yes", InvalidParameter, 'parsing "yes": invalid syntax'),
        (HOST_BINDING, "x", InvalidParameter, "value: x (nil ip)"),
        (HOST_IPV4, "::1", InvalidParameter, "value: ::1 (nil ip)"),
        (HOST_IPV4, '1.2.3.4" drop', InvalidParameter, "(nil ip)"),
        (MTU, "1e3", InvalidParameter, 'strconv.Atoi: parsing "1e3"'),
        (MTU, "67", InternalError, "invalid argument"),
        (BRIDGE_NAME, "a" * 16, InternalError, "numerical result out of range"),
        (BRIDGE_NAME, 'x" }', InternalError, "invalid argument"),
        (BRIDGE_NAME, "..", InternalError, "invalid argument"),
        (GATEWAY_MODES[4], "odd", InvalidParameter, "unknown gateway mode odd"),
    ],
)
def test_options_that_can_not_be_are_refused(
    key: str, value: str, kind: type[HyperError], words: str
) -> None:
    with pytest.raises(kind) as refused:
        asked.check_options({key: value}, internal=False)
    assert words in refused.value.message


def test_options_that_can_be_are_taken() -> None:
    fine = {ICC: "F", MTU: "+1400", BRIDGE_NAME: "", HOST_BINDING: "::1", "other": "x"}
    asked.check_options({**fine, GATEWAY_MODES[4]: "isolated"}, internal=True)


def test_what_a_network_without_ipv6_never_uses_is_not_looked_at() -> None:
    wrong = Subnet(subnet="fd00::1/64", gateway="x")
    asked.check_subnets([wrong], ipv6=False)
    with pytest.raises(InvalidParameter, match="it should be fd00::/64"):
        asked.check_subnets([wrong], ipv6=True)


def test_an_ip_version_is_on_by_its_field_or_by_the_option_of_its_name() -> None:
    option = {ENABLE_IPV6: "true"}
    assert asked.enabled(option, ENABLE_IPV6, None, default=False)
    assert not asked.enabled(option, ENABLE_IPV6, False, default=False)
    assert asked.enabled({}, ENABLE_IPV6, None, default=True)
    with pytest.raises(InvalidParameter, match="is not a valid bool"):
        asked.enabled({ENABLE_IPV6: "?"}, ENABLE_IPV6, None, default=False)
