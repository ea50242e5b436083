"""What may be held: amounts as people write them, and what follows from a reading."""

import pytest

from pilotlight.registry.budget import Amount, Budget, Memory, Room, written, written_up

GIB = 2**30
MACHINE = Memory(bytes_total=16 * GIB, bytes_available=6 * GIB)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GiB", 2 * GIB),
        ("2 gib", 2 * GIB),
        ("2G", 2 * GIB),
        ("2GB", 2 * 10**9),
        ("1.5MiB", 3 * 2**19),
        ("640k", 640 * 1024),
        ("1TiB", 1024 * GIB),
        ("2147483648", 2 * GIB),
        ("512B", 512),
        ("50%", 8 * GIB),
        ("0.25", 4 * GIB),
        (".5", 8 * GIB),
        ("1.0", 16 * GIB),
    ],
)
def test_an_amount_is_read_as_people_write_it(text: str, expected: int) -> None:
    """Bytes with and without a unit, and parts of 16 GiB."""
    assert Amount.parse(text).of(16 * GIB) == expected


@pytest.mark.parametrize(
    "text", ["", "much", "2 apples", "-1", "1.5", "101%", "1e9", "GiB", "0", "0%", "0.0"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    """With what would be right."""
    with pytest.raises(ValueError, match="must be"):
        Amount.parse(text)


def test_bytes_are_what_was_asked_for_whatever_the_machine_does() -> None:
    """Whoever names a number has thought about it."""
    budget = Budget.parse("2GiB")
    assert budget.now(MACHINE, bytes_held=0) == budget.most(MACHINE) == 2 * GIB


def test_auto_is_what_others_leave_free_less_the_reserve() -> None:
    """What the workers hold themselves is no other's."""
    budget = Budget.parse("auto", "2GiB")
    assert budget.now(MACHINE, bytes_held=0) == 4 * GIB
    assert budget.now(Memory(16 * GIB, 3 * GIB), bytes_held=3 * GIB) == 4 * GIB
    assert budget.most(MACHINE) == 14 * GIB


def test_of_little_auto_takes_half() -> None:
    """A small model is worth having on a full machine, too."""
    budget = Budget.parse("auto", "50%")
    assert budget.now(Memory(16 * GIB, GIB), bytes_held=0) == GIB // 2
    assert budget.now(Memory(16 * GIB, 0), bytes_held=0) == 0


def test_what_is_loaded_may_use_half_of_the_reserve() -> None:
    """Others that take a little more make nothing go; of little, as much of what is to stay free."""
    assert Budget.parse("auto", "2GiB").room(MACHINE, 0) == Room(4 * GIB, kept=5 * GIB, most=14 * GIB)
    full = Memory(16 * GIB, GIB)
    assert Budget.parse("auto", "50%").room(full, 0) == Room(GIB // 2, kept=3 * GIB // 4, most=8 * GIB)


def test_what_is_set_is_all_that_is_loaded_may_use() -> None:
    """It may be set to as much as there is."""
    assert Budget.parse("2GiB").room(MACHINE, 0) == Room(2 * GIB, 2 * GIB, 2 * GIB, settable=16 * GIB)


def test_auto_is_never_above_the_machine() -> None:
    """Whatever the reading says."""
    budget = Budget.parse("auto", "50%")
    assert budget.now(Memory(16 * GIB, 16 * GIB), bytes_held=9 * GIB) == 8 * GIB


def test_bytes_are_written_for_a_person() -> None:
    """With as many digits as anybody needs."""
    assert (written(3 * GIB + GIB // 8), written(5 * 2**20)) == ("3.1 GiB", "5 MiB")


@pytest.mark.parametrize("num_bytes", [3 * GIB, 3 * GIB + 1, 3 * GIB - 1, 5 * 2**20 + 1, GIB - 1])
def test_what_a_person_is_to_set_is_not_less(num_bytes: int) -> None:
    least = Amount.parse(written_up(num_bytes)).bytes
    assert least is not None and num_bytes <= least <= num_bytes + GIB // 10
