from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import Comparison, Equivalence

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure; each test has a time limit
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here outlives a loss of power: nothing waits for the disk. (Tests of what is synced set their own.)"""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _: None)


@pytest.fixture
def answers_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that differ as text differ, without workers that would compare them."""

    async def compare(self: AnswerChecker, gold: str, answer: str) -> Comparison:
        return Comparison(equivalence=Equivalence.EQUAL if gold == answer else Equivalence.DIFFERENT)

    monkeypatch.setattr(AnswerChecker, "compare", compare)
