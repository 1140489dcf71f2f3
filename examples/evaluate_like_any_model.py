"""Evaluates TMAS as an evaluation harness would: as a model behind an OpenAI-compatible API, next to the bare model.

Start the server first, then give both addresses:

    tmas serve serve.output_dir=runs/served serve.port=8080 model.base_url=$MODEL_URL model.name=$MODEL_NAME \\
        model.context_length=32768 model.sampling.max_tokens=8192
    MODEL_URL=... MODEL_NAME=... TMAS_URL=http://127.0.0.1:8080/v1 python examples/evaluate_like_any_model.py
"""

import os
import re

from openai import OpenAI

QUESTIONS = {"What is 17 + 25?": "42", "What is the remainder of 2^10 divided by 7?": "2"}
BOX = re.compile(r"\\boxed\{([^{}]*)\}")


def accuracy(base_url: str, model: str) -> float:
    """The share of questions whose last boxed answer is right.

    The timeout is long because a TMAS request can take hours.
    """
    client = OpenAI(base_url=base_url, api_key=os.environ.get("MODEL_KEY", "none"), timeout=86400)
    right = 0
    for question, answer in QUESTIONS.items():
        asked = f"{question} Put the answer into \\boxed{{}}."
        reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": asked}])
        boxes = BOX.findall(reply.choices[0].message.content or "")
        right += bool(boxes) and boxes[-1].strip() == answer
        print(f"{model}: {question} -> {boxes[-1] if boxes else 'no answer'}")
    return right / len(QUESTIONS)


bare = accuracy(os.environ["MODEL_URL"], os.environ["MODEL_NAME"])
team = accuracy(os.environ["TMAS_URL"], "tmas")
print(f"bare model {bare:.0%}, team {team:.0%}")
