"""The command schema: what the records of a feed are, for other programs."""

from __future__ import annotations

import argparse
import json
from pprint import pformat
from typing import Any

from deepwater.cli import output
from deepwater.cli.failures import OK
from deepwater.layout import Layout
from deepwater.platform import Platform
from deepwater.schema import FeedSpec

__all__ = ["schema"]


def schema(args: argparse.Namespace) -> int:
    """Print the schema of a feed."""
    with Platform(args.base_path) as dw, dw.create_reader(args.feed) as reader:
        layout, settings, columns = reader.layout, reader.settings, reader.schema
    if args.format == "python":
        output.write(_python(layout))
    elif args.format == "arrow":
        output.write(columns.to_string(show_schema_metadata=False, show_field_metadata=False) + "\n")
    else:
        spec = FeedSpec(args.feed, layout.fields, layout.ts_col, settings=settings).to_json()
        output.write(json.dumps(spec, indent=2) + "\n")  # a file to edit, unlike what --json of the others prints
    return OK


def _python(layout: Layout) -> str:
    """Return lines that make the dtype: offsets and size as they lie in a file."""
    columns = layout.columns
    described: dict[str, Any] = {
        "names": [column.name for column in columns],
        "formats": [column.item if column.count is None else (column.item, (column.count,)) for column in columns],
        "offsets": [column.offset for column in columns],
        "itemsize": layout.record_size,
    }
    return f"import numpy as np\n\ndtype = np.dtype({pformat(described, width=100, sort_dicts=False, compact=True)})\n"
