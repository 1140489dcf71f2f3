"""The rule-based judge of the miniature. It answers the judge prompts of the hybrid reward by exact rules.

A solution of the miniature states its choices in lines such as ``so B:echo:ac``, and its answer in a box. Only a line
that agrees with the answer counts. The judge compares these lines with the bank in the prompt, or with the findings of
a critique. It does not use the right answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from recipes.miniature.language import Finding, arithmetic, blocks_in, findings, item, read_answer
from recipes.miniature.task import fits
from tmas.answers.extract import extract_boxed

_SECTION = re.compile(
    r"# (Problem|Experience bank|Guidelines|Solution|Candidate|Critique)\n\nBEGIN (\S+)\n(.*?)\nEND \2", re.DOTALL
)
_CODE = re.compile(r'"code", with exactly the text (\w+)')
_ITEM = re.compile(r"^- \[([EG]\d+), support \d+(?:, contradicted \d+)?\] (.*)$", re.MULTILINE)


def verdict(prompt: str) -> str:
    """The JSON verdict for a judge prompt: on a critique, on novelty if it lists guidelines, or on experience.

    It repeats the last code in the prompt: a solution, which comes earlier, may contain a false one.
    """
    sections = {name: text for name, _, text in _SECTION.findall(prompt)}
    codes = _CODE.findall(prompt)
    judge = _critique if "Critique" in sections else _novelty if "Guidelines" in sections else _experience
    return json.dumps({"code": codes[-1]} | judge(sections) if codes else judge(sections))


def _experience(sections: Mapping[str, str]) -> dict[str, object]:
    """The verdict on the use of experience, item by item.

    A conclusion is applied if the solution chooses its rule and order for its block. A pitfall is applied if the
    solution uses its rule for its block, but in another order. A pitfall whose rule and order are chosen is repeated.
    """
    blocks = blocks_in(sections["Problem"])
    chosen = _choices(sections)
    items, repeated = [], []
    for item_id, statement in _ITEM.findall(sections["Experience bank"]):
        found = next(iter(findings(statement)), None)
        choice = chosen.get(found.block) if found else None
        use, correct, quote = "none", False, ""
        if found and choice and choice.rule == found.rule:
            same = choice.order == found.order
            if same and not found.fits:
                repeated.append({"id": item_id, "quote": str(choice)})
            elif same or not found.fits:
                use, quote = "applied", str(choice)
                correct = fits(blocks[found.block], choice.rule, choice.order)
        items.append({"id": item_id, "use": use, "correct": correct, "quote": quote})
    return {"items": items, "repeated": repeated}


def _novelty(sections: Mapping[str, str]) -> dict[str, object]:
    """The verdict on novelty. The strategy of a solution is its rule, and each of its choices is a key step.

    The description names the rule and leaves out its formula: the near-duplicate test ignores ``*`` and ``~``.
    """
    chosen = [*_choices(sections).values()]
    rule = chosen[0].rule if chosen else "none"
    known = dict(_ITEM.findall(sections["Guidelines"]))
    return {
        "name": rule,
        "description": f"rule {rule}",
        "steps": [str(choice) for choice in chosen],
        "same": [item_id for item_id, text in known.items() if text.partition(":")[0] == rule],
        "variation_of": [],
    }


def _critique(sections: Mapping[str, str]) -> dict[str, object]:
    """The verdict on a critique. The first error is the first choice that does not fit its block.

    The critique names it if its first finding BAD is about this choice. It explains it if it shows the right
    arithmetic.
    """
    blocks = blocks_in(sections["Problem"])
    chosen = _choices({"Problem": sections["Problem"], "Solution": sections["Candidate"]})
    first = next((c for c in chosen.values() if not fits(blocks[c.block], c.rule, c.order)), None)
    faulted = next((found for found in findings(sections["Critique"]) if not found.fits), None)
    named = first is not None and faulted is not None and faulted[:3] == first
    shown = arithmetic(blocks[first.block], Finding(*first, fits=False)) if first else ""
    explained = named and shown in sections["Critique"]
    quote = item(*first) if first and named else ""
    return {"first_error": str(first or ""), "named": named, "explained": explained, "critique_quote": quote}


class _Choice(NamedTuple):
    block: int
    rule: str
    order: str

    def __str__(self) -> str:
        return f"so {item(*self)}"


def _choices(sections: Mapping[str, str]) -> dict[int, _Choice]:
    """The choices of the boxed answer by block. A choice counts only if a line of the solution states it, too."""
    text = sections["Solution"]
    answer = read_answer(extract_boxed(text) or "", len(blocks_in(sections["Problem"])))
    chosen = [_Choice(n, answer.rule, order) for n, order in enumerate(answer.orders)] if answer else []
    return {choice.block: choice for choice in chosen if re.search(rf"{choice}\b", text)}
