"""Joules by model and by app, of a bounded number of them."""

from msgspec.structs import replace

from pilotlight.core import Prompt, Request, RequestClass, Sampling
from pilotlight.energy.accounts import Counted
from pilotlight.energy.meters import Method
from pilotlight.energy.totals import MOST_APPS, OTHERS, Totals
from pilotlight.worker.protocol import Computed


def ask(app: str, request_class: RequestClass = RequestClass.INTERACTIVE) -> Request:
    return Request("r", "m", Prompt(), Sampling(), request_class=request_class, app=app)


def test_apps_beyond_the_first_ones_are_others() -> None:
    """Whoever connects says who it is: a new name each time must not fill our memory. No joule is lost."""
    totals = Totals()
    for number in range(1000):
        totals.add(ask(f"app-{number}"), Method.RAPL, Computed(1, decode_s=1.0), 2.0)
    assert len(totals.apps) == MOST_APPS + 1
    assert totals.apps[OTHERS, RequestClass.INTERACTIVE, Method.RAPL].joules == 2 * (1000 - MOST_APPS)
    assert totals.models["m", Method.RAPL].joules == 2000


def test_what_a_forgotten_model_took_is_told_without_its_name() -> None:
    """Each version that is tried has a name of its own. No joule is lost, nor what is of another model."""
    totals, part = Totals(), Computed(1, prefill_s=0.5, prefill_tokens=9, decode_s=0.5, decode_tokens=4)
    for name in ("m", "m (version 1)", "m (version 2)"):
        totals.add(replace(ask("app"), model=name), Method.RAPL, part, 2.0)
        totals.forget("m (version 1)")
        totals.forget("m (version 2)")
    assert list(totals.models) == [("m", Method.RAPL), (OTHERS, Method.RAPL)]
    assert totals.models["m", Method.RAPL] == Counted(1.0, 1.0, 9, 4)
    assert totals.models[OTHERS, Method.RAPL] == Counted(2.0, 2.0, 18, 8)


def test_an_app_is_known_in_each_class() -> None:
    """What it does in the background is told apart."""
    totals = Totals()
    for request_class in RequestClass:
        totals.add(ask("mail", request_class), Method.RAPL, Computed(1, decode_s=1.0), 1.0)
    assert len(totals.apps) == 3
