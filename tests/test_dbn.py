"""DBN files: each record equal to a naive reading with `struct`, and nothing but an error for what is no such file."""

from __future__ import annotations

import math
import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deepwater.dbn import DbnSource
from deepwater.errors import RecordError

NO_PRICE, NO_TIME = 2**63 - 1, 2**64 - 1
SYMBOL = {1: 22, 2: 71, 3: 71}


def metadata(version: int = 2, schema: int = 4, symbols: tuple[bytes, ...] = (b"ESH1",), ts_out: int = 0) -> bytes:
    count = struct.pack("<Q", NO_TIME) if version == 1 else b""
    flags = struct.pack("<BBB", 1, 0, ts_out) + (struct.pack("<H", SYMBOL[version]) if version > 1 else b"")
    fixed = b"GLBX.MDP3".ljust(16, b"\0") + struct.pack("<HQQQ", schema, 1, 2, 0) + count + flags
    lists = struct.pack("<I", len(symbols)) + b"".join(s.ljust(SYMBOL[version], b"\0") for s in symbols) + bytes(12)
    data = fixed.ljust(100, b"\0") + struct.pack("<I", 0) + lists
    return b"DBN" + bytes([version]) + struct.pack("<I", len(data)) + data


def trade(number: int, price: int = 4_810_250_000_000, ts: int = 1_700_000_000_000_000_123, **more: Any) -> bytes:
    head = struct.pack("<BBHIQ", 12, more.get("rtype", 0), 1, 42, more.get("event", ts))
    return head + struct.pack("<qIccBBQiI", price, number, b"T", b"A", 0, 0, ts, -5, number)


def source(path: Path, data: bytes) -> DbnSource:
    path.write_bytes(data)
    return DbnSource(str(path))


def columns(found: DbnSource) -> dict[str, np.ndarray]:
    parts = [found.values(batch, None, {name: name for name in found.names}) for batch in found.batches()]  # type: ignore[arg-type]
    return {name: np.concatenate([part[name] for part in parts]) for name in found.names} if parts else {}


# --- the recorded files, by another way ------------------------------------------------------------------

SHAPES = {  # rtype -> how struct sees what follows the header, and the names
    0x00: ("<qIccBBQiI", "price size action side flags depth ts_recv ts_in_delta sequence"),
    0xA0: ("<QqIBBccQiI", "order_id price size flags channel_id action side ts_recv ts_in_delta sequence"),
    0x01: ("<qIccBBQiIqqIIII", "price size action side flags depth ts_recv ts_in_delta sequence "
                                "bid_px ask_px bid_sz ask_sz bid_ct ask_ct"),
    0x0A: ("<qIccBBQiI" + "qqIIII" * 10, "price size action side flags depth ts_recv ts_in_delta sequence " + " ".join(
        f"bid_px/{k} ask_px/{k} bid_sz/{k} ask_sz/{k} bid_ct/{k} ask_ct/{k}" for k in range(10))),
    0xC3: ("<qIxcBxQ4xIqqIIII", "price size side flags ts_recv sequence bid_px ask_px bid_sz ask_sz bid_ct ask_ct"),
    0x21: ("<qqqqQ", "open high low close volume"),
}  # fmt: skip
PRICES = {"price", "open", "high", "low", "close", "bid_px", "ask_px"}
DATA = Path(__file__).parents[2] / "shared" / "data" / "dbn"
FILES = sorted(path.name for path in DATA.glob("*/*.zst") if "definition" not in path.name)


def naive(path: Path) -> list[dict[str, Any]]:
    with pa.input_stream(str(path), compression="zstd") as stream:
        data = stream.read()
    at, out = 8 + int.from_bytes(data[4:8], "little"), []
    while at < len(data):
        length, rtype, publisher, instrument, event = struct.unpack_from("<BBHIQ", data, at)
        shape, names = SHAPES[rtype]
        values = struct.unpack_from(shape, data, at + 16)
        assert struct.calcsize(shape) + 16 == length * 4
        record = dict(zip(names.split(), values, strict=True))
        out.append(record | {"publisher_id": publisher, "instrument_id": instrument, "ts_event": event})
        at += length * 4
    return out


def wanted(name: str, raw: Any) -> Any:
    if name in PRICES:
        return math.nan if raw == NO_PRICE else float(Fraction(raw, 10**9))
    if name in ("ts_event", "ts_recv"):
        return raw if raw == NO_TIME else raw // 1000
    return raw


@pytest.mark.parametrize("name", FILES or ["none"])
def test_every_record_is_what_struct_reads(name: str, shared_data: Path) -> None:
    (path,) = (shared_data / "dbn").glob(f"*/{name}")
    records = naive(path)[:20_000]
    found = DbnSource(str(path))
    got = columns(found)
    for column in found.names:
        if column in records[0]:
            values = [wanted(column, record[column]) for record in records]
        else:
            values = [[wanted(column, record[f"{column}/{k}"]) for k in range(10)] for record in records]
        assert np.array_equal(got[column][: len(records)], np.array(values, got[column].dtype),
                              equal_nan=column in PRICES), column  # fmt: skip
    cut = sum(any(us != NO_TIME and us % 1000 for key, us in record.items() if key in ("ts_event", "ts_recv"))
              for record in naive(path))  # fmt: skip
    said = [note for note in found.notes() if "between two microseconds" in note]
    assert said == ([f"{cut:,} records have times between two microseconds: cut to the one before"] if cut else [])
    if path.parent.name == "versions":
        assert found.symbols == ["ESH1"] and found.dataset == "GLBX.MDP3" and f".v{found.version}." in name


# --- made by hand ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 3])
def test_values_become_what_the_docstring_says(version: int, tmp_path: Path) -> None:
    prices = [NO_PRICE, 0, -1, 1, 4_810_250_000_000, 2**53 + 1, 2**62 + 12345, -(2**63) + 1]
    data = b"".join(trade(k, price, ts=1_700_000_000_000_000_000 + k) for k, price in enumerate(prices))
    data += trade(8, ts=NO_TIME, event=0)
    found = source(tmp_path / "a.dbn", metadata(version) + data)
    got = columns(found)
    assert got["price"][:8].tolist()[1:] == [float(Fraction(price, 10**9)) for price in prices[1:]]
    assert math.isnan(got["price"][0])
    assert got["ts_recv"].tolist() == [*[1_700_000_000_000_000] * 8, NO_TIME] and got["ts_event"][8] == 0
    assert got["ts_in_delta"].tolist() == [-5] * 9 and found.symbols == ["ESH1"]
    assert found.notes()[1:] == ["7 records have times between two microseconds: cut to the one before"]


def test_records_of_other_kinds_are_left_out_and_counted(tmp_path: Path) -> None:
    system = struct.pack("<BBHIQ", 5, 0x17, 0, 0, 0) + b"beat"
    data = metadata() + trade(0) + system + trade(1) + system * 2 + trade(2)
    for end, others in ((b"", 3), (system, 4), (system * 3, 6)):
        found = source(tmp_path / "a.dbn", data + end)
        assert columns(found)["sequence"].tolist() == [0, 1, 2]
        assert f"{others} records of other kinds" in found.notes()[-1]


def test_what_the_gateway_stamped_is_a_clock_too(tmp_path: Path) -> None:
    record = bytearray(trade(0) + struct.pack("<Q", 5_000))
    record[0] = len(record) // 4
    found = source(tmp_path / "a.dbn", metadata(ts_out=1) + bytes(record))
    assert columns(found)["ts_out"].tolist() == [5]


def test_it_is_read_in_pieces_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepwater import dbn

    system = struct.pack("<BBHIQ", 5, 0x17, 0, 0, 0) + b"beat"
    data = metadata() + b"".join(trade(k) + system * (k % 3 == 0) for k in range(50))
    found = source(tmp_path / "a.dbn", data)
    for size in (1, 48 * 8, 49 * 8, 1000, 1 << 20):
        monkeypatch.setattr(dbn, "BATCH_BYTES", size)
        assert columns(found)["sequence"].tolist() == list(range(50))


def test_symbols_without_number_take_no_memory(tmp_path: Path) -> None:
    """A header that promises 62 million symbols of a byte each, and holds them."""
    symbols, fixed = 62_000_000, bytearray(metadata()[8:108])
    fixed[45:47] = struct.pack("<H", 1)
    data = bytes(fixed) + struct.pack("<II", 0, symbols) + b"A" * symbols + bytes(12)
    whole = pa.compress(b"DBN\2" + struct.pack("<I", len(data)) + data + trade(0), "zstd", asbytes=True)
    tracemalloc.start()
    found = source(tmp_path / "a.dbn.zst", whole)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(data) and (found.symbol_count, len(found.symbols)) == (symbols, 1000)
    assert found.notes() == ["DBN version 2, GLBX.MDP3 trades, 62,000,000 symbols"]


GOOD = metadata() + trade(0) + trade(1)
BAD = {
    "nothing": (b"", "not a DBN file"), "another file": (b"PAR1" + bytes(100), "not a DBN file"),
    "version 0": (b"DBN\0" + GOOD[4:], "version 0"), "version 4": (b"DBN\4" + GOOD[4:], "version 4"),
    "metadata cut": (GOOD[:50], "cut off in its metadata"), "no metadata": (GOOD[:8], "cut off in its metadata"),
    "huge metadata": (GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:], "metadata of 4294967295 bytes"),
    "no length": (GOOD[:4] + bytes(4) + GOOD[8:], "metadata of 0 bytes"),
    "definitions": (metadata(schema=9) + trade(0), "holds definition; read are mbo"),
    "several": (metadata(schema=0xFFFF) + trade(0), "several schemas"),
    "unknown schema": (metadata(schema=99) + trade(0), "schema 99"),
    "too many symbols": (GOOD[:112] + b"\xff\xff\xff\xff" + GOOD[116:], "symbols of 71 bytes do not fit"),
    "records of another schema": (metadata(schema=0) + trade(0), "record 1 is of trades, the metadata says mbo"),
    "one of another schema": (GOOD + trade(2, rtype=0x18), "record 3 is of statistics, the metadata says trades"),
    "nothing that is known": (metadata() + trade(0, rtype=0x77), "holds no record of trades, but of a kind not known"),
    "a record of nothing": (GOOD + bytes(48), "record 3 says that it has 0 bytes"),
    "a short record": (GOOD + b"\x03" + bytes(47), "record 3 says that it has 12 bytes"),
    "another length": (GOOD + b"\x0b" + trade(2)[1:44], "record 3 has 44 bytes, one of trades 48"),
    "cut": (GOOD + trade(2)[:-1], "cut off in record 3: 47 bytes of it are there"),
    "a byte too many": (GOOD + b"\x0c", "cut off in record 3: 1 byte of it is there"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_such_file_is_an_error_that_says_so(what: str, packed: bool, tmp_path: Path) -> None:
    data, why = BAD[what]
    path = tmp_path / "bad.dbn"
    with pytest.raises(RecordError) as caught:
        columns(source(path, pa.compress(data, "zstd", asbytes=True) if packed else data))
    assert why in str(caught.value) and "bad.dbn" in str(caught.value)


def test_a_name_need_not_be_utf_8(tmp_path: Path) -> None:
    found = source(tmp_path / "\udcff.dbn.zst", pa.compress(GOOD, "zstd", asbytes=True))
    assert columns(found)["sequence"].tolist() == [0, 1]


def test_a_cut_or_damaged_zstd_is_an_error(tmp_path: Path) -> None:
    packed = pa.compress(metadata() + b"".join(map(trade, range(500))), "zstd", asbytes=True)
    for data in (packed[: len(packed) // 2], packed[:30] + b"\xff" * 9 + packed[39:]):
        with pytest.raises(RecordError, match=r"bad.dbn.zst': "):
            columns(source(tmp_path / "bad.dbn.zst", data))


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_bytes_it_ends_and_says_why(seed: int, tmp_path: Path) -> None:
    """Some bytes of a good file changed at random: records, or an error of ours; never another one, or for ever."""
    rng = np.random.default_rng(seed)
    data = bytearray(GOOD + b"".join(map(trade, range(20))))
    for at in rng.integers(0, len(data), 3):
        data[at] = rng.integers(0, 256)
    try:
        got = columns(source(tmp_path / "a.dbn", bytes(data)))
    except RecordError:
        return
    assert len(got.get("sequence", ())) <= 22
