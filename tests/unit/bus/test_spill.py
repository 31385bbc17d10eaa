"""The disk queue: in order, bounded, through kill -9, torn tails and damage."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skyscraper.bus.spill import FILE_BYTES, Spill, SpillFailed, SpillFull

BOUND = 1 << 30


def drain(spill: Spill) -> list[bytes]:
    found = []
    while (record := spill.read()) is not None:
        found.append(record.payload)
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["append", "read", "acknowledge", "reopen"]), max_size=40))
def test_every_order_of_calls_gives_back_what_is_not_acknowledged_in_order(calls: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        spill = Spill(Path(name), max_bytes=BOUND)
        appended, acknowledged, read = 0, 0, 0
        for call in calls:
            if call == "append":
                appended = spill.append(str(appended + 1).encode() * 5)
            elif call == "read":
                record = spill.read()
                assert (record is None) == (read >= appended)
                if record is not None:
                    read += 1
                    assert record.payload == str(read).encode() * 5
            elif call == "acknowledge" and read > acknowledged:
                acknowledged += 1
                spill.acknowledge(acknowledged)
            elif call == "reopen":
                spill.close()
                spill = Spill(Path(name), max_bytes=BOUND)
                read = acknowledged
        assert drain(spill) == [str(number).encode() * 5 for number in range(read + 1, appended + 1)]
        spill.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400))
def test_a_torn_tail_loses_only_the_torn_record(cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        with Spill(Path(name), max_bytes=BOUND) as spill:
            for number in range(4):
                spill.append(bytes([number]) * 80)
        (file,) = Path(name).glob("*.spill")
        os.truncate(file, min(cut, file.stat().st_size))
        with Spill(Path(name), max_bytes=BOUND) as spill:
            assert drain(spill) == [bytes([number]) * 80 for number in range(min(cut // 100, 4))]
            ordinal = spill.append(b"new")
            assert ordinal == spill.last_ordinal
            assert drain(spill) == [b"new"]


def test_a_damaged_record_is_counted_and_later_files_are_still_read(tmp_path: Path) -> None:
    big = b"x" * (FILE_BYTES // 2 + 1)
    with Spill(tmp_path, max_bytes=BOUND) as spill:
        for _ in range(4):
            spill.append(big)
    first = min(tmp_path.glob("*.spill"))
    with first.open("r+b") as file:
        file.seek(100)
        file.write(b"y")
    with Spill(tmp_path, max_bytes=BOUND) as spill:
        assert spill.corrupt_bytes > 0
        assert len(drain(spill)) == 2


def test_files_are_deleted_only_when_all_of_them_is_acknowledged(tmp_path: Path) -> None:
    big = b"x" * (FILE_BYTES // 2 + 1)
    with Spill(tmp_path, max_bytes=BOUND) as spill:
        for _ in range(4):
            spill.append(big)
        spill.acknowledge(1)
        assert len(list(tmp_path.glob("*.spill"))) == 2
        spill.acknowledge(2)
        assert len(list(tmp_path.glob("*.spill"))) == 1
        spill.acknowledge(4)
        assert not list(tmp_path.glob("*.spill"))
        assert spill.is_empty
        assert spill.size_bytes == 0


def test_the_bound_is_kept_and_room_comes_back(tmp_path: Path) -> None:
    with Spill(tmp_path, max_bytes=1000) as spill:
        spill.append(b"x" * 600)
        with pytest.raises(SpillFull, match="spill.max_bytes_per_stream"):
            spill.append(b"x" * 600)
        spill.acknowledge(1)
        spill.append(b"x" * 600)
        assert sum(file.stat().st_size for file in tmp_path.glob("*.spill")) <= 1000


def test_a_disk_that_fills_up_leaves_whole_records(tmp_path: Path) -> None:
    with Spill(tmp_path, max_bytes=BOUND) as spill:
        spill.append(b"a" * 1000)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        # A file size limit makes write() fail half-way, as a full disk does.
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
        try:
            with pytest.raises(SpillFailed, match="cannot write"):
                spill.append(b"b" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        spill.append(b"c" * 1000)
        assert drain(spill) == [b"a" * 1000, b"c" * 1000]


def test_kill_9_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from skyscraper.bus.spill import Spill\n"
        f"spill = Spill(Path({str(tmp_path)!r}), max_bytes=1 << 30)\n"
        "while True: print(spill.append(b'z' * 5000), flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = 0
        while said < 200:
            said = int(process.stdout.readline())
        process.kill()
        # What it said between our last look and its end; the kill may have been quicker.
        said = int([str(said).encode(), *process.stdout.read().split()][-1])
    with Spill(tmp_path, max_bytes=BOUND) as spill:
        assert len(drain(spill)) >= said


def test_a_second_publisher_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with Spill(tmp_path, max_bytes=BOUND), pytest.raises(SpillFailed, match="in use by another publisher"):
        Spill(tmp_path, max_bytes=BOUND)
