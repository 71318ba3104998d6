from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.build.changes import apply_changes
from hyperstack.errors import InvalidParameter
from hyperstack.model import ContainerConfig, Healthcheck

S = 10**9
BASE = ContainerConfig(env=("PATH=/bin", "a=old"), cmd=("base",), working_dir="/w")


def changed(*changes: str, base: ContainerConfig | None = None) -> ContainerConfig:
    return apply_changes(base or ContainerConfig(), list(changes))


# Every expectation below is what dockerd 28 answers to the same --change.
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('CMD ["a", "b\\u0041"]', ContainerConfig(cmd=("a", "bA"))),
        ("CMD   echo   hi", ContainerConfig(cmd=("/bin/sh", "-c", "echo   hi"))),
        ('CMD ["a"', ContainerConfig(cmd=("/bin/sh", "-c", '["a"'))),
        ("CMD ['a']", ContainerConfig(cmd=("/bin/sh", "-c", "['a']"))),
        ("CMD", ContainerConfig(cmd=("/bin/sh", "-c"))),
        ("CMD []", ContainerConfig()),
        ("cmd a\\\n b", ContainerConfig(cmd=("/bin/sh", "-c", "a b"))),
        ("cmd a \\\n#c\n b", ContainerConfig(cmd=("/bin/sh", "-c", "a  b"))),
        ("CMD echo $a ${b", ContainerConfig(cmd=("/bin/sh", "-c", "echo $a ${b"))),
        ("ENTRYPOINT echo", ContainerConfig(entrypoint=("/bin/sh", "-c", "echo"))),
        ("ENTRYPOINT []", ContainerConfig()),
        ("CMD x\nENTRYPOINT y", ContainerConfig(
            cmd=("/bin/sh", "-c", "x"), entrypoint=("/bin/sh", "-c", "y"))),
        ("ENV a  b  c ", ContainerConfig(env=("a=b  c",))),
        ("ENV a='x y' b=\"$a z\" c=${a:-q}", ContainerConfig(env=("a=x y", "b= z", "c=q"))),
        ("ENV a=b\\ c d=e", ContainerConfig(env=("a=b c", "d=e"))),
        ("ENV a=\"q\\\"r\\x\" b='\\n'", ContainerConfig(env=('a=q"r\\x', "b=\\n"))),
        ("ENV a=x\"y\"'z'", ContainerConfig(env=("a=xyz",))),
        ("ENV a=b=c", ContainerConfig(env=("a=b=c",))),
        ("ENV a b=c", ContainerConfig(env=("a=b=c",))),
        ("ENV a=1\nENV b=$a", ContainerConfig(env=("a=1", "b=1"))),
        ("ENV x=\\$y", ContainerConfig(env=("x=$y",))),
        ("ENV a=$", ContainerConfig(env=("a=$",))),
        ("ENV a=\\\n1", ContainerConfig(env=("a=1",))),
        ("LABEL \"a b\"=c d='e\"f'", ContainerConfig(labels={"a b": "c", "d": 'e"f'})),
        ("LABEL a b", ContainerConfig(labels={"a": "b"})),
        ("EXPOSE 80-82/udp 99", ContainerConfig(
            exposed_ports=("80/udp", "81/udp", "82/udp", "99/tcp"))),
        ("EXPOSE 80/TCP", ContainerConfig(exposed_ports=("80/tcp",))),
        ("EXPOSE 8080:80", ContainerConfig(exposed_ports=("80/tcp",))),
        ("ENV a=foobar\nENV b=${a%bar}", ContainerConfig(env=("a=foobar", "b=foo"))),
        ("USER a b", ContainerConfig(user="a b")),
        ('VOLUME ["/a b","c"]', ContainerConfig(volumes=("/a b", "c"))),
        ("VOLUME /a /b", ContainerConfig(volumes=("/a", "/b"))),
        ("WORKDIR a/../b", ContainerConfig(working_dir="/b")),
        ("WORKDIR /a//b/", ContainerConfig(working_dir="/a/b")),
        ("ONBUILD run   x y", ContainerConfig(on_build=("run   x y",))),
        ("HEALTHCHECK NONE", ContainerConfig(healthcheck=Healthcheck(test=("NONE",)))),
        ("HEALTHCHECK --interval=5s --retries=3 CMD curl x", ContainerConfig(
            healthcheck=Healthcheck(test=("CMD-SHELL", "curl x"), interval=5 * S, retries=3))),
        ('HEALTHCHECK --timeout=1m --start-period=1s500ms CMD ["a"]', ContainerConfig(
            healthcheck=Healthcheck(test=("CMD", "a"), timeout=60 * S, start_period=3 * S // 2))),
        ("#x\n\nUSER q", ContainerConfig(user="q")),
    ],
)  # fmt: skip
def test_an_instruction_does_what_docker_makes_of_it(
    change: str, expected: ContainerConfig
) -> None:
    assert changed(change) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ENTRYPOINT y", None),
        ("ENV c=1", ("base",)),
        ("ENTRYPOINT y\nCMD x", ("/bin/sh", "-c", "x")),
    ],
)  # fmt: skip
def test_commands_follow_shell_and_entrypoint(
    change: str, expected: tuple[str, ...] | None
) -> None:
    assert changed(change, base=BASE).cmd == expected


def test_variables_come_from_what_is_there_and_are_replaced_in_place() -> None:
    made = changed("ENV PATH=$PATH:/sbin a=${a}er", "WORKDIR sub/$a", base=BASE)
    assert made.env == ("PATH=/bin:/sbin", "a=older")
    assert made.working_dir == "/w/sub/older"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("foo", "foo is not a valid change command"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV =x", "ENV names can not be blank"),
        ("ENV a=b c", 'Syntax error - can\'t find = in "c". Must be of the form: name=value'),
        ("LABEL", "LABEL requires at least one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("EXPOSE foo", "Invalid containerPort: foo"),
        ("EXPOSE 70000", "Invalid containerPort: 70000"),
        ("EXPOSE 1/xyz", "Invalid proto: xyz"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("STOPSIGNAL FOO", "invalid signal: FOO"),
        ("shell a", "shell is not a valid change command"),
        ("# nothing", "file with no instructions"),
        ("ENTRYPOINT [1]",
         "when using JSON array syntax, arrays must be comprised of strings only"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK foo", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=1us CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --interval=x CMD x", 'time: invalid duration "x"'),
        ("HEALTHCHECK --retries=a CMD x", 'strconv.ParseInt: parsing "a": invalid syntax'),
        ("HEALTHCHECK --foo=1 CMD x", "unknown flag: --foo"),
        ('ENV a="x', 'failed to process "\\"x": unexpected end of statement while looking for '
                     "matching double-quote"),
        ("ENV a=${b:?err}", 'failed to process "${b:?err}": b: err'),
    ],
)  # fmt: skip
def test_a_wrong_instruction_is_refused_in_docker_s_words(change: str, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        changed(change)
    assert caught.value.message == sentence


@given(st.text(max_size=60), st.sampled_from(["ENV", "LABEL", "CMD", "HEALTHCHECK", "EXPOSE"]))
def test_noise_is_taken_or_refused_but_nothing_else(noise: str, keyword: str) -> None:
    try:
        changed(f"{keyword} {noise}", base=BASE)
    except InvalidParameter:
        pass


def test_expansion_is_bounded() -> None:
    lines = ["ENV a=" + "x" * 1000] + ["ENV a=" + "$a" * 1000] * 3
    with pytest.raises(InvalidParameter, match="too long"):
        changed(*lines)
    with pytest.raises(InvalidParameter, match="nested too deep"):
        changed("ENV a=" + "${b:-" * 100 + "}" * 100)
