"""Tokens of API keys, and the pepper."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from app.auth import secrets
from app.auth.errors import HuggingFaceTokenSent, KeyMalformed, PepperFileInvalid
from app.settings import Settings

PEPPER = b"p" * 64


def test_key_round_trip() -> None:
    for _ in range(50):  # the secret may contain underscores, which also separate the parts
        key_id = uuid4()
        token = secrets.new_key_token(key_id)
        assert secrets.parse_api_key(token.text) == token
        assert token.id == key_id


def test_keys_have_256_random_bits() -> None:
    random_parts = {secrets.new_key_token(UUID(int=0)).text.split("_", 2)[2] for _ in range(100)}
    assert len(random_parts) == 100
    assert {len(each) for each in random_parts} == {43}


def test_digest_depends_on_text_and_pepper() -> None:
    token = secrets.new_key_token(uuid4())
    stored = token.digest(PEPPER)
    assert secrets.parse_api_key(token.text).digest(PEPPER) == stored
    assert token.digest(b"q" * 64) != stored
    assert secrets.new_key_token(token.id).digest(PEPPER) != stored


def test_digest_and_repr_do_not_contain_the_secret() -> None:
    token = secrets.new_key_token(uuid4())
    hidden = token.text.split("_", 2)[2]
    assert hidden not in token.digest(PEPPER)
    assert hidden not in repr(token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "Lw_1_2",
        "lw_",
        f"lw_{'0' * 32}_short",
        f"lw_{'0' * 31}_{'a' * 43}",
        f"lw_{UUID(int=0)}_{'a' * 43}",  # with hyphens, as no key has
        f"lw_{'g' * 32}_{'a' * 43}",
        f"lw_{'0' * 32}_{'é' * 43}",
        "lw_é_" + "a" * 43,
    ],
)
def test_malformed_keys_are_rejected_without_repeating_them(text: str) -> None:
    with pytest.raises(KeyMalformed) as caught:
        secrets.parse_api_key(text)
    assert len(text) < 4 or text not in str(caught.value)


def test_hugging_face_token_is_recognized_but_not_repeated() -> None:
    with pytest.raises(HuggingFaceTokenSent, match="Hugging Face") as caught:
        secrets.parse_api_key("hf_AbCdEfGhIjKlMnOp")
    assert "AbCdEf" not in str(caught.value)


def test_pepper_is_created_once_and_readable_only_by_its_owner(settings: Settings) -> None:
    first = secrets.load_or_create_pepper(settings)
    path = settings.data_dir / "pepper"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secrets.load_or_create_pepper(settings) == first
    assert len(first) == 64


def test_a_data_folder_made_for_the_pepper_is_closed_to_others(tmp_path: Path) -> None:
    secrets.load_or_create_pepper(Settings(data_dir=tmp_path / "data"))
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_concurrent_first_starts_agree_on_one_pepper(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        peppers = list(pool.map(lambda _: secrets.load_or_create_pepper(settings), range(32)))
    assert len(set(peppers)) == 1
    assert not list(settings.data_dir.glob(".pepper*"))


def test_pepper_from_settings_creates_no_file(settings: Settings) -> None:
    given = Settings(data_dir=settings.data_dir, pepper=SecretStr("x" * 40))
    assert secrets.load_or_create_pepper(given) == b"x" * 40
    assert not (settings.data_dir / "pepper").exists()


def test_readable_or_truncated_pepper_file_is_rejected(settings: Settings) -> None:
    secrets.load_or_create_pepper(settings)
    path = settings.data_dir / "pepper"
    path.chmod(0o644)
    with pytest.raises(PepperFileInvalid, match="0600"):
        secrets.load_or_create_pepper(settings)
    path.chmod(0o600)
    os.truncate(path, 10)
    with pytest.raises(PepperFileInvalid, match="64 hex digits"):
        secrets.load_or_create_pepper(settings)
