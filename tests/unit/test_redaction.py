import io
import logging
import re
from pathlib import Path

import pytest

from tmas import redaction
from tmas.redaction import CleanFormatter, add_secret, clean, clean_logger, without_secrets

ROOT = Path(__file__).parents[2]
KEY = "token-abcdefgh12345678"


@pytest.fixture(autouse=True)
def _only_this_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_FORMS", [])
    add_secret(KEY)


def test_a_placeholder_in_place_of_a_key_is_no_secret():
    add_secret("EMPTY")
    assert clean("an EMPTY set") == "an EMPTY set"


def test_model_text_keeps_everything_but_the_key():
    assert without_secrets(f"a\x1b[1m\tb {KEY}\n\u202e") == "a\x1b[1m\tb ***\n\u202e"


def test_no_end_of_a_key_is_left_that_begins_with_another_key():
    add_secret(f"{KEY}-second")
    assert without_secrets(f"{KEY}-second {KEY}") == "*** ***"


def test_a_key_between_escape_sequences_is_found():
    assert clean(f"{KEY[:9]}\x1b[0m{KEY[9:]}") == "***"


def test_a_key_whose_end_is_cut_off_is_found():
    assert clean(f"reading: b'{KEY[:-3]}...'") == "reading: b'***...'"


def test_half_a_key_that_occurs_600_000_times_is_removed_in_one_pass():
    # 8 MB. With a copy for each occurrence, this takes longer than a test may.
    assert clean((KEY[:12] + "!") * 600_000) == "***!" * 600_000


@pytest.mark.parametrize("harmless", ["x = 1\n\ty = 2", "∀x ∈ ℝ: √2 ≠ 3", "token-ab", "مرحبا 你好"])
def test_ordinary_text_stays_as_it_is(harmless: str):
    assert clean(harmless) == harmless


def test_a_log_line_is_cleaned_with_its_traceback():
    try:
        raise ValueError(f"\x1b[31m{KEY}")
    except ValueError as error:
        record = logging.LogRecord("a", logging.ERROR, "f", 1, "failed with %s", (KEY,), (type(error), error, None))
    assert CleanFormatter("%(message)s").format(record) == "failed with ***\nValueError: ***"


def test_records_of_a_clean_logger_are_clean_for_the_handlers_of_another_program():
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        raise ValueError(f"\x1b[31m{KEY}")
    except ValueError:
        clean_logger("tmas.of.a.test").exception("failed with %s", KEY)
    finally:
        root.removeHandler(handler)
    assert lines.getvalue().startswith("failed with ***\nTraceback")
    assert lines.getvalue().endswith("ValueError: ***\n")


def test_every_logger_of_the_project_is_clean():
    modules = [file for top in ("tmas", "data_prep") for file in (ROOT / top).rglob("*.py")]
    others = re.compile(
        r"getLogger\((?!\"(?:ray|accelerate\.accelerator)\"\))"
    )  # the loggers of two libraries are quieted
    assert [file.name for file in modules if others.search(file.read_text("utf-8"))] == ["redaction.py"]
