"""Templates that read messages only in a form of their own."""

from typing import Any

import pytest

from pilotlight.chat.template import ChatTemplate
from pilotlight.errors import BadRequest

HELLO = {"role": "user", "content": "hi"}

PARTS = """{% for m in messages %}
{{ m.role }}:
{%- for part in m.content %}{% if part.type == 'text' %} {{ part.text }}{% endif %}{% endfor %}

{% endfor %}"""

STRICT_PARTS = (
    "{% for m in messages %}{% for part in m.content %}{{ part.text + ' ' }}{% endfor %}{% endfor %}"
)

BARE_CALLS = """{% for m in messages %}
{% if m.role == 'assistant' and m.content is none %}
{% for call in m.tool_calls %}[{{ call.function.name + call.function.arguments }}]{% endfor %}
{% elif m.content is not none %}
<{{ m.content }}>
{%- endif %}
{% endfor %}"""

CHANNELS = """{% for m in messages %}
{% if m.role == 'assistant' and '<|channel|>' in m.content %}
{{ raise_exception('no thoughts') }}
{% endif %}
<|start|>{{ m.role }}<|channel|>final<|message|>{{ m.content }}<|end|>
{%- endfor %}<|start|>assistant"""

THOUGHT = "<|channel|>analysis<|message|>They greet.<|end|>"
CALLING = "<|start|>assistant to=functions.look<|channel|>commentary <|constrain|>json<|message|>{}"


def render(source: str, *messages: dict[str, Any]) -> str:
    return ChatTemplate(source, bos="", eos="").render(messages, {})


def called(content: str = "", arguments: Any = None) -> dict[str, Any]:
    function = {"name": "look", "arguments": {"at": "é"} if arguments is None else arguments}
    return {"role": "assistant", "content": content, "tool_calls": [{"id": "c1", "function": function}]}


def test_what_is_read_only_in_parts_is_given_in_parts() -> None:
    """Templates of models that see would leave out a text without a word, whoever says it."""
    system = {"role": "system", "content": "be kind"}
    assert render(PARTS, system, HELLO) == "system: be kind\nuser: hi\n"


def test_a_template_that_fails_on_text_is_given_parts() -> None:
    """It takes letters for parts."""
    assert render(STRICT_PARTS, HELLO) == "hi "


def test_who_reads_both_is_given_text() -> None:
    """And so is who reads neither."""
    both = "{% set c = messages[0].content %}{{ c if c is string else c[0].text ~ '!' }}"
    assert render(both, HELLO) == "hi"
    assert render("{{ messages[0].content is string }}", HELLO) == "True"


def test_a_template_that_wants_more_than_one_message_is_given_text() -> None:
    """A lone one proves nothing."""
    source = "{% if messages | length == 1 %}{{ raise_exception('two') }}{% endif %}{{ messages[1].content }}"
    assert render(source, HELLO, HELLO) == "hi"


def test_calls_that_are_read_only_without_content_are_given_so() -> None:
    """As DeepSeek-R1's template wants them, with arguments as JSON; no word of the message is lost."""
    assert render(BARE_CALLS, HELLO, called()) == '<hi>[look{"at": "é"}]'
    assert render(BARE_CALLS, HELLO, called("Let me see.")) == '<hi><Let me see.>[look{"at": "é"}]'


def test_arguments_that_were_text_stay_as_they_are() -> None:
    """They are no JSON."""
    assert render(BARE_CALLS, called(arguments="{")) == "[look{]"


def test_a_template_that_reads_calls_is_given_objects() -> None:
    """Most write them as JSON themselves; one that knows of no calls is no reason for another form."""
    call = "{{ m.tool_calls[0].function | tojson if m.tool_calls }}"
    source = f"{{% for m in messages %}}{{{{ m.content }}}}{call}{{% endfor %}}"
    assert render(source, HELLO, called("!")) == 'hi!{"name": "look", "arguments": {"at": "é"}}'
    assert render("{{ messages[0].content }}", called("!")) == "!"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{{ f.arguments }}", 'look{"at": "é", "x": true}'),
        ("{{ f.arguments | tojson }}", 'look{"at": "é", "x": true}'),
        (
            "{% for name, value in f.arguments.items() %} {{ name }}={{ value }}{% endfor %}",
            "look at=é x=True",
        ),
        (
            "{{ m.tool_calls }}",
            "look[{'id': 'c1', 'function': {'name': 'look', 'arguments': {'at': 'é', 'x': True}}}]",
        ),
    ],
    ids=["just as they are", "as JSON", "one by one", "with all of the call, as Python does"],
)
def test_arguments_that_would_be_written_as_python_does_are_given_as_json(
    written: str, expected: str
) -> None:
    """A template that would write JSON in quotes as well is given objects, as all others."""
    said = "{{ m.content }}{% if m.tool_calls %}{% set f = m.tool_calls[0].function %}{{ f.name }}"
    source = f"{{% for m in messages %}}{said}{written}{{% endif %}}{{% endfor %}}"
    assert render(source, called(arguments={"at": "é", "x": True})) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (f"{THOUGHT}<|start|>assistant<|channel|>final<|message|>Hi", "Hi"),
        (f"{THOUGHT}<|start|>assistant<|channel|>final<|message|>Hi<|end|>", "Hi"),
        (f"{THOUGHT}<|start|>assistant<|channel|>final <|constrain|>json<|message|>{{}}", "{}"),
        (f"{THOUGHT}<|start|>assistant<|channel|>final<|constrain|>json<|message|>{{}}", "{}"),
        (f"{THOUGHT}<|start|>assistant<|channel|>final json<|message|>{{}}<|end|>", "{}"),
        (THOUGHT.removesuffix("t.<|end|>"), ""),
        (f"{THOUGHT}<|start|>assistant{THOUGHT}", ""),
        (f"{THOUGHT}{CALLING}", ""),
        (f"{CALLING.removeprefix('<|start|>assistant')}", ""),
        (f"<|channel|>commentary<|message|>I look.<|end|>{CALLING}", ""),
        (f"{THOUGHT}<|start|>", ""),
        (f"{THOUGHT}<|start|>assistant", ""),
        (f"{THOUGHT}<|start|>assistant to=functions", ""),
        (f"{THOUGHT}<|start|>assistant<|channel|>fin", ""),
        (f"{THOUGHT}<|start|>assistant<|channel|>final <|constrain|>js", ""),
        ("<|channel|>", ""),
        ("Hi", "Hi"),
        ("", ""),
        ("<|start|>assistant begins an answer", "<|start|>assistant begins an answer"),
    ],
)
def test_a_template_with_channels_is_given_the_answer_only(answer: str, expected: str) -> None:
    """Clients send back all that was said, and gpt-oss refuses its own thoughts."""
    text = render(CHANNELS, HELLO, {"role": "assistant", "content": answer}, HELLO)
    assert f"<|start|>assistant<|channel|>final<|message|>{expected}<|end|><|start|>user" in text


@pytest.mark.parametrize(
    "mark", ["<|channel|>final", "<|channel|>final<|constrain|>", "<|start|>assistant to=", "<|start|>"]
)
def test_headers_without_an_end_take_no_more_time_than_other_text(mark: str) -> None:
    """As many as there may be, or a long one."""
    source = "{# <|channel|> #}{{ messages[0].content }}"
    for answer in (mark * 50_000 + "<", mark + "a" * 1_000_000 + "<"):
        assert render(source, {"role": "assistant", "content": answer}) == answer


@pytest.mark.parametrize("said", [THOUGHT, THOUGHT + CALLING, "<|start|>assistant"])
def test_a_template_without_channels_is_given_what_was_said(said: str) -> None:
    """And what somebody else says is theirs."""
    assert render("{{ messages[0].content }}", {"role": "assistant", "content": said}) == said
    assert THOUGHT in render(CHANNELS, {"role": "user", "content": THOUGHT})


def test_the_next_turn_of_a_template_with_channels_begins_with_the_answer_only() -> None:
    """What is computed ahead is what will be asked."""
    template = ChatTemplate(CHANNELS, bos="", eos="")
    answer = f"{THOUGHT}<|start|>assistant<|channel|>final<|message|>Hi"
    opening = template.opening([HELLO], answer, {})
    said = [HELLO, {"role": "assistant", "content": answer}, {"role": "user", "content": "Bye"}]
    assert opening.endswith("<|message|>Hi<|end|><|start|>user<|channel|>final<|message|>")
    assert template.render(said, {}).startswith(opening)


def test_a_template_that_refuses_everything_still_does() -> None:
    """In its own words."""
    with pytest.raises(BadRequest, match="never"):
        render("{{ raise_exception('never') }}", HELLO, called())
