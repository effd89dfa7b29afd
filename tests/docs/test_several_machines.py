"""The guide for several machines, with real servers in place of its examples."""

import json
import re
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from tests.docs.blocks import Block, blocks
from tests.docs.session import Session
from tests.s3_server import S3Server
from tests.servers import PostgresServer, ValkeyServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

GUIDE, OPERATIONS = "docs/how-to/several-machines.md", "docs/how-to/operations.md"
FILE = "/etc/loraworks.env"


def the_block(document: str, holding: str) -> Block:
    (found,) = [block for block in blocks(document) if block.needs and holding in block.text]
    return found


def test_guide_for_several_machines_works(
    tmp_path: Path, postgres: PostgresServer, valkey: ValkeyServer, s3: S3Server
) -> None:
    database = make_url(postgres.empty_database())
    url = database.render_as_string(hide_password=False)
    place = {
        r"'postgresql://.*'": f"'{url}'",
        r"(?m)^(dropdb|createdb) (.*) loraworks$": rf"\1 \2 {database.database}",
        r"'rediss://.*'": f"'{valkey.url()}'",
        r"bucket/prefix": f"{s3.new_bucket()}/prefix",
        r"AWS_ACCESS_KEY_ID=…": f"AWS_ACCESS_KEY_ID={s3.key}",
        r"AWS_SECRET_ACCESS_KEY=…": f"AWS_SECRET_ACCESS_KEY={s3.secret}",
        r"LORAWORKS_PEPPER=…": f"LORAWORKS_PEPPER={'x' * 32}",
        FILE: str(tmp_path / "loraworks.env"),
    }

    def placed(document: str, holding: str) -> str:
        text = the_block(document, holding).text
        for pattern, real in place.items():
            text = re.sub(pattern, real, text)
        return text

    (tmp_path / "loraworks.env").write_text(placed(GUIDE, "LORAWORKS_PEPPER"), encoding="utf-8")
    programs = str(postgres.program("pg_dump").parent)
    administrator = {
        "PGHOST": str(database.host),
        "PGPORT": str(database.port),
        "PGUSER": str(database.username),
        "PGPASSWORD": str(database.password),
    }
    environment = s3.environment | administrator
    with closing(Session(tmp_path / "machine", environment=environment)) as session:
        session.run(
            f"git clone here loraworks; cd loraworks; . .venv/bin/activate; PATH={programs}:$PATH"
        )
        output = session.run(placed(GUIDE, "loraworks migrate"))
        (key,) = re.findall(r"lw_[\w-]+", output)
        session.run(placed(GUIDE, "loraworks worker"))
        session.run(f"LORAWORKS_API_KEY={key} loraworks jobs list")
        parts = json.loads(session.run('curl -s "$SERVICE/readyz"'))["parts"]
        assert parts == {"database": "ok", "store": "ok", "disk": "ok", "broker": "ok"}

        session.run("kill $(jobs -p); wait || true; mkdir backup")
        session.run(placed(OPERATIONS, "pg_dump --format=custom --file").partition("aws ")[0])
        with psycopg.connect(url) as connection:  # a later version would add tables like this one
            connection.execute("CREATE TABLE later (model UUID REFERENCES registered_models)")
        session.run(placed(OPERATIONS, "pg_restore --no-owner --single-transaction --dbname"))
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT to_regclass('later')").fetchone() == (None,)
        session.run("loraworks migrate --check")
