"""Solves one problem and prints each call of the run: its role, the length of its prompt, and the start of its reply.

MODEL_URL=http://HOST:8000/v1 MODEL_NAME=NAME python examples/inspect_trace.py [FOLDER]
"""

import os
import sys
from pathlib import Path

from tmas import ModelSettings, Problem, Sampling, TMASSettings, solve
from tmas.run.trace import read_calls

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
model = ModelSettings(
    name=os.environ["MODEL_NAME"],
    base_url=os.environ["MODEL_URL"],
    context_length=32768,
    sampling=Sampling(max_tokens=8192),
)
problem = Problem(problem_id="primes", question="How many primes are smaller than 30?", answer="10")
result = solve(problem, model, TMASSettings(n_candidates=2, n_verifications=2, max_iterations=2), output_dir=folder)

[trace] = (folder / "trace").iterdir()
for call in read_calls(trace):
    prompt = call.messages[-1].content
    print(f"iteration {call.key.iteration} {call.key.role} {call.key.index}: prompt of {len(prompt)} characters")
    for completion in call.reply.completions if call.reply else ():
        print("    ", completion.text[:100].replace("\n", " "))
    if call.failure:
        print("     failed:", call.failure.reason.value, call.failure.message)

print("answer:", result.answer)
for iteration in result.trajectory.iterations:
    print("iteration", iteration.index, "findings:", [item.statement for item in iteration.experiences])
