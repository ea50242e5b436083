"""Templates as models bring them, and as a stranger might write them."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

import pytest

from pilotlight.chat.bounds import MAX_CHARS
from pilotlight.chat.sandbox import LIMIT_S
from pilotlight.chat.template import MAX_WORDS, ChatTemplate
from pilotlight.errors import BadRequest

HELLO = [{"role": "user", "content": "hi"}]

CHATML = """{% for m in messages %}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""

LLAMA = """{{- bos_token }}
{%- set today = strftime_now("%Y") %}
{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "[system]" ~ today ~ "|" ~ system ~ eos_token }}
{%- for m in messages %}
    {%- if (m.role == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}
    {{- "[" + m.role + "]" + m.content + eos_token }}
{%- endfor %}"""

TOOLS = """{%- if tools %}
<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>
{%- endif %}
{%- for m in messages %}
    {%- if m.content is not string %}
        {%- continue %}
    {%- endif %}
    {{- m.content }}
    {%- if m.tool_calls is defined %}{{- m.tool_calls[0].function | tojson(indent=1) }}{%- endif %}
    {%- if loop.index == 2 %}{%- break %}{%- endif %}
{%- endfor %}"""


def render(source: str, messages: list[dict[str, Any]] = HELLO, **kwargs: Any) -> str:
    return ChatTemplate(source, bos="<s>", eos="</s>").render(messages, kwargs)


def refusal(source: str, messages: list[dict[str, Any]] = HELLO, **kwargs: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        render(source, messages, **kwargs)
    return caught.value


def test_chatml_is_rendered_as_written() -> None:
    """Blocks leave no blank lines behind, and the answer's turn is opened."""
    assert render(CHATML) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_knows_the_vocabulary_and_the_date() -> None:
    """As Llama's do."""
    system = [{"role": "system", "content": " be kind "}, *HELLO]
    assert render(LLAMA, system) == f"<s>[system]{time.strftime('%Y')}|be kind</s>[user]hi</s>"


def test_a_template_may_refuse_messages() -> None:
    """In its own words, and the field is named."""
    error = refusal(LLAMA, [*HELLO, *HELLO])
    assert "roles must alternate" in error.message
    assert error.param == "messages"


def test_loops_may_be_left_and_continued() -> None:
    """`break` and `continue` are no part of plain Jinja."""
    messages = [{"content": None}, {"content": "a"}, {"content": "b"}]
    assert render(TOOLS, messages) == "a"


def test_tools_are_written_as_json() -> None:
    """Characters as they are, without HTML."""
    tool = {"name": "é<b>"}
    call = {"content": "c", "tool_calls": [{"function": tool}]}
    assert (
        render(TOOLS, [call], tools=[tool])
        == f'<tools>{{"name": "é<b>"}}</tools>c{json.dumps(tool, ensure_ascii=False, indent=1)}'
    )


def test_a_request_sets_variables() -> None:
    """Switches like `enable_thinking`."""
    source = "{{ 'think' if enable_thinking is defined and enable_thinking else 'no' }}"
    assert (render(source), render(source, enable_thinking=True)) == ("no", "think")


def test_a_request_does_not_set_the_vocabulary() -> None:
    """That is the model's."""
    assert render("{{ bos_token }}", bos_token="other") == "<s>"


def test_marks_for_training_mean_nothing() -> None:
    """Their inside is rendered."""
    assert render("{% generation %}{{ messages[0].content }}{% endgeneration %}!") == "hi!"


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in %}",
        "{{ messages[5].content }}",
        "{{ messages[0].content.no.such }}",
        "{{ 1 / 0 }}",
        "{{ [] + 1 }}",
        "{{ messages[0]['content'] | round }}",
        "{{ 'x' | no_such_filter }}",
        "{% include 'other' %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% break %}",
        "{% for a in [1] %}" * 22 + "{% endfor %}" * 22,
        "{% if 1 %}" * 101 + "{% endif %}" * 101,
        "{{ '\\ud800' }}",
        "{{ strftime_now('x' * 999) }}",
    ],
)
def test_a_template_that_fails_names_the_messages(source: str) -> None:
    """With another kind of message it might not."""
    assert refusal(source).param == "messages"


@pytest.mark.parametrize("text", ["'\\ud800'", "'x' * 9999999", "{}[('\\ud800',) * 99999].x"])
def test_the_words_of_a_template_are_short_enough_to_send(text: str) -> None:
    """And have no characters that cannot be."""
    message = refusal(f"{{{{ raise_exception({text}) }}}}").message
    assert len(message.encode()) < 2 * MAX_WORDS


@pytest.mark.parametrize("name", ["messages", "self"])
def test_a_variable_that_hides_ours_is_refused(name: str) -> None:
    """And does not end the worker."""
    with pytest.raises(BadRequest, match="multiple values"):
        ChatTemplate(CHATML, bos="", eos="").render(HELLO, {name: 1})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.json }}",
        "{{ (messages | attr('append'))(1) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ messages[0].pop('content') }}",
        "{{ '{0.__class__.__mro__[1]}'.format(1) }}",
        "{{ self.__init__.__func__.__globals__ }}",
    ],
)
def test_a_template_reaches_and_changes_nothing(source: str) -> None:
    """Its messages are as they were."""
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(BadRequest):
        render(source, messages)
    assert messages == HELLO


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{{ messages[0].content }}{% endfor %}",
        "{% set s = 'x' * 9999999 %}{{ s }}{{ s }}",
    ],
)
def test_a_template_that_writes_for_ever_is_stopped(source: str) -> None:
    """At more than any body may hold."""
    messages = [{"role": "user", "content": "x" * 99999}]
    assert f"renders more than {MAX_CHARS} characters" in refusal(source, messages).message


@pytest.mark.parametrize(
    "source",
    ["{{ 9 ** 9 ** 9 }}", "{{ 'x' * 10000000000 }}", "{{ [1] * 10000000000 }}", "{{ 10000000000 * 'x' }}"],
)
def test_one_expression_takes_neither_all_memory_nor_all_time(source: str) -> None:
    """No clock could interrupt it."""
    assert "unsafe" in refusal(source).message


NEST = "{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        "{% set r = range(99999) %}" + NEST,
        "{% set r = range(99999) %}{% for a in r %}{% for b in r if b < 0 %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "{% for a in [1] recursive %}{% if loop.depth < 99 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
        "{% macro g() %}{{ caller() }}{{ caller() }}{% endmacro %}"
        "{% macro f(n) %}{% call g() %}{{ f(n - 1) if n }}{% endcall %}{% endmacro %}{{ f(50) }}",
    ],
)
def test_a_template_that_loops_for_ever_is_stopped(source: str) -> None:
    """Though it writes nothing; every look at this clock is a millisecond later."""
    template = ChatTemplate(source, bos="", eos="", clock=_clock(count()))
    with pytest.raises(BadRequest, match=f"runs for more than {LIMIT_S:g} s"):
        template.render(HELLO, {})


def test_every_render_has_the_whole_time() -> None:
    """It does not pay for those before it."""
    template = ChatTemplate(CHATML, bos="", eos="", clock=_clock(count()))
    many = HELLO * int(LIMIT_S * 1000 * 0.1)  # as every piece that is written is a look, too
    for _ in range(3):
        template.render(many, {})


def _clock(ticks: Iterator[int]) -> Callable[[], float]:
    return lambda: next(ticks) / 1000


def test_a_template_may_put_messages_before_those_of_the_conversation() -> None:
    """Many give a system prompt so, if there is none; lists are joined only to lists."""
    source = "{% set messages = [{'content': 'be kind'}] + messages %}{{ messages | join(' ', 'content') }}"
    assert ChatTemplate(source, bos="", eos="").render(tuple(HELLO), {}) == "be kind hi"


def test_messages_may_be_any_mapping() -> None:
    """And content any JSON."""
    parts: Mapping[str, Any] = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    assert render("{{ messages[0].content[0].text }}", [dict(parts)]) == "hi"
