"""Malicious archives are refused, each for its own reason."""

from pathlib import Path

import pytest

from lora_core.errors.artifact import InvalidImportedModel, UnsupportedTokenizer
from lora_core.model_imports.archive import unpack_archive
from lora_core.model_imports.check import check_imported_model
from lora_core.specs.method import LoraSpec
from tests.hostile_archives import ATTACKS, hostile_archive, hostile_archives, packed
from tests.lora_artifact import make_lora_artifact
from tests.slow import slow_but

# Their predictions are consistent; see tests/app/serving/test_imported.py.
TAKEN_IN = {name for name in ATTACKS if "under the digest of the base" in name}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("honest")
    return packed(make_lora_artifact(folder, LoraSpec(r=2), in_format_1=True))


def unpacked(archive: bytes, folder: Path) -> Path:
    (folder / "x.tar").write_bytes(archive)
    (folder / "into").mkdir()
    return unpack_archive(folder / "x.tar", folder / "into")


@pytest.mark.parametrize("attack", sorted(ATTACKS.keys() - TAKEN_IN))
def test_hostile_archive_is_refused(attack: str, honest: bytes, tmp_path: Path) -> None:
    directory = unpacked(hostile_archive(honest, attack), tmp_path)
    with pytest.raises((InvalidImportedModel, UnsupportedTokenizer)) as refused:
        check_imported_model(directory)
    assert len(str(refused.value)) < 700
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("claim", slow_but(sorted(TAKEN_IN), min(TAKEN_IN)))
def test_false_base_digest_is_not_detected(claim: str, honest: bytes, tmp_path: Path) -> None:
    assert (
        check_imported_model(unpacked(hostile_archive(honest, claim), tmp_path)).difference < 1e-4
    )


@pytest.mark.slow  # makes all archives; tests/app/registry/test_imports.py has a valid one
def test_valid_archive_is_imported_and_attacks_differ(honest: bytes, tmp_path: Path) -> None:
    checked = check_imported_model(unpacked(honest, tmp_path))
    assert checked.facts.metrics["validation"] == {"accuracy": 0.8, "macro_f1": 0.79}
    archives = hostile_archives(honest)
    assert archives.keys() == ATTACKS.keys()
    assert len({*archives.values(), honest}) == len(ATTACKS) + 1
