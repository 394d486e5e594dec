import pytest

from fl.reproducibility.errors import TOLD, as_told, in_words, trace_as_told, writable


class Broken(Exception):
    def __str__(self):
        raise Broken


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("one"), "ValueError: one"),
        (ValueError("one\n two\t three"), "ValueError: one two three"),
        (KeyError("key"), "KeyError: 'key'"),
        (Broken(), "Broken: <its message can't be had>"),
        (OSError("file \udcff"), "OSError: file \\udcff"),
        (ValueError(), "ValueError:"),
    ],
)
def test_an_exception_is_one_line_that_can_be_written(error, words):
    assert in_words(error) == words
    in_words(error).encode()


def test_a_long_message_is_cut():
    assert len(in_words(ValueError("x" * 10**6))) == 501


def test_text_that_can_be_written_stays():
    assert writable("größer\n→ 1") == "größer\n→ 1"


UNSEEN = {
    "\x1b]0;title\x07\x1b[2J": "\\x1b]0;title\\x07\\x1b[2J",
    "\x9b2J": "\\x9b2J",
    "\u202egnp.exe": "\\u202egnp.exe",
    "a\u200bb\ufeff": "a\\u200bb\\ufeff",
    "\U000e0041": "\\U000e0041",
    "\ud800": "\\ud800",
    "\x00\r": "\\x00\\r",
}


@pytest.mark.parametrize("text", UNSEEN)
def test_what_a_terminal_obeys_and_what_nobody_sees_is_an_escape(text):
    assert writable(text) == UNSEEN[text]
    assert writable(writable(text)) == UNSEEN[text]
    assert as_told(text).isprintable()
    assert UNSEEN[text].removesuffix("\\r") in as_told(text)  # a space where lines would end


def test_letters_and_spaces_of_any_language_stay():
    for text in ("größer", "猫\u3000犬", "\u00a0", "👩", "می خواهم", "→"):
        assert writable(text) == text


def test_a_text_of_another_is_one_line_of_bounded_length_that_says_what_is_cut():
    assert as_told("one\n two\t three") == "one two three"
    assert as_told("y" * TOLD) == "y" * TOLD
    cut = as_told("y" * 10**7)
    assert cut == "y" * TOLD + "… (10,000,000 characters)"
    assert as_told(f"client 3: {cut}") == f"client 3: {cut}"  # once is enough
    assert len(as_told("\x1b" * 10**7)) < TOLD + 30
    assert as_told("\n" * 10**7).endswith("… (10,000,000 characters)")


def test_a_traceback_of_another_keeps_its_lines():
    trace = 'Traceback\n  File "\x1b[2J", line 1\n'
    assert trace_as_told(trace) == 'Traceback\n  File "\\x1b[2J", line 1\n'
    assert len(trace_as_told("y" * 10**7)) < 101_000
