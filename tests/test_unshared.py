"""Between processes a platform goes by its path; what stands on mappings and locks says what to do instead."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepwater import Platform
from deepwater.playback import merge

SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": [{"name": "ts_us", "type": "uint64"}]}


def total(dw: Platform, name: str) -> int:
    with dw, dw[name] as reader:
        return int(reader.read()["ts_us"].sum())


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_a_platform_is_opened_anew_in_another_process(tmp_store: Path, start: str) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("F") as writer:
            writer.write_batch({"ts_us": np.arange(100, dtype=np.uint64)})
            with multiprocessing.get_context(start).Pool(1) as pool:
                assert pool.apply(total, (dw, "F")) == 4950
        again = pickle.loads(pickle.dumps(dw))
        assert again is not dw and again.base_path == dw.base_path
        again.close()
        assert len(dw["F"]) == 100


@pytest.mark.parametrize("persist", [True, False])
def test_what_belongs_to_a_process_says_so(tmp_store: Path, persist: bool) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "persist": persist, "chunk_size_bytes": 4096})
        with dw.create_writer("F") as writer, dw["F"] as reader, reader.follow() as follower:
            writer.write_values(1)
            held: list[tuple[Any, str]] = [
                (writer, "a feed has one writer"), (reader, r"Platform\(base_path\)\[name\]"),
                (reader.read(), r"window\.to_numpy\(\)"), (follower, "hand over its position"),
                (merge([reader]), r"merge\(\)"),
            ]  # fmt: skip
            for one, instead in held:
                for act in (pickle.dumps, copy.copy, copy.deepcopy):
                    with pytest.raises(TypeError, match=f"a {type(one).__name__} cannot be pickled.*{instead}"):
                        act(one)
            assert pickle.loads(pickle.dumps(reader.read().to_numpy()))["ts_us"].tolist() == [1]
        dw.delete_feed("F")
