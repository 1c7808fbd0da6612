"""Follows a ring, or a feed with chunks, and checks every record.

``base feed board own_board wanted pace mode seed [nocheck]``. `mode` is "follow" (with on_lap skip), "raise"
(LappedError is caught and counted), "look" (latest, rows, read, borrow and as-of at random) or "anew" (opens the feed
again and again, and reads some of it). `pace`: seconds to sleep now and then. With ``nocheck`` copies are not checked
after they were made: the test that this worker serves must then see wrong records.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import ring_kit
from deepwater import LappedError, Platform
from deepwater.ring import Ring

base, feed, board_path, own_path, wanted, pace, mode, seed = sys.argv[1:9]
board, own = ring_kit.Board(board_path), ring_kit.Board(own_path)
truth = ring_kit.table()
rng = np.random.default_rng(int(seed))
copy = Ring.copy


def counted(self, first, stop, dtype):
    """As Ring.copy; counts the copies that the writer came into while they were made."""
    before = self.oldest()
    valid, records = copy(self, first, stop, dtype)
    own["overlaps"] += valid > max(first, before)
    own["laps"] += before > first
    return valid, records


def unchecked(self, first, stop, dtype):
    at = (first - self.base) % self.capacity
    index = (at + np.arange(stop - first)) % self.capacity
    return first, np.ascontiguousarray(self.records.view(f"V{self.size}")[index]).view(dtype)


Ring.copy = unchecked if "nocheck" in sys.argv else counted


def check(records, position):
    own["wrong"] += ring_kit.wrong_rows(truth, records, position)
    own["accepted"] += len(records)


def follow(reader):
    follower = reader.follow("earliest", on_lap="raise" if mode == "raise" else "skip", wait="auto", timeout=1.0)
    start = int(follower.position)
    pause = 0
    print("ready", start, flush=True)
    while True:
        try:
            for records in follower:
                own["batches"] += 1
                check(records, int(follower.position) - len(records))
                own["lost"], own["position"] = follower.lost, int(follower.position)
                own["edges"] += follower.position == reader.end
                if own["accepted"] >= int(wanted):
                    own["done"] = 1  # it is the test that ends the run
                pause += 1
                if float(pace) and pause % 8 == 0:
                    time.sleep(float(pace))
            if board["done"] and follower.position >= board["position"]:
                break
        except LappedError as error:
            own["raised"] += 1
            own["wrong"] += error.lost <= 0
    own["lost"], own["position"] = follower.lost, int(follower.position)
    print(start, int(follower.position), follower.lost)


def look(reader):
    print("ready 0", flush=True)
    while not board["done"]:
        first, end = reader.first, int(reader.end)
        n = int(rng.integers(1, max(2, (end - first) or 2)))
        at = int(rng.integers(first, max(first + 1, end)))
        windows = [reader.latest(n), reader.rows(at, at + n), reader.read(last=n)]
        for window in windows:
            for records in window:
                check(records, window.position)
        own["batches"] += len(windows)
        try:
            with reader.borrow(n) as window:
                copies = [(part.position, part.array().copy()) for part in window._parts]
            for position, records in copies:
                check(records, position)
        except LappedError:
            own["raised"] += 1
        stamps = rng.integers(0, ring_kit.PERIOD, 4, np.uint64)
        found = reader.asof(stamps)
        for k, position in enumerate(found.positions[found.found].tolist()):
            check(found.records()[k : k + 1], position)
        if own["accepted"] >= int(wanted):
            own["done"] = 1
        if float(pace):
            time.sleep(float(pace))
    print("0 0 0")


def open_anew():
    print("ready 0", flush=True)
    while not board["done"]:
        with Platform(base) as dw, dw[feed] as reader:
            first, end = reader.first, int(reader.end)
            n = int(rng.integers(1, 200_000))
            at = int(rng.integers(first, max(first + 1, end)))
            for window in (reader.latest(n), reader.rows(at, at + n), reader.rows(max(first, end - n // 10), end)):
                position = window.position
                for records in window:
                    check(records, position)
                    position += len(records)
                own["batches"] += 1
            own["edges"] += reader.end > end  # it was being written
        own["started"] += 1
    print("0 0 0")


if mode == "anew":
    open_anew()
else:
    with Platform(base).create_reader(feed) as reader:
        (look if mode == "look" else follow)(reader)
