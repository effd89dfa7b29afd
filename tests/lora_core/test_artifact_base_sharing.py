"""The base of an artifact is the same for all runs, and can be kept apart."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_core import artifact_base_sharing, manifest
from lora_core.artifact import load_merged_model
from lora_core.artifact_base_sharing import BASE_DIGEST, BASE_FILES
from lora_core.encoders.load import weights_sha256
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.export import RemergedWeightsMismatch
from lora_core.export.hugging_face import export_merged
from lora_core.inference.engines import EngineCache
from lora_core.inference.predictor import Predictor
from lora_core.saved_predictions import check_golden_predictions, load_golden_predictions
from lora_core.specs.method import LoraSpec, LoraVariant
from lora_core.specs.train import TrainSpec
from lora_core.training.encoder import train_encoder
from tests.hostile_archives import reseal
from tests.lora_artifact import make_lora_artifact
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but
from tests.tiny_artifact import make_artifact
from tests.tiny_base import FAMILIES, make_base, make_reviews


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two artifacts on the same base."""
    base = make_base(tmp_path / "base")
    return [
        make_lora_artifact(tmp_path / str(seed), LoraSpec(r=2 + seed), base=base, seed=seed)
        for seed in range(2)
    ]


@pytest.mark.parametrize("pooling", slow_but(["cls", "mean"], "cls"))
@pytest.mark.parametrize(
    "family",
    [name if name == "bert" else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_runs_on_one_base_write_the_same_bytes(family: str, pooling: str, tmp_path: Path) -> None:
    """Whatever their method, labels, dropout and maximum length."""
    base, texts = make_base(tmp_path / "base", family), make_reviews(tmp_path / "texts.csv")
    named = tmp_path / "named.csv"
    named.write_text(texts.read_text().replace(",good", ",praise"))
    runs: list[dict[str, Any]] = [
        {"method": {"type": "lora", "r": 2}, "data": {"source": str(texts)}},
        {"method": {"type": "lora", "variant": "dora", "r": 3}, "data": {"source": str(named)},
         "optim": {"epochs": 1, "encoder_dropout": 0.2, "head_dropout": 0.3}},
        {"method": {"type": "probe"}, "data": {"source": str(texts), "max_length": 32}},
        {"method": {"type": "baseline", "blocks": 0}, "data": {"source": str(texts)}},
    ]  # fmt: skip
    written = []
    for number, run in enumerate(runs):
        common = {"base": str(base), "pooling": pooling, "result": {"cross_validation": False}}
        spec = TrainSpec.model_validate({"optim": {"epochs": 1}, **common, **run})
        out, observer = tmp_path / str(number), RecordingObserver()
        train_encoder(spec, out_dir=out, observer=observer, stop=observer)
        assert not (out / "merged").exists()
        written.append(files(out / "base"))
        assert (
            weights_sha256(load_merged_model(out).state_dict())
            == manifest.read(out)["merged_sha256"]
        )
    assert written[0].keys() == set(BASE_FILES)
    assert all(each == written[0] for each in written)


def test_split_base_has_one_digest_and_is_restored(pair: list[Path], tmp_path: Path) -> None:
    complete = [files(each) for each in pair]
    digests = {artifact_base_sharing.base_digest(manifest.read(each)) for each in pair}
    bases = [artifact_base_sharing.split_off_base(each) for each in pair]
    for number, (directory, base) in enumerate(zip(pair, bases, strict=True)):
        assert base is not None
        assert files(directory).keys() | files(base).keys() == {
            name.removeprefix("base/") for name in complete[number]
        }
        assert {manifest.file_sha256(base / manifest.MANIFEST_FILE)} == digests
        assert manifest.verify(directory)[BASE_DIGEST] in digests
        assert manifest.verify(base)["files"].keys() == set(BASE_FILES)
        artifact_base_sharing.assemble_complete_artifact(
            directory, base, tmp_path / f"restored-{number}"
        )
        restored = files(tmp_path / f"restored-{number}")
        contents = [json.loads(each.pop("manifest.json")) for each in (restored, complete[number])]
        assert contents[0] == contents[1]
        assert restored == complete[number]


def test_restored_files_are_links_where_possible(pair: list[Path], tmp_path: Path) -> None:
    base = artifact_base_sharing.split_off_base(pair[0])
    assert base is not None
    artifact_base_sharing.assemble_complete_artifact(pair[0], base, tmp_path / "restored")
    weights = "model.safetensors"
    assert os.path.samefile(tmp_path / "restored" / "base" / weights, base / weights)


def test_artifact_without_a_base_loses_only_the_claim(tmp_path: Path) -> None:
    directory = make_artifact(tmp_path / "made")
    before = manifest.read(directory)
    reseal(directory, **{BASE_DIGEST: "0" * 64})
    assert artifact_base_sharing.split_off_base(directory) is None
    assert manifest.verify(directory) == before


def test_digest_is_computed_from_the_bytes(pair: list[Path]) -> None:
    """A manifest that lists the files of another base does not match its own files."""
    config = pair[0] / "base" / "config.json"
    config.write_text(config.read_text().replace("gelu", "relu"))
    with pytest.raises(ArtifactCorrupt, match="base/ has changed"):
        artifact_base_sharing.split_off_base(pair[0])


def test_versions_with_the_same_base_share_its_engine(pair: list[Path]) -> None:
    engine_cache = EngineCache()
    bases = [artifact_base_sharing.split_off_base(each) for each in pair]
    predictors = [
        Predictor.load(directory, base=base, engine_cache=engine_cache)
        for directory, base in zip(pair, bases, strict=True)
    ]
    assert predictors[0].engine is predictors[1].engine
    assert predictors[0].tokenizer is predictors[1].tokenizer
    for predictor, directory in zip(predictors, pair, strict=True):
        assert check_golden_predictions(predictor, directory) < 1e-5


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])


@pytest.mark.parametrize("name", BASE_FILES)
def test_base_is_verified_when_it_is_read(pair: list[Path], name: str) -> None:
    base = artifact_base_sharing.split_off_base(pair[0])
    assert base is not None
    damage(base / name)
    with pytest.raises(ArtifactCorrupt, match=name):
        Predictor.load(pair[0], base=base)


def test_base_in_memory_is_not_read_again(pair: list[Path]) -> None:
    engine_cache = EngineCache()
    base = artifact_base_sharing.split_off_base(pair[0])
    artifact_base_sharing.split_off_base(pair[1])
    assert base is not None
    first = Predictor.load(pair[0], base=base, engine_cache=engine_cache)
    (base / "model.safetensors").unlink()
    second = Predictor.load(pair[1], base=base, engine_cache=engine_cache)
    assert second.engine is first.engine


def test_other_base_under_the_same_name_is_rejected(tmp_path: Path) -> None:
    """Its files match its manifest, but that is not the one that the version refers to."""
    one, other = (
        make_lora_artifact(tmp_path / str(seed), LoraSpec(r=2), base=base)
        for seed in range(2)
        for base in [make_base(tmp_path / f"base-{seed}", seed=seed)]
    )
    assert artifact_base_sharing.split_off_base(one) is not None
    other_base = artifact_base_sharing.split_off_base(other)
    with pytest.raises(ArtifactCorrupt, match=r"manifest\.json has changed"):
        Predictor.load(one, base=other_base)


@pytest.mark.parametrize("change", ["split", "unnamed"])
def test_missing_base_is_reported(pair: list[Path], change: str) -> None:
    base = artifact_base_sharing.split_off_base(pair[0])
    if change == "split":
        with pytest.raises(ArtifactCorrupt, match="it has no base/"):
            Predictor.load(pair[0])
    else:
        facts = manifest.read(pair[0])
        del facts[BASE_DIGEST]
        manifest.save(pair[0], facts)
        with pytest.raises(ArtifactCorrupt, match="does not refer to a base"):
            Predictor.load(pair[0], base=base)


def test_classifier_may_not_change_the_encoder(pair: list[Path]) -> None:
    """Otherwise the first version of a base to be loaded would change the others."""
    path = pair[0] / "classifier.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"activation": "relu"}))
    reseal(pair[0])
    base = artifact_base_sharing.split_off_base(pair[0])
    with pytest.raises(ArtifactCorrupt, match="it sets 'activation'"):
        Predictor.load(pair[0], base=base)


@pytest.mark.parametrize("variant", [LoraVariant.LORA, LoraVariant.DORA])
def test_merging_again_is_checked_at_export(variant: LoraVariant, tmp_path: Path) -> None:
    directory = make_lora_artifact(tmp_path, LoraSpec(r=2, variant=variant))
    # Of the same name, which is on the model card.
    first, second = (tmp_path / folder / "model" for folder in ("one", "two"))
    for path in (first, second):
        path.parent.mkdir()
        export_merged(directory, path)
    assert files(first) == files(second)
    reseal(directory, merged_sha256="0" * 64)
    with pytest.raises(RemergedWeightsMismatch):
        export_merged(directory, tmp_path / "three")
    assert not (tmp_path / "three").exists()


def test_format_1_is_served_as_before(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    old, new = (
        make_lora_artifact(tmp_path / str(old), LoraSpec(r=2), base=base, in_format_1=old)
        for old in (True, False)
    )
    engine_cache = EngineCache()
    texts, _ = load_golden_predictions(old)
    logits = []
    for directory in (old, new):
        predictor = Predictor.load(directory, engine_cache=engine_cache)
        assert check_golden_predictions(predictor, directory) < 1e-5
        logits.append(predictor.forward(predictor.encode(texts)).numpy())
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)
    weights = [weights_sha256(load_merged_model(each).state_dict()) for each in (old, new)]
    assert weights[0] == weights[1]
