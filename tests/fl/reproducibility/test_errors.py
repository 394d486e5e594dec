import pytest

from fl.reproducibility.errors import in_words, writable


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
