"""Deepwater with a mistake in it, and the test that must notice: what the harness would miss, it would miss for real.

Each mutant is one edit of one file, as somebody might make it in good faith, the test that kills it, and what that
test says then: a mistake that is noticed for another reason (a name that is not there) was not put to the test.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One wrong edit: `old` stands exactly once in deepwater/<file>.

    Attributes
    ----------
    killer : str
        Of one test: what to give to pytest.
    says : str
        A regular expression that fits what pytest prints when the killer fails of it.
    by_hand : bool
        Its killer takes long: only with MUTANTS=1 is it run.
    """

    name: str
    file: str
    old: str
    new: str
    killer: str
    says: str
    by_hand: bool = False


VISIBLE = "tests/test_writer.py::test_a_write_becomes_visible_by_one_store_and_is_whole_before_it"
STAGED = "tests/test_staging.py::test_staged_rows_are_seen_by_nobody_and_then_all_at_once"
FOUND = "tests/test_writer.py::test_what_a_store_shows_is_found_by_time_at_once"
LAPPED = "tests/test_ring.py::test_a_copy_that_is_overtaken_in_the_middle_keeps_its_true_part"
CLAIMED = "tests/test_ring.py::test_records_are_claimed_before_they_are_overwritten"
CUT = "tests/faults/test_power_cuts.py::test_a_feed_comes_back_as_a_prefix_with_all_that_was_flushed"
DURABLE = "tests/test_writer.py::test_records_are_on_the_device_before_the_count_says_so"
FLUSHED = "tests/test_writer.py::test_flush_raises_the_durable_count_of_every_chunk_and_nothing_else_does"

MUTANTS = [
    # --- one store makes a write visible, after its records
    Mutant("publish before the records are there", "writer.py",
           "        self._chunk.put(count, data)\n", "        self._publish(count + rows)\n        self._chunk.put(count, data)\n",
           f"{VISIBLE}[7-3]", "AssertionError: positions"),
    Mutant("publish a few records before they are there", "writer.py",
           "            self._buffer[at : at + len(raw)] = raw\n            self._stats.observe_few(raw, rows, count)\n            self._words[fmt.HEARTBEAT] = now\n            self._publish(stop)\n",
           "            self._publish(stop)\n            self._buffer[at : at + len(raw)] = raw\n            self._stats.observe_few(raw, rows, count)\n            self._words[fmt.HEARTBEAT] = now\n",
           f"{VISIBLE}[1-3]", "AssertionError: positions"),
    Mutant("publish one record before it is checked", "writer.py",
           "            at = self._offset + count * self._size\n            try:\n",
           "            at = self._offset + count * self._size\n            self._publish(count + 1)\n            try:\n",
           f"{VISIBLE}[1-3]", "AssertionError: positions"),
    Mutant("seal the first chunk of a write before the others are published", "writer.py",
           "            for (chunk, start, stop), sealed in zip(reversed(pieces), reversed(seals), strict=True):\n",
           "            old.publish(old.capacity, sealed=True)\n            for (chunk, start, stop), sealed in zip(reversed(pieces), reversed(seals), strict=True):\n",
           f"{VISIBLE}[33-3]", "AssertionError: a write is not whole"),
    Mutant("staged records are published one by one", "feed_writer.py",
           '                return self._append_held(np.frombuffer(b"".join(staged), self.layout.dtype), len(staged), create_index)\n',
           "                for record in staged:\n                    self._append_held(np.frombuffer(record, self.layout.dtype), 1, create_index)\n                return position\n",
           f"{STAGED}[7-3-feed]", "AssertionError: a write is not whole"),
    Mutant("an interrupted commit stays staged although it is there", "feed_writer.py",
           "                del self._staged[:rows]\n", "                pass\n",
           "tests/test_staging.py::test_an_interrupt_neither_loses_nor_doubles_a_commit[3-after the store-feed]", r"> +assert writer\.staged == "),
    Mutant("bounds of a clock are stored after the commit", "writer.py",
           "            self._stats.observe_few(raw, rows, count)\n            self._words[fmt.HEARTBEAT] = now\n            self._publish(stop)\n",
           "            self._words[fmt.HEARTBEAT] = now\n            self._publish(stop)\n            self._stats.observe_few(raw, rows, count)\n",
           f"{FOUND}[few]", r"> +assert model\.content\(found\) == "),
    Mutant("bounds of a clock over packed records are stored after the commit", "writer.py",
           "        self._stats.observe(records, data, count)\n        if snapshot:\n            self._mark_snapshot(self._marks, records, self._base + count, mark_count)\n        self._words[fmt.HEARTBEAT] = now\n        self._publish(count + rows)\n",
           "        if snapshot:\n            self._mark_snapshot(self._marks, records, self._base + count, mark_count)\n        self._words[fmt.HEARTBEAT] = now\n        self._publish(count + rows)\n        self._stats.observe(records, data, count)\n",
           f"{FOUND}[bytes]", r"> +assert model\.content\(found\) == "),
    Mutant("marks of a write that failed are not taken back", "recover.py",
           "    marks.drop_beyond(chunk.base + chunk.state()[0])\n", "",
           "tests/test_marks.py::test_a_mark_of_a_failed_write_is_taken_back", r'> +assert len\(dw\["F"\]\.marks\(\)\) == 0'),
    # --- rings
    Mutant("no check after the copy from a ring", "ring.py",
           "        oldest = self.oldest()  #", "        oldest = first  #", LAPPED, r"> +assert positions\(\[next\(follower\)\]\) == "),
    Mutant("no claim before records of a ring are overwritten", "segment.py",
           "        self.words[fmt.CLAIM] = word\n", "        pass\n", LAPPED, r"> +assert positions\(\[next\(follower\)\]\) == "),
    Mutant("claim many records of a ring once they are overwritten", "ring_writer.py",
           "        self._ring.segment.claim(self._claimed, len(data))\n        self._ring.put(count, data)\n",
           "        self._ring.put(count, data)\n        self._ring.segment.claim(self._claimed, len(data))\n",
           f"{CLAIMED}[many-50]", r"> +assert held == "),
    Mutant("claim records of a ring once they are overwritten", "ring_writer.py",
           "                self._ring.segment.claim(stop)\n            self._ring.put(count, raw)\n",
           "                self._ring.put(count, raw)\n                self._ring.segment.claim(stop)\n",
           f"{CLAIMED}[few-3]", r"> +assert held == "),
    Mutant("forget a dead writer's claim", "ring_writer.py",
           "        claimed = max(self._count, self._words[fmt.CLAIM])", "        claimed = self._count",
           "tests/test_ring.py::test_a_successor_keeps_the_claim_of_a_writer_that_died_inside_a_write[keeps]", r"> +assert ring\.segment\.words\[fmt\.CLAIM\] == 140"),
    # --- power cuts
    Mutant("no fsync before the rename", "files.py",
           "            if durable:\n                sync(fd)\n", "", f"{CUT}[0]", r"story \d+, state \d+"),
    Mutant("no fsync of the directory after the rename", "files.py",
           "            if durable:\n                self.sync()\n", "", f"{CUT}[0]", r"story \d+, state \d+.* chunk \d+ is missing"),
    Mutant("the directory is not synced before durable is stored", "keeper.py",
           "                self._final(self._directory.sync)\n", "", DURABLE, r'> +assert \("F", 0\) in synced'),
    Mutant("trust the count after an unclean boot", "chunk.py",
           "        return 0 != words[fmt.DURABLE] == words[fmt.COMMIT] or self.is_of_now\n", "        return True\n",
           "tests/test_durability.py::test_after_a_reboot_only_what_is_proven_counts", r"> +assert len\(held\(dw\)\) == 33"),
    Mutant("say durable before the sync", "keeper.py",
           "                self._final(lambda: sync(segment.fd))\n                self._final(self._directory.sync)\n                segment.words[fmt.DURABLE] = word\n",
           "                segment.words[fmt.DURABLE] = word\n                self._final(lambda: sync(segment.fd))\n                self._final(self._directory.sync)\n",
           DURABLE, r"> +assert chunks == "),
    Mutant("sync the newest chunk only", "keeper.py",
           "                for sealed, _ in list(self._sealed):\n", "                for sealed, _ in []:\n", FLUSHED, r"> +assert durable_words\(dw\) == "),
    Mutant("try a failed sync again", "keeper.py",
           "        if self._failure is not None:\n            raise SyncFailedError(self._failure)\n", "        pass\n",
           "tests/test_durability.py::test_a_flush_before_the_writer_was_told_of_a_failed_sync_is_refused", "DID NOT RAISE DurabilityError"),
    Mutant("a writer writes on after a failed sync", "writer.py",
           "            self._sync_failed(error)\n            assert self._problem is not None\n            raise self._problem from error\n",
           "            raise DurabilityError(f\"read-only: {error}\", errno=error.errno, feed=self.feed) from error\n",
           "tests/test_durability.py::test_a_sync_that_failed_is_final[0]", "DID NOT RAISE DurabilityError"),
    Mutant("marks are not synced with their records", "keeper.py",
           "            self._sync_file(index_name(chunk_id))", "            pass",
           "tests/test_durability.py::test_always_means_that_what_returned_survives_a_power_cut", r"> +assert len\(reader\.marks\(\)\) == marks"),
    Mutant("believe blocks without looking at their checksums", "checksums.py",
           "            if not whole or crc32(data[index * block * size : stop * size]) != sums[index]:\n",
           "            if not whole:\n", f"{CUT}[0]", r"assert held\.tobytes\(\) == "),
    Mutant("believe what a tail slot covers without looking", "checksums.py",
           "                if start <= at and crc32(data[start * size : slot[0] * size]) == slot[1]:\n", "                if start <= at:\n",
           f"{CUT}[1]", r"assert held\.tobytes\(\) == "),
    Mutant("a keeper goes on with checksums that an interrupt left half done", "keeper.py",
           "            except BaseException:\n                self._drop()\n                raise\n",
           "            except Exception:\n                self._drop()\n                raise\n",
           "tests/test_durability.py::test_a_keeper_interrupted_anywhere_goes_on_with_the_right_checksums[no file yet]", "it goes on and on"),
    Mutant("recovery removes chunks that are on the device", "chunk.py",
           "    if durable:\n        path = directory.name_of(chunk_name(chunk_id))", "    if False:\n        path = directory.name_of(chunk_name(chunk_id))",
           "tests/test_durability.py::test_damage_is_not_taken_for_a_power_cut", "DID NOT RAISE CorruptFileError"),
    # --- files are not believed
    Mutant("a count from the disk is a length", "chunk.py",
           "        return min(word & fmt.COUNT_MASK, self.capacity), word >= fmt.SEALED\n",
           "        return word & fmt.COUNT_MASK, word >= fmt.SEALED\n",
           "tests/test_first_version.py::test_row_9_numbers_from_disk_are_clamped", r"> +assert len\(array\) == rows"),
    Mutant("positions need not continue from chunk to chunk", "chain.py",
           "        if chunk is not None and chunk.base != base:\n", "        if False:\n",
           "tests/test_reader.py::test_a_gap_or_an_overlap_of_positions_between_chunks_is_damage", r"34 of 35 records, or others"),
    Mutant("rows of a registry are taken as they are", "feed_registry.py",
           '    good = rows["check"] == row_checks(rows)\n', "    good = np.ones(len(rows), bool)\n",
           "tests/test_reader.py::test_a_flipped_bit_in_a_row_of_the_registry_changes_no_answer", r"> +assert not Probe\("),
    # --- one writer
    Mutant("a forked child keeps the lock", "locks.py",
           "    after_fork = release\n", "    def after_fork(self) -> None:\n        pass\n",
           "tests/test_first_version.py::test_row_12_a_forked_child_does_not_keep_the_lock_of_a_dead_parent", "FeedLockedError: feed 'F' has a writer already"),
    Mutant("whoever asks gets the lock", "locks.py",
           "            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "            pass\n",
           "tests/test_writer.py::test_a_second_writer_in_the_same_process_is_refused_too", "DID NOT RAISE FeedLockedError"),
    Mutant("a writer does not notice that its directory was moved", "feed_writer.py",
           "        if not self._directory.is_in_place:\n", "        if False:\n",
           "tests/faults/test_places.py::test_a_feed_moved_away_under_its_writer", "DID NOT RAISE FeedNotFoundError"),
    Mutant("whatever has the path of a feed's directory is taken for it", "files.py",
           "        return (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino)\n", "        return True\n",
           "tests/faults/test_places.py::test_a_feed_moved_away_under_its_writer", "DID NOT RAISE FeedNotFoundError"),
    # --- retention
    Mutant("retention removes files before it says so", "retain.py",
           "    if go:\n        _sync(directory, chunk_name(oldest.chunk_id))\n        write_oldest(directory, chain.ids, oldest)\n    if oldest != ALL:\n        _tell_readers(chain, oldest)\n    for name in _files_before(directory, oldest.chunk_id):\n        directory.remove(name)\n",
           "    for name in _files_before(directory, oldest.chunk_id):\n        directory.remove(name)\n    if go:\n        _sync(directory, chunk_name(oldest.chunk_id))\n        write_oldest(directory, chain.ids, oldest)\n    if oldest != ALL:\n        _tell_readers(chain, oldest)\n",
           "tests/test_retain.py::test_a_prune_killed_before_each_of_its_steps[kept]", r"prune_dies.* in judge\n"),
    Mutant("retention removes the newest records because the active chunk is empty", "retain.py",
           "    newest = next((index for index in reversed(range(len(chain))) if chain.count(index)), 0)\n", "    newest = len(chain) - 1\n",
           "tests/test_retain.py::test_the_newest_chunk_with_records_is_never_removed[True-limit0]", r'> +assert dw\.prune\("F", \*\*limit\)\.chunks == 0'),
    Mutant("retention forgets to tell open readers", "retain.py",
           "                segment.words[fmt.OLDEST] = oldest.chunk_id\n", "                pass\n",
           "tests/test_retain.py::test_an_open_reader_notices_by_a_word_and_asks_the_system_nothing_else", r"> +assert reader\.first == 40"),
    Mutant("a follower takes positions for rows of a chunk", "chain.py",
           "                return self.records(index)[start - base : stop - base], stop, start - position\n",
           "                return self.records(index)[start:stop], stop, start - position\n",
           "tests/test_follow.py::test_a_batch_has_at_most_the_records_asked_for_and_is_never_empty[3]", r"> +assert positions\(got\) == "),
    Mutant("a follower is not told what retention let go", "chain.py",
           "                return self.records(index)[start - base : stop - base], stop, start - position\n",
           "                return self.records(index)[start - base : stop - base], stop, 0\n",
           "tests/test_retain.py::test_an_overtaken_follower_is_told_how_many_it_lost[numpy]", r"> +assert seen\[raising\] == "),
    # --- by hand: what is killed above in a second, by the tests that kill and race
    Mutant("seal the first chunk of a write first, and be killed", "writer.py",
           "            for (chunk, start, stop), sealed in zip(reversed(pieces), reversed(seals), strict=True):\n",
           "            old.publish(old.capacity, sealed=True)\n            for (chunk, start, stop), sealed in zip(reversed(pieces), reversed(seals), strict=True):\n",
           "tests/test_crash.py::test_a_writer_killed_before_each_step_of_an_operation[long-room for some]", r"dies_at_each_step.* in judge\n", by_hand=True),
    Mutant("no claim before records of a ring are overwritten, in a race", "segment.py",
           "        self.words[fmt.CLAIM] = word\n", "        pass\n",
           "tests/test_ring_races.py::test_fast_and_slow_readers_accept_nothing_wrong_and_know_what_they_lost[1024]", r'assert sum\(own\["wrong"\]', by_hand=True),
]  # fmt: skip
