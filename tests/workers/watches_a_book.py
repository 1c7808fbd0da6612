"""Follows the book of a feed for ever, and ends badly if it is ever crossed while it says it is to be trusted.

argv: the store, the feed. It may come before the feed is there.
"""

from __future__ import annotations

import sys
import time

from deepwater import Platform
from deepwater.book import OrderBook
from deepwater.errors import FeedNotFoundError

store, feed = sys.argv[1:]
with Platform(store) as dw:
    while True:
        try:
            reader = dw[feed]
            break
        except FeedNotFoundError:
            time.sleep(0.02)
    with reader:
        follower, book = reader.follow("snapshot"), None
        for records in follower:
            start = follower.position - len(records)
            book = OrderBook(start) if book is None else book
            book.apply(records, reader.marks(), position=start)
            if book.valid and book.crossed:
                sys.exit(f"crossed before position {book.position}")
