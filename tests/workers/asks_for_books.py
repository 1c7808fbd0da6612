"""Asks for books of feeds at random times while they are recorded: ``<store> <seed> <count> <product>...``.

Waits for the feeds; each time asked for is of a record that is there then. A line for each answer, and it goes on until
it has asked so many times and stdin has ended (after so many times only where more has come)::

    product time_us end position valid crossed bids asks digest     (`end`: what was published before it asked)
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np

from apps.book_walk import digest_of
from deepwater import Platform
from deepwater.books import book_at
from deepwater.errors import FeedNotFoundError
from deepwater.reader import Reader


def opened(dw: Platform, name: str) -> Reader:
    while True:
        try:
            reader = dw[name]
        except FeedNotFoundError:
            time.sleep(0.01)
            continue
        if len(reader):
            return reader
        time.sleep(0.01)


def main(store: str, seed: int, wanted: int, products: list[str]) -> None:
    """Ask."""
    random, told = np.random.default_rng(seed), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()
    with Platform(store) as dw:
        readers = {product: opened(dw, f"CB-L2-{product}") for product in products}
        print("asking", flush=True)
        asked, ends = 0, dict.fromkeys(products, 0)
        while asked < wanted or not told.is_set():
            product = products[asked % len(products)]
            reader = readers[product]
            end = int(reader.end)
            if asked >= wanted and end == ends[product]:
                told.wait(0.01)
                continue
            ends[product] = end
            at = int(random.integers(0, end))
            time_us = int(reader.rows(at, at + 1)["proc_us"][0])
            book = book_at(reader, time_us)
            sizes = len(book.bids), len(book.asks)
            print(product, time_us, end, book.position, int(book.valid), int(book.crossed), *sizes,
                  digest_of(book.bids, book.asks))  # fmt: skip
            asked += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
