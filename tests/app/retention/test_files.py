"""Grouping of stored files, and detection of orphans."""

from uuid import UUID

import pytest

from app.retention.files import (
    DataKind,
    ReferencedKeys,
    StoreEntry,
    find_unreferenced_entries,
    group_by_key,
)
from app.storage.store import StoredFile

JOB = UUID("0197c5d2-7a3e-7000-8000-000000000001")
MODEL = f"jobs/{JOB}/a12"
CHECKPOINT = f"checkpoints/{JOB}/a3/step-400"
UPLOAD = f"uploads/{JOB}/{JOB}.csv"
UNFINISHED = f".unfinished/{'0' * 31}f"


def test_files_of_a_key_are_grouped() -> None:
    found = group_by_key(
        [
            StoredFile(f"{MODEL}/manifest.json", 1, 10.0),
            StoredFile(f"{MODEL}/merged/model.safetensors", 20, 5.0),
            StoredFile(f"{CHECKPOINT}/state.json", 300, 7.0),
            StoredFile(UPLOAD, 4000, 8.0),
            StoredFile(f"bases/{JOB}/a12/manifest.json", 50_000, 6.0),
            StoredFile(f"bases/{JOB}/manifest.json", 60_000, 6.0),
            StoredFile(f"{UNFINISHED}/merged/config.json", 5, 9.0),
            StoredFile(UNFINISHED[:-1] + "e", 6, 9.0),
        ]
    )
    assert sorted(found, key=lambda unit: unit.bytes) == [
        StoreEntry(DataKind.UNFINISHED, UNFINISHED, 5, 9.0),
        StoreEntry(DataKind.UNFINISHED, UNFINISHED[:-1] + "e", 6, 9.0),
        StoreEntry(DataKind.MODEL, MODEL, 21, 10.0, (JOB, 12)),
        StoreEntry(DataKind.CHECKPOINT, CHECKPOINT, 300, 7.0, (JOB, 3)),
        StoreEntry(DataKind.UPLOAD, UPLOAD, 4000, 8.0),
        StoreEntry(DataKind.BASE, f"bases/{JOB}/a12", 50_000, 6.0, (JOB, 12)),
        StoreEntry(DataKind.BASE, f"bases/{JOB}", 60_000, 6.0),  # of an import
    ]


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "jobs/readme", f"jobs/{JOB}/notes", f"jobs/{JOB}/a1", "jobs/x/a1/manifest.json",
     f"checkpoints/{JOB}/a1/best/x", "made/sentiment/manifest.json", ".git/config",
     f"backup/{MODEL}/manifest.json", f"{UPLOAD}/more", f"uploads/{JOB}/.DS_Store",
     f"uploads/{JOB}/Thumbs.db", f"uploads/{JOB}/.{JOB}.csv.Ab12Cd", f"uploads/{JOB}/{JOB}.CSV"],
)  # fmt: skip
def test_foreign_files_are_never_orphans(name: str) -> None:
    [unit] = group_by_key([StoredFile(name, 1, 0.0)])
    assert unit.kind is DataKind.OTHER
    nothing = ReferencedKeys(frozenset(), frozenset())
    assert find_unreferenced_entries([unit], nothing, now=1e9) == []


@pytest.mark.parametrize(
    ("key", "running", "is_one"),
    [
        ("", (), True),
        (MODEL, (), False),
        ("", ((JOB, 12),), False),
        ("", ((JOB, 13),), True),
        ("", ((UUID(int=1), 12),), True),
    ],
)
def test_orphan_has_no_row_and_no_running_attempt(
    key: str, running: tuple[tuple[UUID, int], ...], is_one: bool
) -> None:
    unit = StoreEntry(DataKind.MODEL, MODEL, 5, 899.0, (JOB, 12))
    referenced = ReferencedKeys(frozenset({key}), frozenset(running))
    found = find_unreferenced_entries([unit], referenced, now=1000.0)
    assert [(each.key, each.age_seconds) for each in found] == ([(MODEL, 101)] if is_one else [])
