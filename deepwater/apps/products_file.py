"""A file of products: one a line; what is behind ``#`` is a comment, empty lines count for nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from deepwater.errors import DeepwaterError

__all__ = ["read_products"]

_MOST_BYTES = 1 << 20


def _open_now(path: str, flags: int) -> int:
    """Open a file; of a FIFO that nobody writes, too, at once."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_products(path: str | Path) -> list[str]:
    """Return the products of a file, in order.

    Raises
    ------
    DeepwaterError
        If it can not be read, is no UTF-8 text, or a line holds more than one word; attribute `path`.
    """
    try:
        with open(path, "rb", opener=_open_now) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                text = f"products file {path}: no regular file, so it can not be read again"
                raise DeepwaterError(text, path=str(path))
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise DeepwaterError(f"products file {path}: {error.strerror or error}", path=str(path)) from error
    if len(data) > _MOST_BYTES:
        raise DeepwaterError(f"products file {path}: larger than 1 MiB, expected a product a line", path=str(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DeepwaterError(f"products file {path}: byte {error.start} is no UTF-8 text", path=str(path)) from error
    products = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if len(words) > 1:
            raise DeepwaterError(
                f"products file {path}: line {number} holds {len(words)} words, expected one product", path=str(path)
            )
        products += words
    return products
