"""Deepwater with a mistake in it, and the test that must notice: what the harness would miss, it would miss for real.

Each mutant is one edit of one file, as somebody might make it in good faith, and the test that kills it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One wrong edit: `old` stands exactly once in deepwater/<file>."""

    name: str
    file: str
    old: str
    new: str
    killer: str


MUTANTS = [
    Mutant("publish before the records are there", "writer.py",
           "        self._chunk.put(count, data)\n", "        self._publish(count + rows)\n        self._chunk.put(count, data)\n",
           "tests/test_crash.py::test_a_writer_killed_before_each_step_of_an_operation"),
    Mutant("seal the first chunk of a write before the others are published", "writer.py",
           "            for (chunk, start, stop), sealed in zip(reversed(pieces), reversed(seals), strict=True):\n",
           "            old.publish(old.capacity, sealed=True)\n"
           "            for (chunk, start, stop), sealed in zip(reversed(pieces), reversed(seals), strict=True):\n",
           "tests/test_crash.py::test_a_writer_killed_before_each_step_of_an_operation"),
    Mutant("no check after the copy from a ring", "ring.py",
           "        oldest = self.oldest()  #", "        oldest = first  #",
           "tests/test_ring.py::test_a_copy_that_is_overtaken_in_the_middle_keeps_its_true_part"),
    Mutant("no claim before records of a ring are overwritten", "segment.py",
           "        self.words[fmt.CLAIM] = word\n", "        pass\n",
           "tests/test_ring_races.py::test_fast_and_slow_readers_accept_nothing_wrong_and_know_what_they_lost"),
    Mutant("forget a dead writer's claim", "ring_writer.py",
           "        claimed = max(self._count, self._words[fmt.CLAIM])", "        claimed = self._count",
           "tests/test_ring.py -k died_inside_a_write"),
    Mutant("no fsync before the rename", "files.py",
           "            if durable:\n                sync(fd)\n", "",
           "tests/faults/test_power_cuts.py -k comes_back"),
    Mutant("trust the count after an unclean boot", "chunk.py",
           "        return 0 != words[fmt.DURABLE] == words[fmt.COMMIT] or self.is_of_now\n", "        return True\n",
           "tests/faults/test_power_cuts.py -k comes_back"),
    Mutant("say durable before the sync", "keeper.py",
           "            sync(segment.fd)\n            self._directory.sync()\n            segment.words[fmt.DURABLE] = word\n",
           "            segment.words[fmt.DURABLE] = word\n            sync(segment.fd)\n            self._directory.sync()\n",
           "tests/test_durability.py::test_a_sync_that_failed_is_final"),
    Mutant("sync the newest chunk only", "keeper.py",
           "            for chunk_id, _ in list(self._sealed):\n", "            for chunk_id, _ in []:\n",
           "tests/faults/test_power_cuts.py -k comes_back"),
    Mutant("try a failed sync again", "keeper.py",
           "        if self._failure is not None:\n            raise SyncFailedError(self._failure)\n", "        pass\n",
           "tests/test_durability.py::test_a_sync_that_failed_is_final"),
    Mutant("believe blocks without looking at their checksums", "checksums.py",
           "            if not whole or crc32(data[index * block * size : stop * size]) != sums[index]:\n",
           "            if not whole:\n",
           "tests/faults/test_power_cuts.py -k comes_back"),
    Mutant("marks are not synced with their records", "keeper.py",
           "            self._sync_file(index_name(chunk_id))", "            pass",
           "tests/test_durability.py::test_always_means_that_what_returned_survives_a_power_cut"),
    Mutant("a count from the disk is a length", "chunk.py",
           "        return min(word & fmt.COUNT_MASK, self.capacity), word >= fmt.SEALED\n",
           "        return word & fmt.COUNT_MASK, word >= fmt.SEALED\n",
           "tests/test_reader.py::test_counts_from_disk_are_never_trusted_as_lengths"),
    Mutant("positions need not continue from chunk to chunk", "chain.py",
           "        if chunk is not None and chunk.base != base:\n", "        if False:\n",
           "tests/test_reader.py::test_a_gap_or_an_overlap_of_positions_between_chunks_is_damage"),
    Mutant("rows of a registry are taken as they are", "feed_registry.py",
           '    good = rows["check"] == row_checks(rows)\n', "    good = np.ones(len(rows), bool)\n",
           "tests/test_reader.py::test_a_flipped_bit_in_a_row_of_the_registry_changes_no_answer"),
    Mutant("a forked child keeps the lock", "locks.py",
           "    after_fork = release\n", "    def after_fork(self) -> None:\n        pass\n",
           "tests/test_first_version.py -k row_12"),
    Mutant("whoever asks gets the lock", "locks.py",
           "            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "            pass\n",
           "tests/test_writer.py tests/test_first_version.py -k 'lock or row_12'"),
    Mutant("bounds of a clock are stored after the commit", "writer.py",
           "        self._stats.observe(records, data, count)\n        if snapshot:\n            self._mark_snapshot"
           "(self._marks, records, self._base + count, mark_count)\n        self._words[fmt.HEARTBEAT] = now\n"
           "        self._publish(count + rows)\n",
           "        if snapshot:\n            self._mark_snapshot(self._marks, records, self._base + count, mark_count)\n"
           "        self._words[fmt.HEARTBEAT] = now\n        self._publish(count + rows)\n"
           "        self._stats.observe(records, data, count)\n",
           "tests/test_crash.py::test_a_writer_killed_before_each_step_of_an_operation"),
]  # fmt: skip
