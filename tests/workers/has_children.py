"""Has children by a start method while it writes and reads. Arguments: base path, method, how many. Says children=N."""

import multiprocessing
import os
import pickle
import sys
from pathlib import Path

import model
from deepwater import ClosedError, FeedLockedError, Platform

writers: list = []
readers: list = []
VALUES = (*model.checked_records(0, 1, 1)[0].item()[:-1], [0, 0])


def outside(base: str, number: int, method: str) -> None:
    """A child that inherited nothing: it reads, and is refused a writer."""
    with Platform(base) as dw:
        for name in "FR":
            with dw[name] as reader:
                assert int(reader.end) == number + 1
                assert len(reader.latest(1)) == 1
            try:
                dw.create_writer(name)
            except FeedLockedError as error:
                assert error.pid == os.getppid() or method == "forkserver", error  # noqa: PT017
            else:
                raise AssertionError("two writers")


def inside(base: str, number: int, method: str) -> None:
    """A forked child: what it inherited is not its own."""
    for writer in writers:
        for use in (lambda w=writer: w.write_values(*VALUES), lambda w=writer: w.end, writer.flush):
            try:
                use()
            except ClosedError:
                continue
            raise AssertionError("a child wrote through its parent's writer")
    for reader in readers:
        assert int(reader.end) == number + 1
        assert len(reader.latest(1)) == 1
    outside(base, number, method)
    way = number % 4
    if way == 0:
        for writer in writers:
            writer.close()
    elif way == 1:
        writers.clear()
    elif way == 2:
        os._exit(0)


def main(base: str, method: str, wanted: int) -> None:
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["has_children"])
    with Platform(base) as dw:
        writers[:] = [dw.create_writer(name) for name in "FR"]
        readers[:] = [dw[name] for name in "FR"]
        for one in (*writers, *readers):
            try:
                pickle.dumps(one)
            except (TypeError, ValueError, pickle.PicklingError):
                continue
            raise AssertionError(f"{one!r} was sent to another process")
        for number in range(wanted):
            for writer in writers:
                assert writer.write_values(*VALUES) == number
            if method == "fork":
                child = context.Process(target=inside, args=(base, number, method))
            else:
                child = context.Process(target=outside, args=(base, number, method))
            child.start()
            child.join()
            assert child.exitcode == 0, child.exitcode
        for writer in writers:
            assert writer.write_values(*VALUES) == wanted
            writer.close()
        for reader in readers:
            assert int(reader.end) == wanted + 1
            reader.close()
        for name in "FR":
            dw.create_writer(name).close()
        print(f"children={wanted}")


if __name__ == "__main__":
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = here + os.pathsep + os.environ.get("PYTHONPATH", "")  # for the fork server
    import has_children  # so that children find what they are to do under its name

    has_children.main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
