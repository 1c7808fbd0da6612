"""Applications on the library: recorder, maintainer of order books, dashboard, and a local exchange to record from.

Pipeline, left to right; a module imports only from modules to its left::

    counters specs coinbase_time trade_ids | sink | venue | venue_guard coinbase subscriptions sequence | coinbase_venue
    kraken | kraken_book | kraken_venue                                              (venues: all of them by name)
    stopping outlet | product_feeds roll | ingest | connection | roster
        | platform_sink bad_frames disk_watch products_file metrics | metrics_feed metrics_http | recorder
    market faults tape subscriptions stopping | exchange_session kraken_session | streams | exchange
    specs | maintainer

`venue` is the seam: what an exchange's protocol is, as a plug-in. The wire is known only to the modules named for an
exchange (pure functions: bytes in, record arrays out), and to `…_session` for the other direction. Sockets are touched
only by `connection` and `exchange`, feeds only through the protocol of `sink`. So each rule can be tested without the
others.

These modules (but for `specs` and `maintainer`) need the packages of the extra ``deepwater[apps]``; without them an
import raises one `DeepwaterError` that says so.
"""

from __future__ import annotations

from typing import NoReturn

from deepwater.errors import DeepwaterError

__all__ = ["MissingPackageError", "needs_apps"]


class MissingPackageError(DeepwaterError, ImportError):
    """A package of the extra ``deepwater[apps]`` is not installed. Attribute: `package`."""


def needs_apps(error: ImportError) -> NoReturn:
    """Turn the failed import of an optional package into one line with the way out.

    Parameters
    ----------
    error : ImportError
        What the import of the package raised; it stays the cause.

    Raises
    ------
    MissingPackageError
        Always.

    Examples
    --------
    >>> try:
    ...     needs_apps(ImportError("No module named 'msgspec'", name="msgspec"))
    ... except DeepwaterError as error:
    ...     print(error)
    package 'msgspec' is missing: the apps need it; install deepwater[apps]
    """
    package = (error.name or str(error)).partition(".")[0]
    raise MissingPackageError(
        f"package {package!r} is missing: the apps need it; install deepwater[apps]", package=package
    ) from error
