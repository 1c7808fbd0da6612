"""The extra `apps`: what happens without it, and the blocking runner of the exchange."""

from __future__ import annotations

import pytest

from processes import Worker, run_python

WITHOUT = """
    import sys
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == sys.argv[2]:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, Absent())
    from deepwater import DeepwaterError
    import importlib
    try:
        importlib.import_module(sys.argv[1])
    except DeepwaterError as error:
        assert isinstance(error, ImportError)
        print(error)
"""


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("deepwater.apps.coinbase", "msgspec"),
        ("deepwater.apps.recorder", "msgspec"),
        ("deepwater.apps.recorder", "websockets"),
        ("deepwater.apps.exchange", "websockets"),
        ("deepwater.apps.subscriptions", "msgspec"),
        ("deepwater.apps.dashboard.session", "msgspec"),
        ("deepwater.apps.dashboard.app", "textual"),
        ("deepwater.apps.dashboard.panels", "rich"),
    ],
)
def test_a_missing_package_is_one_line_with_the_way_out(module: str, package: str) -> None:
    said = run_python(WITHOUT, module, package).stdout
    assert said == f"package {package!r} is missing: the apps need it; install deepwater[apps]\n"


def test_the_recorder_loads_neither_pandas_nor_pyarrow() -> None:
    code = (
        "import sys, deepwater.apps.recorder, deepwater.apps.exchange; print({'pandas', 'pyarrow'} & set(sys.modules))"
    )
    assert run_python(code).stdout == "set()\n"


SERVE = """
    import sys
    from deepwater.apps.exchange import Synthetic, serve
    def ready(uri):
        print(uri, flush=True)
    serve(lambda: Synthetic(["BTC-USD"], rate=50, depth=20), port=0, duration=60, on_ready=ready)
"""

ASK = """
    import asyncio, sys
    from websockets.asyncio.client import connect
    async def main():
        async with connect(sys.argv[1], proxy=None) as socket:
            await socket.send('{"type":"subscribe","channel":"level2"}')
            print((await socket.recv())[:20])
    asyncio.run(main())
"""


def test_the_blocking_runner_says_where_it_listens_and_serves_other_processes() -> None:
    with Worker(SERVE) as server:
        uri = server.readline()
        assert run_python(ASK, uri).stdout == '{"channel":"l2_data"\n'


def test_the_blocking_runner_ends_when_its_time_is_over() -> None:
    code = "from deepwater.apps.exchange import *; serve(Synthetic, port=0, duration=0.05); print('over')"
    assert run_python(code).stdout == "over\n"
