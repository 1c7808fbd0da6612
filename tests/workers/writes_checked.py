"""Writes checked records of one feed for ever, in writes of all sizes. Argument: base path. Says when it has begun."""

import random
import sys
import time

import model
from deepwater import Platform

rng = random.Random(36)
with Platform(sys.argv[1]) as dw:
    writer = dw.create_writer("F")
    number = 0
    while True:  # until it is killed
        number += 1
        rows = rng.choice((1, 1, 3, 8, 25))
        writer.write_batch(model.checked_records(writer.end, rows, number), create_index=rng.random() < 0.2)
        time.sleep(0.0005)
        if number == 50:
            print("begun", flush=True)
