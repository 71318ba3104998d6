from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine.logging.gotemplate import LONGEST, Value, fill
from hyperstack.errors import InternalError

VALUES: dict[str, Value] = {
    "Name": "web",
    "ID": "abab",
    "Labels": {"b.c": "2", "a": "1"},
    "Env": ("A=1", "B=2"),
}


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ("plain }} text", "plain }} text"),
        ("{{.Name}}/{{ .ID }}", "web/abab"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* nothing */}}x", "x"),
        ('{{"a }"}}{{`b`}}', "a }b"),
        ("{{.Name | upper}}", "WEB"),
        ("{{upper .Name | lower | title}}", "Web"),
        ('{{index .Labels "b.c"}}{{index .Labels "no"}}', "2"),
        ("{{.Labels}} {{.Env}}", "map[a:1 b.c:2] [A=1 B=2]"),
        ("{{json .Labels}}{{json .Env}}", '{"b.c":"2","a":"1"}["A=1","B=2"]'),
        ('{{join .Env ","}} {{truncate .Name 2}} {{len .Env}}', "A=1,B=2 we 2"),
        ("{{.Labels.a}}", "1"),
    ],
)
def test_templates_are_filled_as_go_does(template: str, made: str) -> None:
    assert fill(template, VALUES) == made


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Name", "template: log-tag:1: unclosed action"),
        ("{{}}", "template: log-tag:1: missing value for command"),
        ("{{foo}}", 'template: log-tag:1: function "foo" not defined'),
        ("{{.Name extra}}", 'template: log-tag:1: function "extra" not defined'),
        ("{{-.Name}}", 'template: log-tag:1: bad number syntax: "-.N"'),
        (
            "{{.Foo}}",
            'template: log-tag:1:2: executing "log-tag" at <.Foo>: can\'t evaluate field Foo in '
            "type *logger.Info",
        ),
        (
            "{{.Name.X}}",
            'template: log-tag:1:7: executing "log-tag" at <.Name.X>: can\'t evaluate field X in '
            "type string",
        ),
        ("{{if .Name}}x{{end}}", 'template: log-tag:1: "if" is not supported in a tag'),
    ],
)
def test_wrong_templates_are_refused_in_the_words_of_go(template: str, words: str) -> None:
    with pytest.raises(InternalError) as refused:
        fill(template, VALUES)
    assert refused.value.message == words


@given(st.text('{}.-|" /*`aNameupr0', max_size=30))
def test_any_template_is_filled_or_refused(template: str) -> None:
    try:
        assert len(fill(template, VALUES)) < 1000
    except InternalError as error:
        assert "template: log-tag" in error.message  # noqa: PT017  # both ways out are right


@pytest.mark.parametrize("template", ["x" * (LONGEST + 1), "{{.Name}}" * (LONGEST // 9), "{{" * 9])
def test_a_template_takes_bounded_room(template: str) -> None:
    with pytest.raises(InternalError):
        fill(template, {"Name": "x" * 1000})
