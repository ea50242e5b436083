"""What a hostile template may try in one expression, or in many, and what real ones do."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from pilotlight.chat import sandbox
from pilotlight.chat.bounds import MAX_CHARS
from pilotlight.chat.sandbox import LIMIT_S, MAX_BITS, MAX_BYTES
from pilotlight.chat.template import ChatTemplate
from pilotlight.errors import BadRequest

LONG = "{% set s = 'x' * 9999999 %}{% set many = [s] * 1000 %}"
"""A text, and a list of it: what a template may have."""

NESTED = "{% set n = namespace(l=['x']) %}{% for i in range(60) %}{% set n.l = (n.l, n.l) %}{% endfor %}"
"""Sixty pairs; written, a quintillion of characters."""

LOOP = "{% set n = namespace(s='xx', l=['x']) %}{% for i in range(9999) %}{% set "
"""Needs the rest of an assignment and `END`."""

END = " %}{% endfor %}"


def render(source: str, messages: list[dict[str, Any]] | None = None) -> str:
    """Its clock stands still: what ends does so for another reason."""
    template = ChatTemplate(source, bos="<s>", eos="</s>", clock=lambda: 0.0)
    return template.render(messages or [{"role": "user", "content": "hi"}], {})


def refusal(source: str) -> str:
    with pytest.raises(BadRequest) as caught:
        render(source)
    return caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "{{ ('%9999999999s' % 'x') | length }}",
        "{{ '%.9999999999f' % 1 }}",
        "{{ '%(a(b))9999999999s' % {'a(b)': 1} }}",
        "{{ '%9999999999s' | format('x') }}",
        "{{ '%9999999999d' is odd }}",
        "{{ '%9999999999s' is divisibleby('x') }}",
        "{{ ('%s' * 1000) % ((s,) * 1000) }}",
        "{{ '{:9999999999}'.format('x') }}",
        "{{ '{:9999999999}'['format']('x') }}",
        "{{ ('{:9999999999}' | attr('format'))('x') }}",
        "{{ ('{0}' * 1000).format(s) }}",
        LOOP + "n.s = n.s ~ n.s" + END,
        LOOP + "n.s = n.s + n.s" + END,
        LOOP + "n.l = n.l + n.l" + END,
        "{{ 'aaa'.replace('a', s) }}",
        "{{ 'aaa' | replace('a', s) }}",
        "{{ s | replace('', 'long') }}",
        "{{ s.join(['a', 'b', 'c']) }}",
        "{{ ''.join(many) }}",
        "{{ ''.join(many | map('string')) }}",
        "{{ many | join }}",
        "{{ many | map('string') | join }}",
        "{{ ['a', 'b', 'c'] | join(s) }}",
        "{{ many }}",
        "{{ many | string }}",
        "{{ many ~ '' }}",
        "{{ many | tojson }}",
        "{{ [1] | tojson(indent=9999999999) }}",
        "{{ [1, 2, 3] | tojson(separators=(s, s)) }}",
        "{{ 'a\nb' | indent(9999999999) }}",
        "{{ s | list }}",
        "{{ s | sort }}",
        "{{ s | map('upper') }}",
        "{{ s | title }}",
        "{{ many | sort }}",
        "{{ many | unique | list }}",
        "{{ ([[1] * 10000] * 10000) | sum(start=[]) }}",
        "{{ (s ~ ' y').split('x') }}",
        "{{ s.rfind('x' * 999999) }}",
        "{{ s.strip('y' * 999999) }}",
        "{{ s | trim('y' * 999999) }}",
        "{{ 5 | round(-9999999999) }}",
    ],
)
def test_what_would_be_too_long_is_refused_before_it_is_made(source: str) -> None:
    """It would take all memory, or for ever, and no clock could interrupt it."""
    assert f"makes more than {MAX_CHARS} characters at once" in refusal(LONG + source)


@pytest.mark.parametrize(
    "source",
    [
        "{% set x %}{% for i in range(99999) %}{{ s }}{% endfor %}{% endset %}",
        "{% macro f() %}{% for i in range(99999) %}{{ s }}{% endfor %}{% endmacro %}{{ f() }}",
        "{% filter upper %}{% for i in range(99999) %}{{ s }}{% endfor %}{% endfilter %}",
        "{{ self.a() | length }}{% block a %}{% for i in range(99999) %}"
        + "x" * 999
        + "{% endfor %}{% endblock %}",
    ],
)
def test_what_is_written_at_length_is_refused_before_it_is_one_text(source: str) -> None:
    """Nobody reads it, but it would be kept."""
    assert f"renders more than {MAX_CHARS} characters" in refusal(LONG + source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ n.l }}",
        "{{ n }}",
        "{{ '%s' % n.l }}",
        "{{ '{}'.format(n.l) }}",
        "{{ n.l | upper }}",
        "{{ n.l is upper }}",
        "{{ [n.l] | min }}",
        "{{ {1: n.l}.values() }}",
        "{{ raise_exception(n.l) }}",
        "{{ {}[n.l].x }}",
        "{{ [].index(n.l) }}",
    ],
)
def test_what_has_no_end_is_not_written(source: str) -> None:
    """Not even in the words of an error."""
    assert f"makes more than {MAX_CHARS} characters at once" in refusal(NESTED + source)


def test_text_that_is_marked_as_html_is_refused() -> None:
    """It has methods of its own, which nothing bounds."""
    source = (
        "{% autoescape true %}{% set m %}{{ s }}{% endset %}{{ m.join(range(30000)) }}{% endautoescape %}"
    )
    assert "has text marked as HTML" in refusal(LONG + source)


def test_a_number_without_end_is_refused() -> None:
    """Python would read a name where Jinja writes it."""
    assert "is no number" in refusal("{{ 1e999 }}")


@pytest.mark.parametrize(
    "source", ["{{ '%*d' % (9999999999, 1) }}", "{{ '{:{w}}'.format('x', w=9999999999) }}"]
)
def test_a_width_that_is_computed_is_refused(source: str) -> None:
    """It is not known how wide."""
    assert "unsafe" in refusal(source)


@pytest.mark.parametrize(
    "source",
    [
        LOOP + "n.l = [n.l, s ~ i]" + END,
        LOOP + "n.l = [n.l, s[1:]]" + END,
        LOOP + "n.l = [n.l, s | upper]" + END,
        LOOP + "n.l = [n.l, (s ~ 'y').split('y')[0]]" + END,
        LOOP + "n.l = [n.l, many + many, many + many, many + many, many + many]" + END,
        LOOP + "n.l = [n.l," + "0," * 9999 + "]" + END,
        LOOP + "n.l = [n.l, cycler(*(many * 99))]" + END,
        "{% set keys = {}.fromkeys(range(99999)).keys() %}" + LOOP + "n.l = [n.l, keys - []]" + END,
    ],
)
def test_what_a_template_holds_is_limited(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of it is short enough, and there is time to make a lot; a quarter of it is sooner made."""
    monkeypatch.setattr(sandbox, "MAX_BYTES", limit := MAX_BYTES // 4)
    assert f"holds more than {limit} bytes" in refusal(LONG + source)


def test_what_a_template_lets_go_of_does_not_count() -> None:
    """Some real ones make the whole conversation anew for each message."""
    source = LONG + LOOP.replace("9999", "50") + "n.s = s ~ i" + END + "{{ n.s[-2:] }}"
    assert render(source) == "49"


@pytest.mark.parametrize(
    "source",
    [
        "{% set x = 0x" + "f" * 999 + " %}",
        "{% set n = namespace(i=99) %}{% for i in range(99) %}{% set n.i = n.i * n.i %}{% endfor %}",
        "{{ (('f' * 999) | int(0, 16)) is odd }}",
    ],
)
def test_numbers_do_not_grow_for_ever(source: str) -> None:
    """To divide long ones takes hours."""
    assert f"more than {MAX_BITS} bits" in refusal(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages }}",
        "{{ 'x' }}",
        "{% set x = messages[0].content.upper() %}",
        "{% set x = messages | length %}",
        "{% set x = messages[0]['content'] %}",
        "{% set x = messages[0].content ~ 'x' %}",
    ],
)
def test_many_expressions_in_a_straight_line_end(source: str) -> None:
    """Every look at this clock is a hundredth of the time later."""
    ticks: Iterator[int] = count()
    template = ChatTemplate(source * 101, bos="", eos="", clock=lambda: next(ticks) * LIMIT_S / 100)
    with pytest.raises(BadRequest, match=f"runs for more than {LIMIT_S:g} s"):
        template.render([{"role": "user", "content": "hi"}], {})


@pytest.mark.parametrize("name", ["center", "expandtabs", "format_map", "ljust", "rjust", "zfill"])
def test_methods_that_make_much_of_little_are_not_there(name: str) -> None:
    """No chat template has a use for them."""
    assert f"access to attribute '{name}' of 'str' object is unsafe" in refusal(f"{{{{ 'x'.{name}(99) }}}}")


@pytest.mark.parametrize("name", ["to_bytes", "from_bytes"])
def test_numbers_have_no_bytes(name: str) -> None:
    """One method makes as many of them as it is told."""
    assert "unsafe" in refusal(f"{{{{ (1).{name}(9999999999, 'big') }}}}")


@pytest.mark.parametrize("name", ["batch", "center", "pprint", "slice", "urlize", "wordwrap"])
def test_filters_that_are_slow_are_not_there(name: str) -> None:
    """No chat template has a use for them."""
    assert f"No filter named '{name}'" in refusal(f"{{{{ 'x' | {name} }}}}")


def test_there_is_no_lorem_ipsum() -> None:
    """It makes as much of it as it is told."""
    assert "'lipsum' is undefined" in refusal("{{ lipsum(n=9999999) }}")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ ' a ' | trim }}{{ 'ab' | length }}{{ 'xxa' | trim('x') }}", "a2a"),
        ("{{ {'a': [1, 'é']} | tojson }}", '{"a": [1, "é"]}'),
        ("{{ {'a': [1]} | tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
        ("{{ messages | map(attribute='role') | join(', ') }}", "user, assistant"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        (
            "{{ messages | rejectattr('role', 'in', ['user']) | map('tojson') | first }}",
            '{"role": "assistant"}',
        ),
        ("{{ [1, 'a', none] | select('string') | list }}{{ [1, 2] | reject('odd') | first }}", "['a']2"),
        (
            "{{ (messages | last).role | upper }}{{ 'a b' | title }}{{ 'a B' | capitalize }}",
            "ASSISTANTA BA b",
        ),
        ("{{ 'a-a' | replace('a', 'bb') }}{{ 'aaa'.replace('a', 'b', 1) }}", "bb-bbbaa"),
        ("{% for k, v in {'b': 1} | items %}{{ k }}{{ v }}{% endfor %}", "b1"),
        ("{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}", "a2b1"),
        ("{{ x | default('d') }}{{ 'a\nb' | indent(2) }}{{ '%s=%02d' | format('a', 7) }}", "da\n  ba=07"),
        ("{{ '7' | int + '1.5' | float }}{{ 2.456 | round(1) }}{{ [1, 2] | sum }}", "8.52.53"),
        (
            "{{ [2, 1, 2] | unique | sort | list }}{{ [1, 2] | reverse | list }}{{ 'ab' | reverse }}",
            "[1, 2][2, 1]ba",
        ),
        ("{{ '<' | safe + '<' }}{{ '<' | e }}{{ '<' | escape + '<' }}", "<<&lt;&lt;<"),
        (
            "{% for g in messages | groupby('role') %}{{ g.grouper }}{{ g.list | length }}{% endfor %}",
            "assistant1user1",
        ),
        (
            "{{ 'a,b'.split(',') }}{{ 'a b c'.rsplit(' ', 1)[0] }}{{ 'a\nb'.splitlines() | last }}",
            "['a', 'b']a bb",
        ),
        (
            "{{ ' a '.strip() }}{{ ' a'.lstrip() }}{{ 'a\n'.rstrip('\n') }}{{ '-'.join(['a', 'b']) }}",
            "aaaa-b",
        ),
        ("{{ 'ab'.startswith('a') }}{{ 'ab'.endswith(('c', 'b')) }}{{ 'ab'.find('b') }}", "TrueTrue1"),
        ("{{ 'aba'.rfind('a') }}{{ 'aba'.index('b') }}{{ 'aba'.count('a') }}{{ 'aB'.upper() }}", "212AB"),
        ("{{ 'a:b'.partition(':')[2] }}{{ 'ab'.removeprefix('a') }}{{ 'a b'.title() }}", "bbA B"),
        ("{{ '%s: %d%%' % ('a', 5) }}{{ '**%s**' % 'b' }}{{ '{}-{:>3}'.format('a', 1) }}", "a: 5%**b**a-  1"),
        ("{% set n = namespace(a=1) %}{% set n.a = n.a + 1 %}{{ n.a }}{{ dict(a=1).a }}", "21"),
        ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ range(3) | last }}", "ab2"),
        ("{% set j = joiner() %}{{ j() }}{{ j() }}", ", "),
        (
            "{% for m in messages %}{{ m.get('content', '-').split('</a>', maxsplit=1)[-1] }}{% endfor %}",
            "hi-",
        ),
        (
            "{{ [1] + [2] }}{{ (1, 2)[1:] }}{{ 'abc'[::-1] }}{{ 1 ~ none ~ x }}{{ 7 // 2 - 7 % 4 }}",
            "[1, 2](2,)cba1None0",
        ),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x }}{% filter upper %}b{% endfilter %}", "a1B"),
        ("{% block a %}b{% endblock %}{{ self.a() }}", "bb"),
        ("{{ strftime_now('%%') }}", "%"),
    ],
)
def test_what_real_templates_do_goes_on_working(source: str, expected: str) -> None:
    """Taken from those of some seventy models."""
    messages = [{"role": "user", "content": "<a></a>hi"}, {"role": "assistant"}]
    assert render(source, messages) == expected


class Unread(list[dict[str, Any]]):
    """A conversation that fails when somebody goes through it."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        raise AssertionError


def test_a_conversation_is_gone_through_only_by_what_reads_it() -> None:
    """What is asked for every message would take the square of their number."""
    source = "{% set l = messages[0].l %}{% for i in (0, 1) %}{{ l | length }}{{ l[i].role }}{% endfor %}"
    messages = [{"l": Unread([{"role": "a"}, {"role": "b"}])}]
    assert render(source + "{{ (l | last).role }}{{ l[1:] | length }}", messages) == "2a2bb1"
