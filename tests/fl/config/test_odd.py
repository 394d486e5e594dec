"""Odd values, as text, as TOML and from Python: an experiment, or one line."""

import os
import random
import resource

import pytest

from fl.config import Experiment
from fl.config.parsing import ConfigError, parse_settings, read_toml, to_toml
from fl.nn import resolve_auto
from fl.reproducibility.machine import LIMIT, check_disk, check_fits, free_memory, size
from fl.server.journal import Journal
from fl.server.opening import check
from tests.fl.config.bounded import bounded, cases

DEFAULTS = Experiment().to_flat()
DIGITS, BRACKETS = "9" * 5_000, "[" * 3_000

ODD_TEXTS = (
    DIGITS,
    BRACKETS,
    "-1",
    "0",
    "1",
    "2",
    "1e24",
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "1e-320",
    "true",
    "",
    " ",
    "''",
    '""',
    "\0",
    "\udcff",
    "ﬀ",
    "é" * 3_000,
    "{a = 1}",
    "[1, 2]",
    "2024-01-01",
    "2024-13-45",
    "07:32:00",
    "0x7fffffffffffffff",
    "9223372036854775808",
    "1_000",
    "0b1",
    "auto",
    "none",
    "1\n2",
    "a=b",
    "my.py:Net",
    "../x.py:y",
    "/dev/zero",
    "/dev/zero:x",
    "hf:",
    "medmnist:",
    "kept:0",
    "norm:5",
    "norm:-1",
    "norm:nan",
    "agc:",
    "torch:nn",
    "os:system",
    ":",
    "a:b:c",
    ",",
    "200000",
    "10000000",
    "1000000000000",
    "1" + "0" * 24,
    "{" * 500,
    "\x1b]0;x\x07",
    "'",
    '"""',
)


@pytest.mark.parametrize("text", ODD_TEXTS)
@pytest.mark.parametrize("key", ["seed", "recipe", "data.name"])
def test_an_odd_value_is_one_short_line_or_a_value(key, text):
    try:
        experiment = Experiment.from_flat(parse_settings([f"{key}={text}"]))
    except ConfigError as error:
        line = " ".join(str(error).split())
        assert line
        assert len(line) < 2_000
    else:
        assert Experiment.from_flat(experiment.to_flat()) == experiment


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (f"seed={DIGITS}", "(5,005 characters): a value is impossible"),
        (f"seed={BRACKETS}", "brackets are nested too deeply"),
        ("recipe=a\0b", "has a NUL character"),
        ("recipe=\udcff", "is no UTF-8"),
        (f"seed={'9' * 500}", "seed is a number of 1661 bits"),
        (f"{'x' * 5_000}=1", "unknown knob " + "x" * 200 + ";"),
    ],
)
def test_what_is_wrong_is_said(setting, said):
    with pytest.raises(ConfigError) as error:
        Experiment.from_flat(parse_settings([setting]))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"seed = " + DIGITS.encode(), "a value is impossible"),
        (b"seed = " + BRACKETS.encode(), "nested too deeply"),
        (b".".join([b"a"] * 3_000) + b" = 1", "neither a number"),
        (b"seed = 1\nseed = 2", "as TOML"),
        (b"seed = 2024-01-01", "neither a number"),
        ('recipe = "é"'.encode("utf-16"), "save it as UTF-8"),
        (b'recipe = "\xff"', "save it as UTF-8"),
        (b"seed = 1\n" + b"#" * (1 << 25), "more than"),
    ],
)
def test_an_odd_file_is_one_line(tmp_path, raw, said):
    file = tmp_path / "odd.toml"
    file.write_bytes(raw)
    with pytest.raises(ConfigError) as error:
        Experiment.from_toml(file)
    assert said in str(error.value)


def test_a_byte_order_mark_is_passed_over_and_a_pipe_is_not_waited_for(tmp_path):
    file, pipe = tmp_path / "a.toml", tmp_path / "pipe.toml"
    file.write_bytes("﻿seed = 3".encode())
    assert read_toml(file) == {"seed": 3}
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="no regular file"):
        read_toml(pipe)


def test_mutated_files_of_knobs_are_experiments_or_one_line(tmp_path):
    draw, file = random.Random(21), tmp_path / "odd.toml"
    raw = to_toml(DEFAULTS).encode()
    for _ in range(cases(600, 30)):
        changed, place = bytearray(raw), draw.randrange(len(raw))
        for _ in range(draw.randrange(1, 6)):
            changed[draw.randrange(len(raw))] = draw.choice(b"\0\xff[]{}\"'=.,#\n 09eE_-+~\\")
        if draw.random() < 0.3:
            changed = changed[:place] + changed[draw.randrange(len(raw)) :]
        file.write_bytes(bytes(changed))
        said = _read(file)
        assert len(said) < 2_000


def _read(file) -> str:
    try:
        Experiment.from_toml(file)
    except ConfigError as error:
        return str(error)
    return "done"


def _drawn(draw: random.Random) -> list[str]:
    """Draw settings: knobs with values of any kind, some with typing errors in their names."""
    settings = []
    for key in draw.sample(sorted(DEFAULTS), draw.choice([1, 1, 2, 3, 6])):
        value = draw.choice([str(draw.choice(list(DEFAULTS.values()))), *draw.sample(ODD_TEXTS, 4)])
        if draw.random() < 0.1:
            place = draw.randrange(len(key))
            key = key[:place] + draw.choice("xyz._-é") + key[place + draw.randrange(2) :]
        settings.append(f"{key}={value}")
    return settings


def test_drawn_configurations_begin_or_are_refused_in_one_line(tmp_path):
    draw, faults = random.Random(10), []

    def begin(settings):
        knobs = Experiment.from_flat(parse_settings(settings))
        try:
            resolve_auto(knobs)
        except ValueError as error:  # as `build_network` tells of it
            raise ConfigError(str(error)) from None
        check(Journal(tmp_path / "run"), knobs, resume=False)

    def ten(many):
        for settings in many:
            try:
                begin(settings)
            except ConfigError as error:
                if len(str(error)) > 2_000:
                    raise AssertionError(f"a long line: {str(error)[:300]}") from None
            except BaseException as error:
                raise AssertionError(f"{[text[:80] for text in settings]}") from error

    for _ in range(cases(10_000, 100) // 50):
        many = [_drawn(draw) for _ in range(50)]
        if (said := bounded(lambda many=many: ten(many))) != "done":
            faults.append(said)
    assert not faults, [fault[-600:] for fault in faults[:5]]
    assert not list(tmp_path.iterdir())


def test_memory_is_what_the_least_of_all_limits_leaves(monkeypatch):
    assert 0 < free_memory() < 2**62
    monkeypatch.setenv(LIMIT, "1K")
    assert free_memory() == 1024
    with pytest.raises(ConfigError, match=r"x of 2 kB; this machine has 1\.02 kB free; lower it"):
        check_fits("x of", 2_000, "lower it")
    monkeypatch.setenv(LIMIT, "much")
    with pytest.raises(ConfigError, match="FEDNF_MEMORY=much is no size"):
        free_memory()
    monkeypatch.delenv(LIMIT)
    limited = bounded(lambda: check_fits("this is", 2 * 10**9))  # which has 1 GB
    assert "this is 2 GB; this machine has" in limited
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_a_journal_that_no_disk_holds_is_refused_before_there_is_a_folder(tmp_path):
    long = Experiment.from_flat({"rounds": 10**12})
    with pytest.raises(ConfigError, match=r"rounds=1000000000000: a journal of at least .* PB"):
        check(Journal(tmp_path / "deep" / "run"), long, resume=False)
    check(
        Journal(tmp_path / "run"), long.replace({"data.validation": 0.1, "run.patience": 5}), False
    )
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="free; no"):
        check_disk("x", 10**30, tmp_path / "a" / "b", "no")


@pytest.mark.parametrize(
    ("number", "words"),
    [(5, "5 bytes"), (1_500, "1.5 kB"), (3_200 * 10**9, "3.2 TB"), (4 * 10**24, "4 YB")],
)
def test_sizes_are_written_in_thousands(number, words):
    assert size(number) == words
