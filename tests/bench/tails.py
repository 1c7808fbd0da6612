"""How late a tail in another process is, and what waiting costs: ``python tests/bench/tails.py [--seconds 4] …``.

One writer process, one reader process, 64-byte records at a steady rate; latency is the reader's clock once it has
the record's stamp as a Python integer, minus the stamp that was taken just before the write. Both clocks are
CLOCK_MONOTONIC. The writer paces itself by spinning, so it never sleeps into a record. Beside Deepwater's three ways
to wait, on a ring and on a durable feed, stand in the same run, round by round: a bare spin on a word of a shared
mapping (no store at all: what CPython allows), the same with an eventfd and with a futex that wake the reader at each
record, a `multiprocessing.Pipe` and a `Queue`. CPU is the reader's and the writer's process time a record; the
writer's own pacing spins, so its CPU is measured around the write alone.

Then the idle cost: a follower of a feed nobody writes for some seconds, CPU as a share of a core.
Every record is counted: a contender that loses one fails. Medians over rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import json
import mmap
import multiprocessing
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from deepwater import Platform, futex

RECORD = struct.Struct("<QQQQQQQQ")
FIELDS = [{"name": name, "type": "uint64"} for name in ("ts_us", "stamp", "a", "b", "c", "d", "e", "f")]
now = time.monotonic_ns
Pair = tuple[Callable[[int], None], Callable[[], int]]
fork = multiprocessing.get_context("fork")


class Mapped:
    """A bare word and slots in an anonymous shared mapping, no store: the floor."""

    def __init__(self, directory: str, count: int) -> None:
        self.map = mmap.mmap(-1, 4096 + 64 * (count + 1))
        self.map[:] = bytes(len(self.map))
        self.word = memoryview(self.map).cast("Q")

    def writer(self) -> Callable[[int], None]:
        word, pack, target = self.word, RECORD.pack_into, self.map

        def send(k: int) -> None:
            pack(target, 4096 + 64 * k, k, now(), 0, 0, 0, 0, 0, 0)
            word[0] = k + 1
            self.wake()

        return send

    def wake(self) -> None:
        pass

    def pause(self, seen: int) -> None:
        pass

    def reader(self) -> Callable[[], int]:
        word, unpack, source = self.word, RECORD.unpack_from, self.map
        at = 0

        def receive() -> int:
            nonlocal at
            while word[0] <= at:
                self.pause(at)
            at += 1
            return int(unpack(source, 4096 + 64 * (at - 1))[1])

        return receive

    def close(self) -> None:
        self.word.release()
        self.map.close()


class MappedEventfd(Mapped):
    """The same; an eventfd (inherited: unrelated processes would have to hand it over) wakes the reader."""

    def __init__(self, directory: str, count: int) -> None:
        super().__init__(directory, count)
        self.fd = os.eventfd(0)

    def wake(self) -> None:
        os.eventfd_write(self.fd, 1)

    def pause(self, seen: int) -> None:
        os.eventfd_read(self.fd)

    def close(self) -> None:
        super().close()
        os.close(self.fd)


class MappedFutex(Mapped):
    """The same; a futex in the mapping wakes the reader at each record."""

    def __init__(self, directory: str, count: int) -> None:
        super().__init__(directory, count)
        self.futex = futex.Futex(self.map, 64)

    def wake(self) -> None:
        self.futex.wake()

    def pause(self, seen: int) -> None:
        value = self.futex.value
        if self.word[0] <= seen:
            self.futex.wait(value, 0.05)

    def close(self) -> None:
        self.futex.close()
        super().close()


class Pipe:
    """`multiprocessing.Pipe`, a tuple a record."""

    def __init__(self, directory: str, count: int) -> None:
        self.receiving, self.sending = fork.Pipe(duplex=False)

    def writer(self) -> Callable[[int], None]:
        send = self.sending.send
        return lambda k: send((k, now(), 0, 0, 0, 0, 0, 0))

    def reader(self) -> Callable[[], int]:
        receive = self.receiving.recv
        return lambda: int(receive()[1])

    def close(self) -> None:
        self.receiving.close()
        self.sending.close()


class Queue:
    """`multiprocessing.Queue`, a tuple a record."""

    def __init__(self, directory: str, count: int) -> None:
        self.queue: Any = fork.Queue()

    def writer(self) -> Callable[[int], None]:
        put = self.queue.put
        return lambda k: put((k, now(), 0, 0, 0, 0, 0, 0))

    def reader(self) -> Callable[[], int]:
        get = self.queue.get
        return lambda: int(get()[1])

    def close(self) -> None:
        self.queue.close()
        self.queue.join_thread()


class Feed:
    """A feed of Deepwater: `write_values` there, `follow` here."""

    def __init__(self, directory: str, count: int, persist: bool, wait: str) -> None:
        self.directory, self.wait = directory, wait
        with Platform(directory) as dw:
            dw.create_feed({"feed_name": "TAIL", "ts_col": "ts_us", "persist": persist, "fields": FIELDS,
                            "chunk_size_bytes": 16 << 20})  # fmt: skip

    def writer(self) -> Callable[[int], None]:
        self.dw = Platform(self.directory)
        write = self.dw.create_writer("TAIL").write_values
        return lambda k: write(k, now(), 0, 0, 0, 0, 0, 0) and None

    def reader(self) -> Callable[[], int]:
        follower = Platform(self.directory)["TAIL"].follow("earliest", wait=self.wait)  # type: ignore[arg-type]
        stamps: list[int] = []

        def receive() -> int:
            if not stamps:
                stamps.extend(next(follower)["stamp"][::-1].tolist())
            return stamps.pop()

        return receive

    def close(self) -> None:
        if hasattr(self, "dw"):
            self.dw.close()
        with Platform(self.directory) as dw:
            dw.delete_feed("TAIL")


class Iceoryx:
    """iceoryx2's publish-subscribe with its Python binding, polled: ``pip install iceoryx2``."""

    def __init__(self, directory: str, count: int) -> None:
        self.name = directory.replace("/", "-")

    def _service(self) -> Any:
        import iceoryx2

        iceoryx2.set_log_level_from_env_or(iceoryx2.LogLevel.Error)
        self.node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        service = self.node.service_builder(iceoryx2.ServiceName.new(self.name)).publish_subscribe(IceoryxRecord)
        return service.subscriber_max_buffer_size(1024).open_or_create()

    def writer(self) -> Callable[[int], None]:
        self.publisher = self._service().publisher_builder().create()
        loan = self.publisher.loan_uninit

        def send(k: int) -> None:
            loan().write_payload(IceoryxRecord(k, now())).send()

        return send

    def reader(self) -> Callable[[], int]:
        self.subscriber = self._service().subscriber_builder().buffer_size(1024).create()
        take = self.subscriber.receive

        def receive() -> int:
            while (sample := take()) is None:
                pass
            return int(sample.payload().contents.stamp)

        return receive

    def close(self) -> None:
        del self.publisher, self.node


class IceoryxRecord(ctypes.Structure):
    """The same 64 bytes."""

    _fields_ = [(field["name"], ctypes.c_uint64) for field in FIELDS]

    @staticmethod
    def type_name() -> str:
        """What iceoryx2 knows the type by."""
        return "IceoryxRecord"


CONTENDERS: dict[str, Callable[[str, int], Any]] = {
    "bare spin": Mapped,
    **({"iceoryx2, spin": Iceoryx} if importlib.util.find_spec("iceoryx2") else {}),
    "ring, spin": lambda d, n: Feed(d, n, False, "spin"),
    "durable, spin": lambda d, n: Feed(d, n, True, "spin"),
    "ring, auto": lambda d, n: Feed(d, n, False, "auto"),
    "durable, auto": lambda d, n: Feed(d, n, True, "auto"),
    "bare eventfd": MappedEventfd,
    "bare futex": MappedFutex,
    "ring, wake": lambda d, n: Feed(d, n, False, "wake"),
    "durable, wake": lambda d, n: Feed(d, n, True, "wake"),
    "mp.Pipe": Pipe,
    "mp.Queue": Queue,
}


def _reader(contender: Any, count: int, out: Any) -> None:
    receive = contender.reader()
    gc.collect()
    gc.freeze()
    late = []
    out.send("ready")
    receive()  # the first comes when it comes
    began = time.process_time_ns()
    for _ in range(count - 1):
        stamp = receive()
        late.append(now() - stamp)
    out.send((late, (time.process_time_ns() - began) / (count - 1)))


def measure(contender: Any, rate: float, seconds: float) -> dict[str, float]:
    """p50, p99, max in µs; CPU of reader and writer in µs a record; the reader's share of a core."""
    count = int(rate * seconds)
    here, there = fork.Pipe()
    process = fork.Process(target=_reader, args=(contender, count, there))
    process.start()
    assert here.recv() == "ready"
    send = contender.writer()
    time.sleep(0.2)
    gap, spent = int(1e9 / rate), 0
    due = now() + gap
    for k in range(count):
        while now() < due:
            os.sched_yield()  # lets other threads run: a Queue sends from one
        due = max(due + gap, now() - 10 * gap)
        began = time.thread_time_ns()
        send(k)
        spent += time.thread_time_ns() - began
    late, cpu = here.recv()
    process.join()
    assert len(late) == count - 1
    late.sort()
    return {
        "p50": late[len(late) // 2] / 1e3, "p99": late[len(late) * 99 // 100] / 1e3, "max": late[-1] / 1e3,
        "reader_cpu": cpu / 1e3, "reader_share": cpu * rate / 1e9, "writer_cpu": spent / count / 1e3,
    }  # fmt: skip


def _idle(directory: str, wait: str, seconds: float, out: Any) -> None:
    follower = Platform(directory)["TAIL"].follow("latest", wait=wait, timeout=seconds)  # type: ignore[arg-type]
    list(Platform(directory)["TAIL"].follow("earliest", wait=wait, timeout=0.2))  # type: ignore[arg-type]
    began, at = time.process_time(), time.monotonic()
    assert list(follower) == []
    out.send((time.process_time() - began) / (time.monotonic() - at))


def idle(directory: str, wait: str, seconds: float) -> float:
    """The share of a core that a follower of an idle feed takes."""
    feed = Feed(directory, 0, False, wait)
    send = feed.writer()
    send(0)
    here, there = fork.Pipe()
    process = fork.Process(target=_idle, args=(directory, wait, seconds, there))
    process.start()
    share = float(here.recv())
    process.join()
    feed.close()
    return share


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run it and print a table; returns the medians."""
    parser = argparse.ArgumentParser(description="latency and cost of tails")
    parser.add_argument("--rate", type=float, default=5000)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=5, help="seconds without a record (0: leave out)")
    parser.add_argument("--only", help="names, separated by ';'")
    args = parser.parse_args(argv)
    names = args.only.split(";") if args.only else list(CONTENDERS)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    count = int(args.rate * args.seconds)
    for _ in range(args.rounds):
        for name in names:
            with tempfile.TemporaryDirectory() as directory:
                contender = CONTENDERS[name](directory, count)
                found[name].append(measure(contender, args.rate, args.seconds))
                contender.close()
    medians = {name: {key: statistics.median(r[key] for r in rs) for key in rs[0]} for name, rs in found.items()}
    print(f"{args.rate:g} records/s, {args.seconds:g} s a round, {args.rounds} rounds; µs, medians of rounds")
    print(f"{'':16}{'p50':>9}{'p99':>9}{'max':>10}{'reader CPU':>12}{'of a core':>11}{'writer CPU':>12}")
    for name, m in medians.items():
        print(f"{name:16}{m['p50']:9.1f}{m['p99']:9.1f}{m['max']:10.0f}{m['reader_cpu']:12.1f}"
              f"{m['reader_share']:11.1%}{m['writer_cpu']:12.1f}")  # fmt: skip
    if args.idle:
        for wait in ("auto", "wake"):
            with tempfile.TemporaryDirectory() as directory:
                medians[f"idle {wait}"] = {"share": idle(directory, wait, args.idle)}
                print(f"idle follower, {wait}: {medians[f'idle {wait}']['share']:.3%} of a core")
    return medians


if __name__ == "__main__":
    print(json.dumps(main()))
