import re

import pytest

from llama_jax.chat import template_sandbox
from llama_jax.chat.messages import Message
from llama_jax.chat.template import TemplateFormat
from llama_jax.errors import InputError

DOUBLE = (
    "{% set n = namespace(x='x') %}"
    "{% for a in range(60) %}{% set n.x = n.x OPERATOR n.x %}{% endfor %}"
)


@pytest.fixture
def small_bounds(monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_STEPS", 1000)
    monkeypatch.setattr(template_sandbox, "MAX_CHARACTERS", 10_000)


def run(template, tokenizer):
    return TemplateFormat(template, tokenizer).render(
        [Message("user", "Hi")], add_generation_prompt=True
    )


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in range(9999) if false %}{% endfor %}",
        "{% for a in [[[]]] recursive %}{{ loop([a]) }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{{ (f(n - 1) ~ f(n - 1)) if n }}{% endmacro %}{{ f(60) }}",
        "{% for a in range(999) %}{{ 'x' * 999 }}{% endfor %}",
        "{{ 'x' * 9999999999 }}",
        "{{ 9999999999 * [1] }}",
        "{{ 9 ** 99999 }}",
        DOUBLE.replace("OPERATOR", "~"),
        DOUBLE.replace("OPERATOR", "+"),
        "{{ range(99999999) | length }}",
        "{{ lipsum(n=9999) }}",
    ],
)
def test_templates_that_would_not_end_are_stopped(small_bounds, tiny_tokenizer, template):
    with pytest.raises(InputError) as error:
        run(template, tiny_tokenizer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ raise_exception.__globals__.json }}",
        "{{ strftime_now.__self__.year }}",
        "{{ cycler.__init__.__globals__.os.system('exit') }}",
        "{{ self.__init__.__globals__ }}",
        "{{ messages | attr('__class__') }}.{{ (messages | attr('__class__')).__mro__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content + 1 }}",
        "{{ undefined_thing.x }}",
    ],
)
def test_templates_cannot_leave_the_sandbox_or_crash(tiny_tokenizer, template):
    with pytest.raises(InputError) as error:
        run(template, tiny_tokenizer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}",
        "{{ 'x' | no_such_filter }}",
        "{{ unclosed",
        "{% generation %}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{% for a in b %}" * 50 + "{% endfor %}" * 50,
    ],
)
def test_invalid_templates_are_refused_when_read(tiny_tokenizer, template):
    with pytest.raises(InputError, match="not a valid template") as error:
        TemplateFormat(template, tiny_tokenizer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            "{% for a in range(9) if a % 2 %}{% if a > 5 %}{% break %}{% endif %}{{a}}{% endfor %}",
            "135",
        ),
        ("{{ 'a' ~ 1 ~ none ~ missing ~ [2] }}", "a1None[2]"),
        (
            "{{ [1] + [2] }}{{ 2 ** 10 }}{{ 'ab' * 2 }}{{ 3 * 4 }}{{ 1.5 + 1 }}",
            "[1, 2]1024abab122.5",
        ),
        ("{{ {'é': '<&>'} | tojson }}", '{"é": "<&>"}'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        (
            "{% macro f(x) %}<{{ x }}{{ caller() }}>{% endmacro %}{% call f(1) %}&{% endcall %}",
            "<1&>",
        ),
        ("  {% if true %}\nx\n  {% endif %}\n", "x\n"),
        ("{% generation %}a{{ 'b' }}{% endgeneration %}", "ab"),
        (
            "{{ tools is none }} {{ documents is none }} {{ bos_token is defined }}",
            "True True False",
        ),
    ],
)
def test_dialect(tiny_tokenizer, template, text):
    assert run(template, tiny_tokenizer) == text


def test_dialect_equals_transformers(tiny_tokenizer):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    marks = [mark for mark in test_dialect.pytestmark if mark.name == "parametrize"]
    for template, text in marks[0].args[1]:
        rendered, _ = utils.render_jinja_template(
            [[{"role": "user", "content": "Hi"}]],
            chat_template=template,
            add_generation_prompt=True,
        )
        assert re.sub(r"\s+$", "", rendered[0]) == re.sub(r"\s+$", "", text)
