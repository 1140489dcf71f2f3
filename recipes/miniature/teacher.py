"""The rule-based teacher of the miniature. It plays every role of TMAS and of the baselines.

The teacher takes the place of the large model that the paper distills. It sees only the prompt: neither the right
answer nor any other call. As a solver it never computes. It guesses rules and orders from a prior, and it uses the
findings that the prompt shows. As a verifier it computes.

A small policy has to imitate the replies, so they spell out every intermediate step:

- A verifier writes each operation with its operands and its result.
- A solver with memory looks up each order of a block before it chooses one (``B:echo:ab BAD``, ``B:echo:ac new``).
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
    solution,
)
from recipes.miniature.task import ORDERS, RULES, Blocks, Candidate, Task

GRADE = "Based on my evaluation, the final grade is: \\boxed{{{grade:g}}}"
_BOX = re.compile(r"\\boxed\{(\d+)\}")
_ATTEMPT = re.compile(r'<attempt id="(\d+)".*?</attempt>', re.DOTALL)
_SOLUTION = re.compile(r"^Solution \d+:$", re.MULTILINE)
_COUNTED = re.compile(r"\b([a-z]+) (\d)/\d$", re.MULTILINE)
_SUPPORT = re.compile(r"- \[E\d+, support (\d+)(?:, contradicted \d+)?\] ")
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
    data has rare rules and orders too.
    """

    task: Task
    draw: random.Random
    error_rate: float = 0.0
    spread: float = 0.0
    roles: Mapping[str, Callable[[str], str]] = field(init=False)

    def __post_init__(self) -> None:
        self.roles = {
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
        return next((play for phrase, play in self.roles.items() if phrase in task), self.solution)(prompt)

    # The roles of TMAS.

    def solution(self, prompt: str) -> str:
        """A candidate: with a new rule if the prompt lists strategies, else from known findings, or else a guess."""
        blocks = blocks_in(prompt)
        if tried := STRATEGY.findall(prompt):
            return self._guess(blocks, avoid=tried)
        known = labels(prompt)
        return self._by_memory(blocks, known, followed(prompt)) if known else self._guess(blocks)

    def verification(self, prompt: str) -> str:
        """The arithmetic for every block, and the grade."""
        candidate = _candidate(prompt)
        return self._critique(blocks_in(prompt), candidate) if candidate else _unreadable()

    def summary(self, prompt: str) -> str:
        """How many blocks fit the candidate's rule, then each finding by majority vote of the verifications."""
        votes: dict[tuple[int, str, str], list[bool]] = {}
        for found in findings(prompt[prompt.index("# Verifications") :]):
            votes.setdefault(found[:3], []).append(found.fits)
        return summarised([Finding(*key, sum(v) * 2 > len(v)) for key, v in votes.items()])

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
        lines, known = self._check(blocks, candidate)
        if all(found.fits for found in known):
            return thought(lines, "It is correct.")
        thinking, written = parted(self._improved(blocks, known))
        return thought([*lines, *thinking], f"# Rewritten solution\n{written}")

    def refinement(self, prompt: str) -> str:
        """Verify-Refine: a solution from the findings of the analyses, and its self-evaluation."""
        known = findings(prompt[prompt.index("# Analyses") :])
        blocks = blocks_in(prompt)
        return self._with_self_evaluation(blocks, self._improved(blocks, known) if known else self._guess(blocks))

    def self_graded(self, prompt: str) -> str:
        """Verify-Refine, first round: a guess, and its self-evaluation."""
        blocks = blocks_in(prompt)
        return self._with_self_evaluation(blocks, self._guess(blocks))

    def synthesis(self, prompt: str) -> str:
        """PaCoRe and RSA: the arithmetic of every solution shown as thinking, then a solution from these findings."""
        blocks = blocks_in(prompt)
        references = [read_answer(digits, len(blocks)) for digits in _BOX.findall(prompt)]
        checks = [self._check(blocks, candidate) for candidate in references if candidate]
        analyses = [line for lines, known in checks for line in (*lines, counted(known))]
        known = {found[:3]: found.fits for _, part in checks for found in part}
        rules = followed_among([(found[0].rule, fitting(found)) for _, found in checks])
        thinking, written = parted(self._by_memory(blocks, known, rules))
        return thought([*analyses, *thinking], written)

    def comparison(self, prompt: str) -> str:
        """GenSelect: the arithmetic of every solution as thinking, then the first with the most fitting blocks."""
        blocks = blocks_in(prompt)
        analyses: list[str] = []
        fitting_blocks: list[int] = []
        for text in _SOLUTION.split(prompt[: prompt.rindex("# Your task")])[1:]:
            boxes = _BOX.findall(text)
            candidate = read_answer(boxes[-1], len(blocks)) if boxes else None
            lines, known = self._check(blocks, candidate) if candidate else ([], [])
            analyses += [*lines, counted(known)] if known else []
            fitting_blocks.append(fitting(known))
        return thought(analyses, f"Judgment: {fitting_blocks.index(max(fitting_blocks))}")

    def clean_version(self, prompt: str) -> str:
        """GenSelect: the candidate again, because the miniature's solutions have no detours."""
        candidate = _candidate(prompt)
        return solution(candidate) if candidate else "The candidate has no possible answer."

    def distill(self, prompt: str) -> str:
        """RSE: the arithmetic of the attempt, then the findings as verified propositions and critical pitfalls."""
        candidate = _candidate(prompt)
        lines, known = self._check(blocks_in(prompt), candidate) if candidate else ([], [])
        count = [counted(known)] if known else []
        lists = {
            "verified_propositions": [*count, *(str(found) for found in known if found.fits)],
            "critical_pitfalls": [str(found) for found in known if not found.fits],
        }
        return "\n".join([*lines, json.dumps(lists)])

    # Parts that several roles use.

    def _guess(self, blocks: Blocks, avoid: Sequence[str] = ()) -> str:
        """A solution drawn from the prior. It does not take a rule of ``avoid`` unless every rule is one."""
        uniform = self.draw.random() < self.spread
        rules = {name: p for name, p in zip(RULES, self.task.rule_prior, strict=True) if name not in avoid}
        rules = rules or dict(zip(RULES, self.task.rule_prior, strict=True))
        [rule] = self.draw.choices([*rules], None if uniform else [*rules.values()])
        orders = self.draw.choices([*ORDERS], None if uniform else self.task.order_prior, k=len(blocks))
        return solution(Candidate(rule, tuple(orders)))

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
                return thought(lines, solution(Candidate(rule, tuple(orders))))
        return thought(lines, self._guess(blocks, avoid=[name for name in RULES if name != rules[0]]))

    def _improved(self, blocks: Blocks, known: Sequence[Finding]) -> str:
        """A solution from the findings on one candidate: the same rule if at least half of the blocks fit."""
        rule = known[0].rule
        if 2 * fitting(known) >= len(blocks):
            return self._by_memory(blocks, {found[:3]: found.fits for found in known}, [rule])
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
        known = [
            found._replace(fits=found.fits != (self.draw.random() < self.error_rate))
            for found in check(blocks, candidate)
        ]
        return [arithmetic(block, found) for block, found in zip(blocks, known, strict=True)], known

    def _critique(self, blocks: Blocks, candidate: Candidate) -> str:
        """The arithmetic for each block, and the grade: 0.5 if at least half of the blocks fit, 1 if all do."""
        lines, known = self._check(blocks, candidate)
        right = fitting(known)
        grade = 1.0 if right == len(known) else 0.5 if 2 * right >= len(known) else 0.0
        return "\n".join([*lines, GRADE.format(grade=grade)])

    def _with_self_evaluation(self, blocks: Blocks, written: str) -> str:
        candidate = read_answer(_BOX.findall(written)[-1], len(blocks))
        assert candidate is not None
        return f"{written}\n# Self-evaluation\n{self._critique(blocks, candidate)}"


def thought(lines: Sequence[str], text: str) -> str:
    """``text`` after ``lines`` of thinking, if there are any."""
    return "\n".join(["<think>", *lines, "</think>", text]) if lines else text


def parted(text: str) -> tuple[list[str], str]:
    """The lines of thinking before a text, and the text: the inverse of :func:`thought`."""
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
    """The majority vote of the findings in the prompt, without ties. A bank item has as many votes as its support."""
    votes: Counter[tuple[int, str, str]] = Counter()
    for line in prompt.split("\n"):
        support = _SUPPORT.match(line)
        for found in findings(line):
            votes[found[:3]] += (int(support[1]) if support else 1) * (1 if found.fits else -1)
    return {key: count > 0 for key, count in votes.items() if count}


def refuted(known: Labels, block: int, rule: str) -> bool:
    """Whether every order of the rule is known to fail for the block."""
    return all(known.get((block, rule, order)) is False for order in ORDERS)


def followed(prompt: str) -> list[str]:
    """The rules of the attempts in the prompt, best first: most fitting blocks, then the later attempt."""
    return followed_among([(rule, int(right)) for rule, right in _COUNTED.findall(prompt)])


def followed_among(counts: Sequence[tuple[str, int]]) -> list[str]:
    """Rules in the order of :func:`followed`, given each attempt's rule and its number of fitting blocks."""
    return [counts[n][0] for n in sorted(range(len(counts)), key=lambda n: (counts[n][1], n), reverse=True)]


def fitting(known: Sequence[Finding]) -> int:
    """The number of blocks that fit."""
    return sum(found.fits for found in known)


def counted(known: Sequence[Finding]) -> str:
    """The rule and the share of blocks that it fits: ``echo 2/3``."""
    return f"{known[0].rule} {fitting(known)}/{len(known)}"


def summarised(known: Sequence[Finding]) -> str:
    """A summary: the share of fitting blocks, then a line for each finding."""
    return "\n".join([counted(known), *map(str, known)]) if known else "nothing could be checked"


def _candidate(prompt: str) -> Candidate | None:
    """The last candidate that the prompt shows. The task after it may name grades in boxes."""
    boxes = _BOX.findall(prompt[: prompt.rindex("# Your task")])
    return read_answer(boxes[-1], len(blocks_in(prompt))) if boxes else None


def _unreadable() -> str:
    return f"The answer is not one of the possible ones.\n{GRADE.format(grade=0)}"
