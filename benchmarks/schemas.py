"""What limits on the length of texts in a JSON schema cost, and what they forbid, in vLLM's structured output.

``python -m benchmarks.schemas [--tokenizer FOLDER]`` lets XGrammar, which vLLM uses to restrict decoding to a schema,
check a reply of the experience agent token by token: with the schema that TMAS sends, and with the same schema and a
limit for each text. It prints the time to compile the schema, the time per token, and whether a reply with LaTeX is
allowed. vLLM spends this time between two steps of decoding, once for each sequence. If the ratio of the
times falls below the goal, XGrammar has become fast enough for limits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import xgrammar
from transformers import AutoTokenizer

from tmas.miniature import POLICY
from tmas.prompts.schemas import ExperienceOutput, bank_schema

LIMIT = 600  # characters: method.agents.max_item_chars
GOAL = 2.0


def with_limits(node: Any) -> Any:
    """``node`` with a limit on the length of each free text."""
    if isinstance(node, list):
        return [with_limits(child) for child in node]
    if not isinstance(node, dict):
        return node
    limit = {"maxLength": LIMIT} if node.get("type") == "string" and "enum" not in node else {}
    return {key: with_limits(child) for key, child in node.items()} | limit


def reply(statement: str) -> str:
    new = {"kind": "conclusion", "statement": statement, "rollouts": [0, 3]}
    return json.dumps({"new": [new] * 4, "updates": []})


PLAIN = reply("The sum of the first n odd squares is n(2n-1)(2n+1)/3 for every n, by induction on n.")
LATEX = reply("The sum of the first $n$ odd squares is $\\frac{n(2n-1)(2n+1)}{3}$.")


def measure(compiler: Any, size: int, tokenizer: Any, schema: dict[str, Any]) -> tuple[float, float, bool]:
    """Seconds to compile the schema, median milliseconds per token, and whether it allows LaTeX."""
    started = time.perf_counter()
    grammar = compiler.compile_json_schema(json.dumps(schema), any_whitespace=False, strict_mode=True)
    seconds = time.perf_counter() - started
    mask = xgrammar.allocate_token_bitmask(1, size)
    matcher = xgrammar.GrammarMatcher(grammar)
    spent = []
    for token in tokenizer.encode(PLAIN, add_special_tokens=False):
        started = time.perf_counter()
        matcher.fill_next_token_bitmask(mask)
        spent.append(1000 * (time.perf_counter() - started))
        if not matcher.accept_token(token):
            raise RuntimeError("the schema refuses the reply without LaTeX")
    return seconds, statistics.median(spent), xgrammar.GrammarMatcher(grammar).accept_string(LATEX)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default=str(POLICY), help="folder of a tokenizer (the shipped policy's)")
    tokenizer = AutoTokenizer.from_pretrained(parser.parse_args().tokenizer)
    vocabulary = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
    compiler = xgrammar.GrammarCompiler(vocabulary, max_threads=1)
    ours = bank_schema(ExperienceOutput, range(8), ["E1"], 8)
    print(f"vocabulary of {len(tokenizer):,} tokens")
    print(f"{'':>40}  compile s  ms per token  LaTeX")
    found = {}
    for name, schema in {"ours": ours, f"texts of at most {LIMIT} characters": with_limits(ours)}.items():
        found[name] = seconds, milliseconds, latex = measure(compiler, vocabulary.vocab_size, tokenizer, schema)
        print(f"{name:>40}  {seconds:9.2f}  {milliseconds:12.3f}  {'allowed' if latex else 'refused'}")
    (_, fast, latex), (_, slow, _) = found.values()
    ratio = slow / fast
    met = latex and ratio >= GOAL
    print(f"time per token with limits: {ratio:.1f} times ours; goal {GOAL:g} and LaTeX: {'met' if met else 'missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
