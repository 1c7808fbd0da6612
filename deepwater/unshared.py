"""What cannot be handed to another process: it stands on mappings, descriptors and locks of the one that made it."""

from __future__ import annotations

from typing import ClassVar, NoReturn

__all__ = ["Unshared"]


class Unshared:
    """A base class: to pickle (or copy) one of these is a TypeError that says what to do instead.

    Parameters
    ----------
    instead : str
        Of the class, as an imperative; subclasses inherit it.
    """

    __slots__ = ()
    _instead: ClassVar[str]

    def __init_subclass__(cls, *, instead: str | None = None, **others: object) -> None:
        super().__init_subclass__(**others)
        cls._instead = cls._instead if instead is None else instead

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled, it belongs to this process: {self._instead}")
