"""A machine that slows down is noticed by its answers alone, and one that does not is left in peace."""

import random
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pilotlight.core import Loading, Lora, Model
from pilotlight.power.clocks import Clock
from pilotlight.power.reading import ThermalLevel
from pilotlight.power.slowdown import FORGET_S, Slowdown, level


class Answers:
    """A worker that generates, and what is heard of it; `speed` in tokens per second."""

    def __init__(self, seed: int = 0, noise: float = 0.0) -> None:
        self.slowdown = Slowdown(self._suspect)
        self.suspected = 0
        self.model, self.mode = Model("m", Path("m.gguf")), "full"
        self.now = 1000.0
        self.clock = Clock.MAINS
        self.threads = 4, 8
        """That compute one alone, and several."""
        self._random = random.Random(seed)
        self._noise = noise
        self._number = 0

    def _suspect(self) -> None:
        self.suspected += 1

    def begin(self, prompt: int = 100) -> int:
        self._number += 1
        self.slowdown.began("m", [(self._number, 0)], self.now)
        self.slowdown.admitted("m", self._number, prompt)
        return self._number

    def say(self, *numbers: int, speed: float = 20.0, tokens: int = 16) -> list[float]:
        """So many tokens of each; what was known after every one of them."""
        heard = []
        for _ in range(tokens):
            self.say_unheard(*numbers, speed=speed)
            heard.append(self.slowdown.value(self.now, None, self.clock) or 0.0)
        return heard

    def say_unheard(self, *numbers: int, speed: float = 20.0, tokens: int = 1) -> None:
        """The same, and nobody looks."""
        for _ in range(tokens):
            self.now += max(0.001, self._random.gauss(1, self._noise)) / speed
            tokens_of = {(number, 0): 1 for number in numbers}
            self.slowdown.said(self.model, self.mode, tokens_of, self.threads, self.now)

    def end(self, number: int) -> None:
        self.slowdown.ended("m", [(number, 0)])

    def answer(self, tokens: int = 200, speed: float = 20.0, prompt: int = 100) -> list[float]:
        number = self.begin(prompt)
        self.now += 0.5
        heard = self.say(number, speed=speed, tokens=tokens)
        self.end(number)
        return heard


def test_nothing_is_kept_of_what_has_ended() -> None:
    """Not of an answer either whose last words come with its end, which is told first."""
    answers = Answers()
    for _ in range(3):
        number = answers.begin()
        answers.say(number)
        answers.end(number)
        answers.say_unheard(number)
    assert not answers.slowdown._works["m"].contexts


def test_fewer_threads_are_no_heat() -> None:
    """Also where they are as many as ever for an answer alone, and fewer only for answers side by side."""
    answers = Answers()
    numbers = answers.begin(), answers.begin()
    answers.say(*numbers, tokens=400)
    answers.threads = 4, 4
    answers.slowdown.changed("m")
    assert max(answers.say(*numbers, tokens=400, speed=12)) == 0
    answers.threads = 2, 4
    answers.slowdown.changed("m")
    assert max(answers.say(*numbers, tokens=400, speed=8)) > 0, "those of an answer alone explain nothing"


@pytest.mark.parametrize(
    "change",
    [{"path": Path("larger.gguf")}, {"loading": Loading(lora=(Lora("l.gguf"),))}, {"bytes_disk": 5}],
)
def test_another_model_under_the_name_is_no_heat(change: dict[str, Any]) -> None:
    """It is compared with itself: not with what was measured last of the one before either."""
    answers = Answers()
    answers.answer(400)
    number = answers.begin()
    answers.say_unheard(number, tokens=200)
    answers.end(number)
    answers.model = replace(answers.model, **change)
    assert max(answers.answer(400, speed=12)) == 0
    assert answers.answer(100, speed=9)[-1] == pytest.approx(0.25, abs=0.01)


def test_a_safer_mode_is_no_heat() -> None:
    """It is slower by itself."""
    answers = Answers()
    answers.answer(400)
    answers.mode = "plain"
    assert max(answers.answer(400, speed=12)) == 0


def test_a_model_that_is_loaded_again_is_the_same() -> None:
    """Also if what its worker is not told has changed."""
    answers = Answers()
    answers.answer(400)
    answers.model = replace(answers.model, aliases=("x",))
    assert answers.answer(100, speed=15)[-1] == pytest.approx(0.25, abs=0.01)


def test_nothing_is_known_of_a_forgotten_model() -> None:
    """The next one that has its name begins anew."""
    answers = Answers()
    answers.answer(400)
    answers.answer(100, speed=15)
    answers.slowdown.forget("m")
    assert answers.slowdown.value(answers.now, None) is None
    assert max(answers.answer(400, speed=12)) == 0


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_a_quarter_is_noticed_within_64_tokens(seed: int, noise: float) -> None:
    """Of one answer, in the middle of it."""
    answers = Answers(seed, noise)
    answers.answer(400)
    number = answers.begin()
    assert max(answers.say(number, tokens=100)) == 0
    assert max(answers.say(number, tokens=64, speed=15)) == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("seed", range(10))
def test_steady_noise_is_never_a_slowdown(seed: int) -> None:
    """Half an hour with every token up to twice as late as it should be, and a neighbour's bursts."""
    answers = Answers(seed, noise=0.2)
    heard = []
    while answers.now < 1000 + 1800:
        bursts = random.Random(seed + int(answers.now)).random() < 0.1
        number = answers.begin()
        heard += answers.say(number, tokens=200)
        heard += answers.say(number, tokens=12, speed=8 if bursts else 20)
        heard += answers.say(number, tokens=100)
        answers.end(number)
    assert max(heard) == 0


def test_hot_is_hot_however_long_it_lasts() -> None:
    """An hour of it does not become what is normal."""
    answers = Answers()
    answers.answer(400)
    for _ in range(200):
        heard = answers.answer(300, speed=12)
    assert heard[-1] == pytest.approx(0.4, abs=0.01)
    assert answers.answer(100)[-1] == 0


def test_a_start_on_a_hot_machine_is_made_good_later() -> None:
    """Whatever is faster than cold shows that cold was not cold."""
    answers = Answers()
    answers.answer(400, speed=10)
    answers.answer(400, speed=20)
    assert answers.answer(100, speed=10)[-1] == pytest.approx(0.5, abs=0.01)


def test_prompts_of_others_are_no_slowdown() -> None:
    """While one is computed, nothing is compared."""
    answers = Answers()
    answers.answer(400)
    number = answers.begin()
    answers.say(number, tokens=80)
    other = answers.begin(prompt=4000)
    assert max(answers.say(number, tokens=100, speed=2)) == 0
    assert max(answers.say(number, other, tokens=100)) == 0


def test_other_work_is_compared_with_its_like() -> None:
    """Eight side by side are slower each, and a long context is slower, too."""
    answers = Answers()
    answers.answer(400)
    numbers = [answers.begin() for _ in range(8)]
    assert max(answers.say(*numbers, tokens=200, speed=5)) == 0
    for number in numbers:
        answers.end(number)
    assert max(answers.answer(200, speed=10, prompt=3000)) == 0


def test_those_that_are_paused_do_not_count() -> None:
    """One answer beside two that rest is as fast as one alone, however fast three are side by side."""
    answers = Answers()
    answers.answer(400)
    numbers = [answers.begin() for _ in range(3)]
    assert max(answers.say(*numbers, speed=18, tokens=250)) == 0
    answers.slowdown.changed("m")
    assert max(answers.say(numbers[0], tokens=150)) == 0


def test_pauses_are_no_slowdown() -> None:
    """Bursts of tokens with rests between them have the speed of the bursts."""
    answers = Answers()
    answers.answer(400)
    number = answers.begin()
    heard = []
    for _ in range(20):
        heard += answers.say(number, tokens=16)
        answers.now += 2
    assert max(heard) == 0


def test_rests_that_a_worker_tells_of_are_no_slowdown() -> None:
    """However short they are beside the run: background work is paced."""
    answers = Answers()
    answers.answer(400)
    number = answers.begin()
    heard = []
    for _ in range(20):
        heard += answers.say(number, tokens=24)
        answers.slowdown.changed("m")
        answers.now += 0.5
        answers.slowdown.changed("m")
    assert max(heard) == 0


def test_nothing_is_known_of_a_silent_machine() -> None:
    """Nor of one that has generated too little, nor half a minute after the last answer."""
    answers = Answers()
    answers.answer(100)
    assert answers.slowdown.value(answers.now, None) is None
    answers.answer(200)
    assert answers.slowdown.value(answers.now, None) == 0.0
    assert answers.slowdown.value(answers.now + FORGET_S + 1, None) is None


def test_what_others_take_is_no_slowdown() -> None:
    """Of a second in which they took the processors nothing counts; what was known before is still known."""
    answers = Answers()
    answers.answer(400)
    number = answers.begin()
    for _ in range(50):
        answers.say_unheard(number, speed=8, tokens=16)
        assert answers.slowdown.value(answers.now, 0.4) in (0.0, None)
    answers.end(number)
    answers.answer(100, speed=10)
    number = answers.begin()
    answers.say_unheard(number, speed=20, tokens=100)
    assert answers.slowdown.value(answers.now, 0.4) == pytest.approx(0.5, abs=0.01)


def test_what_we_slow_ourselves_is_no_slowdown() -> None:
    """Nothing is known meanwhile, nobody is asked, and of what was measured until the next look nothing
    counts afterwards."""
    answers = Answers()
    answers.answer(400)
    number = answers.begin()
    for _ in range(20):
        answers.say_unheard(number, speed=8, tokens=100)
        assert answers.slowdown.value(answers.now, 0.0, is_slowed=True) is None
    asked = answers.suspected
    answers.say_unheard(number, speed=8, tokens=100)
    assert answers.slowdown.value(answers.now, 0.0) in (0.0, None)
    assert answers.suspected == asked
    assert max(answers.say(number, tokens=100)) == 0


@pytest.mark.parametrize("clock", [Clock.BATTERY, Clock.SAVING])
def test_lower_clocks_are_no_slowdown(clock: Clock) -> None:
    """They are compared with their like. What a machine was slower by before it told is over then, and is
    none when it is back."""
    answers = Answers()
    answers.answer(400)
    assert answers.answer(100, speed=12)[-1] > 0
    number = answers.begin()
    answers.say_unheard(number, speed=12, tokens=100)
    answers.clock = clock
    assert max(answers.say(number, speed=12)) == 0
    answers.end(number)
    assert max(answers.answer(400, speed=12)) == 0
    assert answers.answer(100, speed=8)[-1] == pytest.approx(0.33, abs=0.01)
    answers.clock = Clock.MAINS
    assert max(answers.answer(100)) == 0
    assert answers.answer(100, speed=15)[-1] == pytest.approx(0.25, abs=0.01)


def test_it_is_asked_what_others_did_as_soon_as_it_matters() -> None:
    """While nobody has looked, and it was not known."""
    answers = Answers()
    answers.answer(400)
    number = answers.begin()
    answers.say_unheard(number, tokens=100, speed=20)
    assert answers.suspected == 0
    answers.say_unheard(number, tokens=64, speed=15)
    assert answers.suspected > 0
    assert answers.slowdown.value(answers.now, None) == pytest.approx(0.25, abs=0.01)
    answers.suspected = 0
    answers.say_unheard(number, tokens=100, speed=15)
    assert answers.suspected == 0


@pytest.mark.parametrize(
    ("slower", "name"), [(0.09, "NOMINAL"), (0.1, "FAIR"), (0.25, "SERIOUS"), (0.9, "SERIOUS")]
)
def test_levels_are_bands_of_slowdown(slower: float, name: str) -> None:
    """And never critical by itself."""
    assert level(slower) is ThermalLevel[name]
