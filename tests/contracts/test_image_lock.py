"""requirements.lock contains everything that the image needs, at the pinned versions."""

from lora_core.samples.fetch import SAMPLES
from tests.contracts.image_lock import LEFT_OUT, ROOT, locked, needed, samples
from tests.contracts.test_versions import pins

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_lock_contains_exactly_the_dependencies() -> None:
    assert locked().keys() == needed() | {each.partition("==")[0] for each in samples()}
    assert not locked().keys() & LEFT_OUT


def test_lock_has_the_pinned_versions() -> None:
    wanted = {name: str(version) for name, version in pins().items()}
    wanted |= dict(each.split("==", 1) for each in samples())
    assert locked().keys() - wanted.keys() <= {"setuptools"}  # of torch; a freeze leaves it out
    for name, (version, _) in locked().items():
        assert version == wanted.get(name, version), name


def test_image_installs_dependencies_by_hash() -> None:
    installs = [
        line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if "pip install" in line
    ]
    assert len(installs) == 3
    rest, torch, package = installs  # torch last, so that it brings nothing of the lock unchecked
    assert "--require-hashes --no-deps --only-binary :all: -r /src/requirements.lock" in rest
    assert "torch==${TORCH_VERSION}" in torch
    assert "--no-build-isolation --no-deps /src" in package  # with the hatchling of the lock
    assert "hatchling" in locked()


def test_fetched_samples_are_the_locked_ones() -> None:
    """`loraworks samples fetch` and the image read the same wheels."""
    for sample in SAMPLES:
        assert locked()[sample.name] == (sample.version, sample.sha256)
        assert f"{sample.name}=={sample.version}" in samples()
