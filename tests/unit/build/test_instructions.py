"""What each instruction takes and refuses."""

from __future__ import annotations

import pytest

from hyperstack.build import instructions
from hyperstack.build.instructions import Instruction
from hyperstack.errors import InvalidParameter


def steps(text: str) -> list[Instruction]:
    return instructions.parse("FROM x\n" + text).stages[0].steps


def test_stages_and_their_names() -> None:
    file = instructions.parse("ARG A=1\nARG B\nfrom $A as One\nRUN x\nFROM --platform=p one\n")
    assert [step.pairs for step in file.meta] == [(("A", "1"),), (("B", None),)]
    assert [(s.base, s.name, s.platform) for s in file.stages] == [
        ("$A", "one", ""),
        ("one", "", "p"),
    ]


def test_both_forms_of_commands() -> None:
    exec_form, shell_form, broken = steps('CMD [ "a", "b c" ]\nCMD a "b c"\nCMD ["a", b]')
    assert (exec_form.args, exec_form.json) == (("a", "b c"), True)
    assert (shell_form.args, shell_form.json) == (('a "b c"',), False)
    assert (broken.args, broken.json) == (('["a", b]',), False)


def test_pairs_in_both_forms() -> None:
    new, old, arg = steps("ENV A=1 \"B C\"='d e'\nLABEL a  b c\nARG A B=2")
    assert new.pairs == (("A", "1"), ('"B C"', "'d e'"))
    assert old.pairs == (("a", "b c"),)
    assert arg.pairs == (("A", None), ("B", "2"))


def test_a_health_check_with_its_times() -> None:
    (step,) = steps('HEALTHCHECK --interval=1m --retries=3 CMD ["a", "b"]')
    assert step.health is not None
    assert step.health.test == ("CMD", "a", "b")
    assert (step.health.interval, step.health.retries) == (60 * 10**9, 3)
    (step,) = steps("HEALTHCHECK CMD curl x")
    assert step.health is not None
    assert step.health.test == ("CMD-SHELL", "curl x")


def test_a_trigger_is_kept_as_written() -> None:
    (step,) = steps("onbuild   RUN echo  $x")
    assert step.args == ("RUN echo  $x",)
    assert instructions.parse_trigger(step.args[0], "\\").keyword == "run"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("FOO x", "unknown instruction: FOO (did you mean FROM?)"),
        ("lable x", "unknown instruction: lable (did you mean label?)"),
        ("nothing x", "unknown instruction: nothing"),
        ("COPY a", "COPY requires at least two arguments, but only one was provided. "
         "Destination could not be determined"),
        ("COPY --foo=1 a b", "unknown flag: --foo (did you mean from?)"),
        ("COPY --from a b", "missing a value on flag: --from"),
        ("COPY --from=a --from=b c d", "duplicate flag specified: --from"),
        ("COPY --link=x a b", "expecting boolean value for flag --link, not: x"),
        ("RUN --network=foo x", 'invalid network mode "foo"'),
        ("RUN --security=x y", "unknown flag: --security"),
        ("ADD --from=a b c", "unknown flag: --from"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV =x", "ENV names can not be blank"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME [\" \"]", "VOLUME specified can not be an empty string"),
        ("SHELL /bin/sh", "SHELL requires the arguments to be in JSON form"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK ping x", 'Unknown type "PING" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK --interval=1us CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1b", 'invalid name for build stage: "1b", name can\'t start with a number or '
         "contain symbols"),
    ],
)  # fmt: skip
def test_a_wrong_instruction_is_refused_with_its_line(line: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        instructions.parse(f"FROM x\n\n{line}\n")
    assert caught.value.message == f"dockerfile parse error on line 3: {words}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FROM x\nENV A", "failed to parse Dockerfile: ENV must have two arguments"),
        ("FROM x\nENV A=1 B", 'failed to parse Dockerfile: Syntax error - can\'t find = in "B". '
         "Must be of the form: name=value"),
        ('FROM x\nCMD ["a", 1]', "failed to parse Dockerfile: when using JSON array syntax, arrays "
         "must be comprised of strings only"),
        ("RUN x", "no build stage in current context"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_at_all_is_refused_without_a_line(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        instructions.parse(text)
    assert caught.value.message == words


def test_label_options_come_last_sorted_and_are_not_expanded() -> None:
    file = instructions.parse("FROM x\nFROM y\nRUN z\n")
    instructions.labelled(file.stages, {"b": "$x", "a": "1"})
    added = file.stages[1].steps[1:]
    assert [step.code for step in added] == ["LABEL a=1", "LABEL b=$x"]
    assert all(step.literal for step in added)
