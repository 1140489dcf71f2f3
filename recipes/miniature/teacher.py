"""The rule-based teacher of the miniature. It plays every role of TMAS and of the baselines.

The teacher takes the place of the large model that the paper distills. It sees only the prompt: neither the right
answer nor any other call. As a solver it never computes. It guesses rules and orders from a prior, and it uses the
findings that the prompt shows. As a verifier it computes. task.py explains blocks, rules and orders; language.py
explains findings.

A small policy has to imitate the replies, so they spell out every intermediate step:

- A verifier writes each operation with its operands and its result.
- A solver with memory writes, for each order of a block, whether it is known to fail (``B:echo:ab BAD``), known to fit
  (``OK``) or unknown (``B:echo:ac new``). Then it chooses an order.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from recipes.miniature.language import (
    FORMULAS,
    Finding,
    arithmetic,
    blocks_in,
    check,
    findings,
    item,
    read_answer,
)
from recipes.miniature.language import solution as solution_text
from recipes.miniature.task import ORDERS, RULES, Blocks, Candidate, Task

GRADE = "Based on my evaluation, the final grade is: \\boxed{{{grade:g}}}"
_BOX = re.compile(r"\\boxed\{(\d+)\}")
_ATTEMPT = re.compile(r'<attempt id="(\d+)".*?</attempt>', re.DOTALL)
_SOLUTION = re.compile(r"^Solution \d+:$", re.MULTILINE)
_COUNTED = re.compile(r"\b([a-z]+) (\d)/\d$", re.MULTILINE)
_ITEM = re.compile(r"- \[E\d+, (?:support (\d+)(?:, contradicted \d+)?|refuted)\] ")
STRATEGY = re.compile(r"^- \[G\d+, support \d+(?:, contradicted \d+)?\] ([a-z]+):", re.MULTILINE)
MOST_RULES = 3
"""A solution looks up at most this many rules before it guesses."""


Labels = Mapping[tuple[int, str, str], bool]
"""For a block, a rule and an order: whether they fit. Unknown combinations are missing."""


@dataclass
class Teacher:
    """Replies to prompts.

    ``draw``: the source of all random choices. ``error_rate``: probability that a finding of a verification has the
    wrong label. ``spread``: probability that a guess is drawn uniformly instead of from the prior, so that training
    data has rare rules and orders too. ``reply_by_phrase``: the method that replies, by a phrase of the prompt's task.
    """

    task: Task
    draw: random.Random
    error_rate: float = 0.0
    spread: float = 0.0
    reply_by_phrase: Mapping[str, Callable[[str], str]] = field(init=False)

    def __post_init__(self) -> None:
        self.reply_by_phrase = {
            "You are a strict verifier.": self.verification,
            "Summarise for the next round": self.summary,
            "Maintain the experience bank": self.experience,
            "Maintain the guideline bank": self.guideline,
            "Distil the attempt": self.distill,
            "The candidate solution is your own": self.feedback,
            "Analyse the references": self.synthesis,
            "improved solution of the problem": self.synthesis,
            "Compare the solutions above": self.comparison,
            "Write a clean version of the candidate": self.clean_version,
            "Write a better solution of the problem": self.refinement,
            'write a line "# Self-evaluation"': self.self_graded,
        }

    def reply(self, prompt: str) -> str:
        """The reply of the role that the prompt's last section asks for."""
        task = prompt[prompt.rindex("# Your task") :]
        methods = (method for phrase, method in self.reply_by_phrase.items() if phrase in task)
        return next(methods, self.solution)(prompt)

    # The roles of TMAS.

    def solution(self, prompt: str) -> str:
        """A candidate: with a new rule if the prompt lists strategies, else from known findings, or else a guess."""
        blocks = blocks_in(prompt)
        if tried := STRATEGY.findall(prompt):
            return self._guess(blocks, avoid=tried)
        known = labels(prompt)
        return self._by_memory(blocks, known, ranked_rules(prompt)) if known else self._guess(blocks)

    def verification(self, prompt: str) -> str:
        """The arithmetic for every block, and the grade."""
        candidate = _candidate(prompt)
        return self._critique(blocks_in(prompt), candidate) if candidate else _unreadable()

    def summary(self, prompt: str) -> str:
        """How many blocks fit the candidate's rule, then each finding by majority vote of the verifications."""
        votes: dict[tuple[int, str, str], list[bool]] = {}
        for found in findings(prompt[prompt.index("# Verifications") :]):
            votes.setdefault(found[:3], []).append(found.fits)
        return summary_text([Finding(*key, sum(v) * 2 > len(v)) for key, v in votes.items()])

    def experience(self, prompt: str) -> str:
        """A bank update with every finding of every summary. The bank merges duplicates."""
        new = [
            {"rollouts": [index], "statement": str(found), "kind": "conclusion" if found.fits else "pitfall"}
            for index, summary in summaries(prompt)
            for found in findings(summary)
        ]
        return json.dumps({"new": new, "updates": []})

    def guideline(self, prompt: str) -> str:
        """A bank update with the rule of every attempt. The bank merges duplicates."""
        new = [
            {"rollouts": [index], "name": found[0].rule, "description": FORMULAS[found[0].rule]}
            for index, summary in summaries(prompt)
            if (found := findings(summary)) and found[0].rule in RULES
        ]
        return json.dumps({"new": new, "updates": []})

    # The roles of the baselines.

    def feedback(self, prompt: str) -> str:
        """Self-Refine: the arithmetic of its own candidate, then a rewritten solution unless all blocks fit."""
        blocks, candidate = blocks_in(prompt), _candidate(prompt)
        if candidate is None:
            return f"# Rewritten solution\n{self._guess(blocks)}"
        lines, checked = self._check(blocks, candidate)
        if all(found.fits for found in checked):
            return with_thinking(lines, "It is correct.")
        thinking, written = split_thinking_lines(self._improved(blocks, checked))
        return with_thinking([*lines, *thinking], f"# Rewritten solution\n{written}")

    def refinement(self, prompt: str) -> str:
        """Verify-Refine: a solution from the findings of the analyses, and its self-evaluation."""
        reported = findings(prompt[prompt.index("# Analyses") :])
        blocks = blocks_in(prompt)
        written = self._improved(blocks, reported) if reported else self._guess(blocks)
        return self._with_self_evaluation(blocks, written)

    def self_graded(self, prompt: str) -> str:
        """Verify-Refine, first round: a guess, and its self-evaluation."""
        blocks = blocks_in(prompt)
        return self._with_self_evaluation(blocks, self._guess(blocks))

    def synthesis(self, prompt: str) -> str:
        """PaCoRe and RSA: a solution from the findings on every solution in the prompt.

        The reply begins with the arithmetic of all these solutions, as thinking.
        """
        blocks = blocks_in(prompt)
        references = [read_answer(digits, len(blocks)) for digits in _BOX.findall(prompt)]
        checks = [self._check(blocks, candidate) for candidate in references if candidate]
        analyses = [line for lines, checked in checks for line in (*lines, fit_share_text(checked))]
        known = {found[:3]: found.fits for _, checked in checks for found in checked}
        rules = rank_rules([(checked[0].rule, number_fitting(checked)) for _, checked in checks])
        thinking, written = split_thinking_lines(self._by_memory(blocks, known, rules))
        return with_thinking([*analyses, *thinking], written)

    def comparison(self, prompt: str) -> str:
        """GenSelect: the arithmetic of every solution as thinking, then the number of the best solution.

        That is the solution in which the largest number of blocks fit; the first, if there are several.
        """
        blocks = blocks_in(prompt)
        analyses: list[str] = []
        fitting_blocks: list[int] = []
        for text in _SOLUTION.split(prompt[: prompt.rindex("# Your task")])[1:]:
            boxes = _BOX.findall(text)
            candidate = read_answer(boxes[-1], len(blocks)) if boxes else None
            lines, checked = self._check(blocks, candidate) if candidate else ([], [])
            analyses += [*lines, fit_share_text(checked)] if checked else []
            fitting_blocks.append(number_fitting(checked))
        return with_thinking(analyses, f"Judgment: {fitting_blocks.index(max(fitting_blocks))}")

    def clean_version(self, prompt: str) -> str:
        """GenSelect: the candidate again, because the miniature's solutions have no detours."""
        candidate = _candidate(prompt)
        return solution_text(candidate) if candidate else "The candidate has no possible answer."

    def distill(self, prompt: str) -> str:
        """RSE: the arithmetic of the attempt, then the findings as verified propositions and critical pitfalls."""
        candidate = _candidate(prompt)
        lines, checked = self._check(blocks_in(prompt), candidate) if candidate else ([], [])
        share = [fit_share_text(checked)] if checked else []
        lists = {
            "verified_propositions": [*share, *(str(found) for found in checked if found.fits)],
            "critical_pitfalls": [str(found) for found in checked if not found.fits],
        }
        return "\n".join([*lines, json.dumps(lists)])

    # Parts that several roles use.

    def _guess(self, blocks: Blocks, avoid: Sequence[str] = ()) -> str:
        """A solution drawn from the prior. It takes no rule in ``avoid``, unless all rules are in it."""
        uniform = self.draw.random() < self.spread
        rules = {name: p for name, p in zip(RULES, self.task.rule_prior, strict=True) if name not in avoid}
        rules = rules or dict(zip(RULES, self.task.rule_prior, strict=True))
        [rule] = self.draw.choices([*rules], None if uniform else [*rules.values()])
        orders = self.draw.choices([*ORDERS], None if uniform else self.task.order_prior, k=len(blocks))
        return solution_text(Candidate(rule, tuple(orders)))

    def _by_memory(self, blocks: Blocks, known: Labels, rules: Sequence[str]) -> str:
        """A solution with the first of ``rules`` that is not refuted. It tries no other rules: exploration does that.

        A rule is refuted if all orders are known to fail for some block. For each block the solution takes the order
        that is known to fit, or else draws one that is not known to fail. If the looked-up rules are all refuted, it
        guesses orders for the first rule.
        """
        if not rules:  # the prompt had no room for any attempt
            return self._guess(blocks)
        lines: list[str] = []
        for rule in list(dict.fromkeys(rules))[:MOST_RULES]:
            orders: list[str] = []
            for n in range(len(blocks)):
                text, order = self._looked_up(n, rule, known)
                lines.append(text)
                if order is None:
                    lines.append(f"drop {rule}")
                    break
                orders.append(order)
            else:
                return with_thinking(lines, solution_text(Candidate(rule, tuple(orders))))
        return with_thinking(lines, self._guess(blocks, avoid=[name for name in RULES if name != rules[0]]))

    def _improved(self, blocks: Blocks, checked: Sequence[Finding]) -> str:
        """A solution from the findings on one candidate: the same rule if at least half of the blocks fit."""
        rule = checked[0].rule
        if 2 * number_fitting(checked) >= len(blocks):
            return self._by_memory(blocks, {found[:3]: found.fits for found in checked}, [rule])
        return self._guess(blocks, avoid=[rule])

    def _looked_up(self, block: int, rule: str, known: Labels) -> tuple[str, str | None]:
        """The text that looks up a block's orders, and the order to take: None if all are known to fail.

        The look-up ends at the first order that is known to fit.
        """
        text: list[str] = []
        new: dict[str, float] = {}
        for order, p in zip(ORDERS, self.task.order_prior, strict=True):
            label = known.get((block, rule, order))
            text.append(f"{item(block, rule, order)} {'new' if label is None else 'OK' if label else 'BAD'}")
            if label:
                return "\n".join(text), order
            if label is None:
                new[order] = p
        return "\n".join(text), self.draw.choices([*new], [*new.values()])[0] if new else None

    def _check(self, blocks: Blocks, candidate: Candidate) -> tuple[list[str], list[Finding]]:
        """The arithmetic for each block, and the findings: each has the wrong label at ``error_rate``."""
        checked = [
            found._replace(fits=found.fits != (self.draw.random() < self.error_rate))
            for found in check(blocks, candidate)
        ]
        return [arithmetic(block, found) for block, found in zip(blocks, checked, strict=True)], checked

    def _critique(self, blocks: Blocks, candidate: Candidate) -> str:
        """The arithmetic for each block, and the grade: 0.5 if at least half of the blocks fit, 1 if all do."""
        lines, checked = self._check(blocks, candidate)
        right = number_fitting(checked)
        grade = 1.0 if right == len(checked) else 0.5 if 2 * right >= len(checked) else 0.0
        return "\n".join([*lines, GRADE.format(grade=grade)])

    def _with_self_evaluation(self, blocks: Blocks, written: str) -> str:
        candidate = read_answer(_BOX.findall(written)[-1], len(blocks))
        assert candidate is not None
        return f"{written}\n# Self-evaluation\n{self._critique(blocks, candidate)}"


def with_thinking(lines: Sequence[str], text: str) -> str:
    """``text`` after the ``lines`` of thinking in think tags. Without lines, only ``text``."""
    return "\n".join(["<think>", *lines, "</think>", text]) if lines else text


def split_thinking_lines(text: str) -> tuple[list[str], str]:
    """The lines of thinking before a text, and the text: the inverse of :func:`with_thinking`."""
    if not text.startswith("<think>\n"):
        return [], text
    thinking, _, rest = text.removeprefix("<think>\n").partition("\n</think>\n")
    return thinking.split("\n"), rest


def summaries(prompt: str) -> list[tuple[int, str]]:
    """The number and the summary of every attempt in the prompt."""
    return [
        (int(attempt[1]), attempt[0].partition("What the verifiers found:")[2]) for attempt in _ATTEMPT.finditer(prompt)
    ]


def labels(prompt: str) -> Labels:
    """The majority vote of the findings in the prompt, without ties.

    A bank item has as many votes as its support. A refuted item has none.
    """
    votes: Counter[tuple[int, str, str]] = Counter()
    for line in prompt.split("\n"):
        shown = _ITEM.match(line)
        weight = int(shown[1] or 0) if shown else 1
        for found in findings(line):
            votes[found[:3]] += weight if found.fits else -weight
    return {key: count > 0 for key, count in votes.items() if count}


def refuted(known: Labels, block: int, rule: str) -> bool:
    """Whether every order of the rule is known to fail for the block."""
    return all(known.get((block, rule, order)) is False for order in ORDERS)


def ranked_rules(prompt: str) -> list[str]:
    """The rules of the attempts in the prompt, best first.

    An attempt is better if more blocks fit it. Of equal attempts, the later one comes first.
    """
    return rank_rules([(rule, int(right)) for rule, right in _COUNTED.findall(prompt)])


def rank_rules(counts: Sequence[tuple[str, int]]) -> list[str]:
    """Rules in the order of :func:`ranked_rules`, given each attempt's rule and its number of fitting blocks."""
    return [counts[n][0] for n in sorted(range(len(counts)), key=lambda n: (counts[n][1], n), reverse=True)]


def number_fitting(checked: Sequence[Finding]) -> int:
    """The number of blocks that fit."""
    return sum(found.fits for found in checked)


def fit_share_text(checked: Sequence[Finding]) -> str:
    """The rule and the share of blocks that it fits: ``echo 2/3``."""
    return f"{checked[0].rule} {number_fitting(checked)}/{len(checked)}"


def summary_text(checked: Sequence[Finding]) -> str:
    """A summary: the share of fitting blocks, then a line for each finding."""
    return "\n".join([fit_share_text(checked), *map(str, checked)]) if checked else "nothing could be checked"


def _candidate(prompt: str) -> Candidate | None:
    """The last candidate in the prompt. The task section is left out, because it may contain grades in boxes."""
    boxes = _BOX.findall(prompt[: prompt.rindex("# Your task")])
    return read_answer(boxes[-1], len(blocks_in(prompt))) if boxes else None


def _unreadable() -> str:
    return f"The answer is not one of the possible ones.\n{GRADE.format(grade=0)}"
