"""The rule-based judge of the miniature. It answers the two judge prompts of the hybrid reward by exact rules.

A solution of the miniature states its choices in lines such as ``so B:echo:ac``. The judge compares these lines with
the bank in the prompt. It does not see the right answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from recipes.miniature.language import blocks_in, findings
from recipes.miniature.task import LETTERS, ORDERS, RULES, fits

_SECTION = re.compile(r"# (Problem|Experience bank|Guidelines|Solution)\n\nBEGIN (\S+)\n(.*?)\nEND \2", re.DOTALL)
_CHOICE = re.compile(rf"so ([{LETTERS}]):({'|'.join(RULES)}):({'|'.join(ORDERS)})\b")
_ITEM = re.compile(r"^- \[([EG]\d+), support \d+\] (.*)$", re.MULTILINE)


def verdict(prompt: str) -> str:
    """The JSON verdict for a judge prompt: on novelty if it lists guidelines, else on the use of experience."""
    sections = {name: text for name, _, text in _SECTION.findall(prompt)}
    return json.dumps(_novelty(sections) if "Guidelines" in sections else _experience(sections))


def _experience(sections: Mapping[str, str]) -> dict[str, object]:
    """The verdict on the use of experience, item by item.

    A conclusion is applied if the solution chooses its rule and order for its block. A pitfall is applied if the
    solution uses its rule for its block, but in another order. A pitfall whose rule and order are chosen is repeated.
    """
    blocks = blocks_in(sections["Problem"])
    chosen = {LETTERS.index(m[1]): m for m in _CHOICE.finditer(sections["Solution"])}
    items, repeated = [], []
    for item_id, statement in _ITEM.findall(sections["Experience bank"]):
        found = next(iter(findings(statement)), None)
        choice = chosen.get(found.block) if found else None
        use, correct, quote = "none", False, ""
        if found and choice and choice[2] == found.rule:
            same = choice[3] == found.order
            if same and not found.fits:
                repeated.append({"id": item_id, "quote": choice[0]})
            elif same or not found.fits:
                use, quote = "applied", choice[0]
                correct = found.block < len(blocks) and fits(blocks[found.block], choice[2], choice[3])
        items.append({"id": item_id, "use": use, "correct": correct, "quote": quote})
    return {"items": items, "repeated": repeated}


def _novelty(sections: Mapping[str, str]) -> dict[str, object]:
    """The verdict on novelty. The strategy of a solution is its rule, and each of its choices is a key step.

    The description names the rule and leaves out its formula: the near-duplicate test ignores ``*`` and ``~``.
    """
    chosen = list(_CHOICE.finditer(sections["Solution"]))
    rule = chosen[0][2] if chosen else "none"
    known = dict(_ITEM.findall(sections["Guidelines"]))
    return {
        "name": rule,
        "description": f"rule {rule}",
        "steps": [choice[0] for choice in chosen],
        "same": [item_id for item_id, text in known.items() if text.partition(":")[0] == rule],
        "variation_of": [],
    }
