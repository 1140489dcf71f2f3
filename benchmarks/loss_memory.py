"""Shows the memory that the loss of ``tmas sft`` needs, with the logits of all tokens and in chunks.

``python -m benchmarks.loss_memory`` computes the loss of a chat and its gradients in bf16, once in a process of its own
for each ``loss_chunk``. The model has a large vocabulary and is otherwise tiny, so the logits dominate. It prints the
growth of the process's largest resident memory as a multiple of the bf16 logits of all tokens. The goal: 1/16 of the
chat at once takes at most a quarter of the memory of the whole chat; exit code 1 if it is missed.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

TOKENS, VOCABULARY = 2048, 65_536
CHUNK = TOKENS // 16
GOAL = 0.25


def measure(chunk: int | None) -> float:
    """Compute loss and gradients here, and return the growth of the peak memory in multiples of the bf16 logits."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    from benchmarks.support import peak_memory
    from tmas.training.sft.chunked_loss import use_chunked_loss

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 32}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    config = Qwen3Config(vocab_size=VOCABULARY, **sizes, **heads)  # type: ignore[arg-type]
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    if chunk is not None:
        use_chunked_loss(model, chunk)
    tokens = torch.randint(0, VOCABULARY, (1, TOKENS))
    model(input_ids=tokens[:, :8], labels=tokens[:, :8]).loss.backward()  # loads what the first call loads
    before = peak_memory()
    model(input_ids=tokens, labels=tokens).loss.backward()
    return (peak_memory() - before) * 2**20 / (2 * TOKENS * VOCABULARY)


def main() -> None:
    if sys.argv[1:]:
        print(measure(None if sys.argv[1] == "null" else int(sys.argv[1])))
        return
    print(f"{TOKENS:,} tokens, vocabulary {VOCABULARY:,}: {2 * TOKENS * VOCABULARY / 1e9:.2f} GB of bf16 logits")
    found = []
    for chunk in ("null", str(CHUNK)):
        command = [sys.executable, "-m", "benchmarks.loss_memory", chunk]
        found.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(f"loss_chunk={chunk}: {found[-1]:.2f} times the bf16 logits of all tokens")
    ratio = found[1] / found[0]
    print(f"{ratio:.2f} of the memory, goal {GOAL}: {'met' if ratio <= GOAL else 'missed'}")
    raise SystemExit(ratio > GOAL)


if __name__ == "__main__":
    main()
