"""Kills a repair before its steps, and repairs what it left. Arguments: base path, seed, and how many of the steps.

Says each step that it died before, one a line, then how many there are.
"""

import random
import shutil
import sys
from pathlib import Path

from check_kit import ROWS, said
from deepwater.check import verify
from deepwater.repair import repair
from dying import kill_before
from test_repair import CHUNKS, everything, gaps, original

base, rng, wanted = Path(sys.argv[1]), random.Random(int(sys.argv[2])), int(sys.argv[3])
copy = base.parent / "copy"


def apply(begin) -> None:
    begin()
    repair(copy, apply=True, jobs=1)


def judge() -> None:
    """The next repair mends the rest; what was lost is lost, and nothing else is."""
    assert not repair(copy, apply=True).problems
    assert said(verify(copy)) == [], said(verify(copy))
    have, good, wrote = everything(copy), [True] * (CHUNKS * ROWS), original()
    for position, _, count in gaps(copy):
        good[position : position + count] = [False] * count
    assert (have[good] == wrote[good]).all() and len(have) == CHUNKS * ROWS
    lost = good.count(False)
    assert lost == LOST, lost


shutil.copytree(base, copy)
steps = 0
repair(copy, apply=True)
LOST = sum(count for _, _, count in gaps(copy))
shutil.rmtree(copy)


def trial(step: int) -> str:
    shutil.copytree(base, copy)
    name = kill_before(apply, step)
    judge()
    shutil.rmtree(copy)
    return name


low, high = 0, 1
while trial(high):
    low, high = high, 2 * high
while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if trial(middle) else (low, middle)
for step in sorted(rng.sample(range(high), min(high, wanted))):
    print(trial(step), flush=True)
print(high, flush=True)
