"""The text of keys, and the pepper."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from app.auth import secrets
from app.auth.errors import ForeignToken, KeyMalformed, PepperBroken
from app.settings import Settings

PEPPER = b"p" * 64


def test_a_key_is_read_back_with_its_id() -> None:
    for _ in range(50):  # the secret may hold underscores, which also divide the parts
        key_id = uuid4()
        token = secrets.new_token(key_id)
        assert secrets.parse(token.text) == token
        assert token.id == key_id


def test_every_key_has_256_new_random_bits() -> None:
    secrets = {secrets.new_token(UUID(int=0)).text.split("_", 2)[2] for _ in range(100)}
    assert len(secrets) == 100
    assert {len(each) for each in secrets} == {43}


def test_only_the_same_text_and_pepper_match() -> None:
    token = secrets.new_token(uuid4())
    stored = token.digest(PEPPER)
    assert secrets.parse(token.text).digest(PEPPER) == stored
    assert token.digest(b"q" * 64) != stored
    assert secrets.new_token(token.id).digest(PEPPER) != stored


def test_the_stored_form_and_the_repr_do_not_hold_the_secret() -> None:
    token = secrets.new_token(uuid4())
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
        f"lw_{'g' * 32}_{'a' * 43}",
        "lw_é_" + "a" * 43,
    ],
)
def test_other_texts_are_refused_without_repeating_them(text: str) -> None:
    with pytest.raises(KeyMalformed) as caught:
        secrets.parse(text)
    assert len(text) < 4 or text not in str(caught.value)


def test_a_token_of_the_hub_is_named_but_not_repeated() -> None:
    with pytest.raises(ForeignToken, match="Hugging Face") as caught:
        secrets.parse("hf_AbCdEfGhIjKlMnOp")
    assert "AbCdEf" not in str(caught.value)


def test_the_pepper_is_made_once_and_only_its_owner_can_read_it(settings: Settings) -> None:
    first = secrets.load_pepper(settings)
    path = settings.data_dir / "pepper"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secrets.load_pepper(settings) == first
    assert len(first) == 64


def test_many_first_starts_agree_on_one_pepper(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        peppers = list(pool.map(lambda _: secrets.load_pepper(settings), range(32)))
    assert len(set(peppers)) == 1
    assert not list(settings.data_dir.glob(".pepper*"))


def test_a_pepper_from_the_settings_makes_no_file(settings: Settings) -> None:
    given = Settings(data_dir=settings.data_dir, pepper=SecretStr("x" * 40))
    assert secrets.load_pepper(given) == b"x" * 40
    assert not (settings.data_dir / "pepper").exists()


def test_a_pepper_that_others_can_read_or_that_was_cut_is_refused(settings: Settings) -> None:
    secrets.load_pepper(settings)
    path = settings.data_dir / "pepper"
    path.chmod(0o644)
    with pytest.raises(PepperBroken, match="0600"):
        secrets.load_pepper(settings)
    path.chmod(0o600)
    os.truncate(path, 10)
    with pytest.raises(PepperBroken, match="64 hex digits"):
        secrets.load_pepper(settings)
