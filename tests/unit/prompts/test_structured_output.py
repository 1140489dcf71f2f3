"""Every schema against XGrammar, the library that restricts vLLM's decoding to a schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tmas.judge import EquivalenceVerdict
from tmas.miniature import POLICY
from tmas.prompts.schemas import (
    DistillOutput,
    ExperienceOutput,
    GuidelineOutput,
    VerificationOutput,
    bank_schema,
    output_schema,
)
from tmas.rewards.experience import ExperienceVerdict
from tmas.rewards.novelty import NoveltyVerdict
from tmas.rewards.verification import CritiqueVerdict

xgrammar = pytest.importorskip("xgrammar", reason="needs the cpu or gpu extra")
transformers = pytest.importorskip("transformers", reason="needs the cpu or gpu extra")

SCHEMAS = {
    "verification": output_schema(VerificationOutput),
    "experience": bank_schema(ExperienceOutput, range(2), ["E1"], 8),
    "guideline": bank_schema(GuidelineOutput, range(2), ["G1"], 8),
    "distill": output_schema(DistillOutput),
    "judge, equivalence": output_schema(EquivalenceVerdict),
    "judge, experience": output_schema(ExperienceVerdict),
    "judge, novelty": output_schema(NoveltyVerdict),
    "judge, verification": output_schema(CritiqueVerdict),
}
TEXT = 'By $\\frac{1}{2} \\le x$, "every" step holds.\n' * 30


def filled(node: dict[str, Any]) -> Any:
    """A value of the schema in which every free text is :data:`TEXT`."""
    match node:
        case {"enum": [first, *_]}:
            return first
        case {"type": "object", "properties": properties}:
            return {name: filled(child) for name, child in properties.items()}
        case {"type": "array", "items": items}:
            return [filled(items)] * 2 if node["maxItems"] > 1 else [filled(items)]
        case {"type": "boolean"}:
            return True
        case {"type": "integer"}:
            return 1
        case _:
            assert node == {"type": "string"}
            return TEXT


@pytest.fixture(scope="module")
def compiler() -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(POLICY)
    return xgrammar.GrammarCompiler(xgrammar.TokenizerInfo.from_huggingface(tokenizer), max_threads=1)


@pytest.mark.parametrize("name", SCHEMAS)
def test_texts_may_hold_latex_quotation_marks_and_line_breaks(compiler: Any, name: str) -> None:
    schema = SCHEMAS[name]
    grammar = compiler.compile_json_schema(json.dumps(schema), any_whitespace=False, strict_mode=True)
    matcher = xgrammar.GrammarMatcher(grammar, terminate_without_stop_token=True)
    reply = json.dumps(filled(schema))
    assert TEXT.count("\\") > 50
    assert matcher.accept_string(reply)
    assert matcher.is_terminated()
