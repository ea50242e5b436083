"""Which tokens a text really was."""

from array import array

from pilotlight.runtimes.transcripts import NUM_REMEMBERED, Transcript, Transcripts


def remembered(*texts: str) -> Transcripts:
    """These, oldest first."""
    transcripts = Transcripts()
    for number, text in enumerate(texts):
        transcripts.add(Transcript(text, array("i", [number])))
    return transcripts


def test_the_longest_text_a_prompt_begins_with_is_found() -> None:
    """Turn by turn."""
    found = remembered("a", "b", "ab").find("abc")
    assert found == Transcript("ab", array("i", [2]))


def test_a_prompt_that_begins_otherwise_finds_nothing() -> None:
    """Nor one that is shorter than what is remembered."""
    assert remembered("abc").find("b") is None
    assert remembered("abc").find("ab") is None


def test_a_turn_takes_the_place_of_the_one_it_continues() -> None:
    """And of the same text, said again with other tokens."""
    transcripts = remembered("a", "ab", "ab")
    assert transcripts.find("ab") == Transcript("ab", array("i", [2]))
    assert transcripts.find("a") is None


def test_the_oldest_are_forgotten() -> None:
    """The number is bounded."""
    texts = [f"{number:02}" for number in range(NUM_REMEMBERED + 1)]
    transcripts = remembered(*texts)
    assert transcripts.find("00") is None
    assert transcripts.find("01") == Transcript("01", array("i", [1]))


def test_the_longest_that_tokens_begin_with_is_found() -> None:
    """The last token of an answer that was cut off is not computed."""
    transcripts = Transcripts()
    for text, tokens in (("a", (1, 2)), ("ab", (1, 2, 3)), ("b", (1, 9, 9))):
        transcripts.add(Transcript(text, array("i", tokens)))
    assert transcripts.of([1, 2, 3, 4]) == Transcript("ab", array("i", [1, 2, 3]))
    assert transcripts.of([1, 2]) == Transcript("ab", array("i", [1, 2, 3]))
    assert transcripts.of([5]) is None
