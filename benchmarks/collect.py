"""Speed and memory of `tmas collect` on a file with the columns and the size of DAPO-Math-17k.

``python -m benchmarks.collect`` writes two parquet files: 17,917 synthetic problems once, and 100 times. Each file has
one row group, which is the worst case for streaming. It reads both files. The memory should be the same for both.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
import yaml
from pyarrow import parquet

ROOT = Path(__file__).parent.parent
PROBLEMS = 17_917
PROMPT_START = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
REPORT = "pool/sources/dapo_math_17k.json"
"""`tmas collect` writes this file after it has read the source."""
PROMPT_END = '\n\nRemember to put your answer on its own line after "Answer:".'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=100)
    arguments = parser.parse_args()
    problems = pyarrow.Table.from_pylist([_row(random.Random(i), i) for i in range(PROBLEMS)])
    with tempfile.TemporaryDirectory() as folder:
        for copies in (1, arguments.copies):
            file = Path(folder, f"{copies}.parquet")
            table = pyarrow.concat_tables([problems] * copies)
            parquet.write_table(table, file, row_group_size=table.num_rows)
            _measure(file, table.num_rows)


def _row(rng: random.Random, number: int) -> dict[str, object]:
    text = " ".join(f"w{rng.randrange(3000)}" for _ in range(60))
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": f"{PROMPT_START}{text}, case {number}?{PROMPT_END}", "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": str(number % 999), "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": f"{rng.getrandbits(128):032x}"},
    }


def _measure(file: Path, rows: int) -> None:
    """Run `tmas collect` in a new process, without benchmarks for decontamination."""
    workspace = file.with_suffix("")
    names = yaml.safe_load((ROOT / "conf" / "collect.yaml").read_text())["benchmarks"]
    command = [
        *(Path(sys.executable).with_name("tmas"), "collect", f"workspace={workspace}", "benchmarks_dir=none"),
        *("source=dapo_math_17k", f"source.dapo_math_17k.files=[{file}]"),
        *(f"benchmarks.{name}.files=[]" for name in names),
    ]
    started = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit("tmas collect failed")
    ended, read = time.time() - started, (workspace / REPORT).stat().st_mtime - started
    print(
        f"{rows:,} rows, {file.stat().st_size / 1e6:,.0f} MB: read in {read:.0f} s ({rows / read:,.0f} rows/s), "
        f"cleaned after {ended:.0f} s, peak memory {used.ru_maxrss / 1024:,.0f} MiB"
    )


if __name__ == "__main__":
    main()
