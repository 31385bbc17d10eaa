"""Which files are merged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper.lakehouse.merging import (
    MAXIMUM_REWRITE_BYTES,
    MERGE_FILES,
    SMALL_FILE_BYTES,
    SmallFile,
    choose_merge,
)

files = st.lists(
    st.builds(SmallFile, st.uuids().map(str), st.sampled_from(["mon", "tue"]), st.integers(1, 4 * SMALL_FILE_BYTES)),
    max_size=80,
)


def small(count: int, partition: str = "mon", size: int = 1000) -> list[SmallFile]:
    return [SmallFile(f"{partition}-{number}", partition, size) for number in range(count)]


@given(files)
def test_a_merge_is_of_one_partition_small_and_fits_memory(present: list[SmallFile]) -> None:
    chosen = choose_merge(present)
    assert len({file.partition for file in chosen}) <= 1
    assert all(file.size_bytes < SMALL_FILE_BYTES for file in chosen)
    assert sum(file.size_bytes for file in chosen) <= MAXIMUM_REWRITE_BYTES
    assert set(chosen) <= set(present)


def test_few_files_are_left_alone() -> None:
    assert choose_merge(small(MERGE_FILES - 1)) == []


def test_the_day_with_most_small_files_comes_first() -> None:
    chosen = choose_merge([*small(30, "mon"), *small(50, "tue")])
    assert len(chosen) == 50
    assert {file.partition for file in chosen} == {"tue"}


def test_merging_again_and_again_comes_to_an_end() -> None:
    present = small(200)
    for _ in range(50):
        chosen = choose_merge(present)
        if not chosen:
            break
        merged = SmallFile("merged", "mon", sum(file.size_bytes for file in chosen))
        present = [file for file in present if file not in chosen] + [merged]
    assert len(present) < MERGE_FILES
