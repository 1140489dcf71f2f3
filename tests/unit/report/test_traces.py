"""A problem's part of the page: all of its texts come back exactly, and a share of the page is kept to."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from tmas.records.trace_lines import DecisionLine
from tmas.report.traces import Block, problem_block
from tmas.run.trace import TraceError, read_calls, read_trace
from tmas.testing import team
from tmas.testing.synthetic_run import Writer, make, problems


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "run"
    method = team.method(n_candidates=3, n_verifications=3, max_iterations=4)
    asyncio.run(make(run, problems(1), method, Writer(seed=3, reasoning=200)))
    [file] = (run / "trace").iterdir()
    return file


def block_of(trace: Path, share: int) -> Block:
    return problem_block({"problem_id": "p"}, read_calls(trace), share)


def unpacked(line: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(line)))


def text(block: Block, at: list[int]) -> str:
    """As the page finds it: the runs of a text, each from the lines of its unit."""
    index = unpacked(block.lines[0])

    def unit(number: int) -> Any:
        return unpacked(block.lines[index["units"][str(number)]])

    runs = unit(at[0])["texts"][at[1]]
    return "\n".join("\n".join(unit(source)["lines"][start : start + count]) for source, start, count in runs)


def test_every_prompt_reply_and_reasoning_comes_back_exactly(trace: Path):
    block = block_of(trace, share=10**8)
    index = unpacked(block.lines[0])
    recorded = list(read_calls(trace))
    assert len(recorded) > 40
    for call, entry in zip(index["calls"], recorded, strict=True):
        assert [call[name] for name in ("iteration", "role", "index", "attempt")] == list(
            entry.key.model_dump().values()
        )[1:]
        [message] = index["prompts"][call["prompt"]]
        assert text(block, message["text"]) == entry.messages[0].content
        completions = entry.reply.completions if entry.reply else ()
        assert [text(block, c["text"]) for c in call["completions"]] == [c.text for c in completions]
        reasoning = unpacked(block.lines[call["reasoning"]]) if "reasoning" in call else []
        assert reasoning == [c.reasoning for c in completions]
    assert block.left_out == 0


def test_failures_and_grades_are_in_the_index(trace: Path):
    index = unpacked(block_of(trace, share=0).lines[0])
    recorded = list(read_calls(trace))
    assert [call["failure"] for call in index["calls"]] == [
        entry.failure and entry.failure.model_dump(mode="json") for entry in recorded
    ]
    grades = [c["grade"] for call in index["calls"] if call["role"] == "verification" for c in call["completions"]]
    assert set(grades) >= {0.0, 0.5, 1.0}
    assert all("grade" not in c for call in index["calls"] if call["role"] == "summary" for c in call["completions"])


def test_without_a_share_only_the_index_is_there(trace: Path):
    block = block_of(trace, share=0)
    everything = block_of(trace, share=10**8)
    assert (len(block.lines), block.size) == (1, 0)
    index = unpacked(everything.lines[0])
    texts = [c for call in index["calls"] for c in call["completions"]]
    prompts = [message for messages in index["prompts"].values() for message in messages]
    reasoning = sum(c["reasoning_characters"] for c in texts)
    assert block.left_out == sum(one["characters"] for one in (*texts, *prompts)) + reasoning


def test_a_share_is_kept_to_and_prompts_and_replies_come_before_reasoning(trace: Path):
    everything = block_of(trace, share=10**8)
    units = sum(len(everything.lines[place]) for place in unpacked(everything.lines[0])["units"].values())
    block = block_of(trace, share=units + 2000)
    index = unpacked(block.lines[0])
    assert block.size == sum(map(len, block.lines[1:])) <= units + 2000
    assert len(index["units"]) == 4
    assert 0 < sum("reasoning" in call for call in index["calls"]) < len(index["calls"])
    smaller = block_of(trace, share=units - 1)
    assert list(unpacked(smaller.lines[0])["units"]) == ["0", "1", "2"]
    assert smaller.left_out > block.left_out > 0


def test_a_damaged_line_is_named(tmp_path: Path):
    file = tmp_path / "trace.jsonl"
    file.write_text('{"v": 1, "type": "decision", "name": "n", "value": 1}\n{"type": "ca\n')
    with pytest.raises(TraceError, match=r"trace\.jsonl:2: damaged line"):
        list(read_trace(file))


def test_a_last_line_torn_by_a_kill_is_left_out(tmp_path: Path):
    file = tmp_path / "trace.jsonl"
    file.write_text('{"v": 1, "type": "decision", "name": "n", "value": 1}\n{"type": "ca')
    assert [*read_trace(file)] == [DecisionLine(name="n", value=1)]
