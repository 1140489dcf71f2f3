"""The tokens and the makespan that adaptive TMAS saves at the published size, on a scripted engine.

``python -m benchmarks.adaptive_scheduling`` runs fixed and adaptive TMAS (100 problems, 20 iterations, N = M = 8) as
benchmarks/scheduling.py does: heavy-tailed lengths, a virtual clock, calls in the order of ``tmas solve``. Candidates
and verifiers are scripted. A fifth of the problems has no right candidate. In the others a candidate is right with a
probability between 0 and 0.6, drawn per problem. A verifier's grade is wrong with the probability ``--noise``.

Engine use is a lower bound of the makespan, divided by the makespan. The bound is the larger of two durations: the
critical path of the longest problem, and the tokens divided by the slots (a slot decodes one token per virtual second).
"busy" is the share of the slots' time that decodes tokens.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from benchmarks.adaptive import settings_of
from benchmarks.scheduling import measure
from benchmarks.support import UNBOUNDED
from tmas.concurrency import PriorityLimiter
from tmas.testing import team
from tmas.testing.chat_server import Body

GOAL = 0.95
RIGHT = r"The answer is \boxed{7}."


def uniform(name: str) -> float:
    """A number in [0, 1) that is derived from ``name``."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) / 2**56


def scripted(noise: float, role: str, body: Body) -> list[str]:
    """The texts of a team with right and wrong candidates, whose verifier errs with the probability ``noise``."""
    prompt = team.prompt(body)
    draws = [uniform(f"{role}/{body['seed']}/{choice}") for choice in range(body["n"])]
    if role == "solution":
        found = re.search(r"Number \d+", prompt)
        assert found, prompt
        ability = max(0.0, uniform(found[0]) - 0.2) / 0.8
        return [RIGHT if draw < 0.6 * ability**2 else rf"The answer is \boxed{{{int(100 * draw)}1}}." for draw in draws]
    if role == "verification":
        grades = [int((RIGHT in prompt) != (draw < noise)) for draw in draws]
        return [f"Each step was checked.\nThe final grade is: \\boxed{{{grade}}}" for grade in grades]
    return team.reply(body)


def simulated(given: argparse.Namespace, method: str, slots: int) -> tuple[float, float]:
    """The makespan in virtual seconds and the work in tokens of ``method`` with this number of slots."""
    settings = settings_of([f"method={method}"], [f"method.max_iterations={given.iterations}"])
    return measure(PriorityLimiter, slots, given.problems, settings, partial(scripted, given.noise))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=800)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["tmas", "tmas_adaptive"],
        help="methods to compare; the percentages are relative to the first",
    )
    parser.add_argument(
        "--processes", type=int, default=None, help="number of processes; defaults to the number of cores"
    )
    given = parser.parse_args()
    slots, met = given.concurrency, True
    first: tuple[float, float] | None = None
    print(f"{given.problems} problems, {given.iterations} iterations, {slots} slots, noise {given.noise:.0%}")
    print(f"{'':>14}  {'tokens':>13} {'':>7}  {'makespan':>10} {'':>7}  {'engine use':>10}  {'busy':>5}", flush=True)
    with ProcessPoolExecutor(given.processes) as pool:
        simulations = {
            name: [pool.submit(simulated, given, name, s) for s in (UNBOUNDED, slots)] for name in given.methods
        }
        for name, (unbounded, limited) in simulations.items():
            (critical, work), (makespan, _) = unbounded.result(), limited.result()
            first = first or (work, makespan)
            use = max(critical, work / slots) / makespan
            met &= use >= GOAL
            print(
                f"{name:>14}  {work:>13,.0f} {work / first[0]:>7.1%}  {makespan:>10,.0f} {makespan / first[1]:>7.1%}"
                f"  {use:>10.3f}  {work / slots / makespan:>5.2f}",
                flush=True,
            )
    print(f"goal: engine use {GOAL}: {'met' if met else 'missed'}")
    sys.exit(not met)


if __name__ == "__main__":
    main()
