"""Imports the module of each line that it is sent in a process of its own, which has NumPy and nothing of Deepwater.

By fork: NumPy takes most of the time of a fresh interpreter. Answers with JSON: what is loaded then, or why it failed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback

import numpy as np  # noqa: F401  # all of Deepwater that is slow to import needs it

assert not any(name.partition(".")[0] == "deepwater" for name in sys.modules)

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        try:
            importlib.import_module(line.strip())
            print(json.dumps({"loaded": sorted({name.partition(".")[0] for name in sys.modules})}), flush=True)
        except BaseException:  # noqa: BLE001  # whatever it is: it is told
            print(json.dumps({"failed": traceback.format_exc()}), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
