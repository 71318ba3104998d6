"""Arguments, stages and what metadata instructions write into history."""

from __future__ import annotations

import pytest

from hyperstack.build import instructions, metadata
from hyperstack.build.args import BuildArgs
from hyperstack.build.state import Stages, State
from hyperstack.errors import InvalidParameter
from hyperstack.model import Healthcheck


def after(text: str, options: dict[str, str | None] | None = None) -> tuple[State, list[str]]:
    """Carry out metadata instructions on an empty stage; return it and the history's words."""
    file = instructions.parse("FROM scratch\n" + text)
    state = State(name="", args=BuildArgs(options or {}).stage())
    state.begin(None)
    words = []
    for step in file.stages[0].steps:
        words.append(metadata.apply(state, metadata.expanded(state, step, file.escape), "\\"))
    return state, words


def test_a_stage_always_has_a_path() -> None:
    state, _ = after("ENV A=1")
    assert state.config.env == (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "A=1",
    )


def test_history_has_the_classic_builders_words() -> None:
    _, words = after(
        'LABEL a=b "c d"=e\nEXPOSE 80 53/udp\nVOLUME /v /u\nCMD ["a","b\\"c"]\n'
        "ENTRYPOINT echo x\nHEALTHCHECK --interval=90s --timeout=1500ms --retries=3 CMD x\n"
        'SHELL ["/bin/sh","-ec"]\nONBUILD RUN x\nMAINTAINER m\nARG A=1 B\nSTOPSIGNAL SIGRTMIN+3'
    )
    assert words == [
        "LABEL a=b c d=e",
        "EXPOSE 53/udp 80",
        "VOLUME [/v /u]",
        'CMD ["a" "b\\"c"]',
        'ENTRYPOINT ["/bin/sh" "-c" "echo x"]',
        "HEALTHCHECK &{[CMD-SHELL x] 1m30s 1.5s 0s 0s 3}",
        "SHELL [/bin/sh -ec]",
        "ONBUILD RUN x",
        "MAINTAINER m",
        "ARG A=1 B",
        "STOPSIGNAL SIGRTMIN+3",
    ]


def test_an_entrypoint_takes_away_a_command_that_was_inherited_only() -> None:
    state, _ = after('ENTRYPOINT ["e"]')
    state.set(cmd=("inherited",))
    step = instructions.parse('FROM x\nENTRYPOINT ["e"]').stages[0].steps[0]
    metadata.apply(state, step, "\\")
    assert state.config.cmd is None
    state, _ = after('CMD ["c"]\nENTRYPOINT ["e"]')
    assert state.config.cmd == ("c",)


def test_arguments_of_one_line_do_not_see_each_other() -> None:
    state, _ = after("ENV A=1 B=$A\nENV C=$A")
    assert state.config.env[1:] == ("A=1", "B=", "C=1")


def test_a_health_check_inherits_what_it_leaves_open() -> None:
    state, _ = after("HEALTHCHECK --interval=5s CMD a\nHEALTHCHECK NONE")
    assert state.config.healthcheck == Healthcheck(test=("NONE",), interval=5 * 10**9)


def test_arguments_have_scopes() -> None:
    args = BuildArgs({"A": "given", "U": "unused", "N": None, "http_proxy": "p"})
    args.add_meta("G", "global")
    stage = args.stage()
    assert stage.environment([]) == {"http_proxy": "p"}
    stage.add("A", "default")
    stage.add("G", None)
    stage.add("N", "default")
    rest = {"G": "global", "N": "default", "http_proxy": "p"}
    assert stage.environment(["PATH=x"]) == {"A": "given", **rest}
    assert stage.environment(["A=env"]) == rest
    assert not stage.counts("http_proxy")
    assert stage.counts("A")
    assert args.unused() == ["U"]
    assert args.stage().environment([]) == {"http_proxy": "p"}


def test_stages_are_found_by_name_and_number() -> None:
    stages = Stages()
    stages.add("one", "sha256:1")
    stages.add("", "sha256:2")
    assert stages.find("ONE") == "sha256:1"
    assert stages.find("1") == "sha256:2"
    assert stages.find("busybox") is None
    for name, words in (("2", "refers to current build stage"), ("9", "index out of bounds")):
        with pytest.raises(InvalidParameter, match=words):
            stages.find(name)
    with pytest.raises(InvalidParameter, match="one stage name already used"):
        stages.check_name("one")


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (1_500_000, "1.5ms"),
        (30 * 10**9, "30s"),
        (90 * 10**9, "1m30s"),
        (3600 * 10**9, "1h0m0s"),
        (5_400_250_000_000, "1h30m0.25s"),
    ],
)
def test_durations_are_gos(ns: int, text: str) -> None:
    assert metadata.go_duration(ns) == text
