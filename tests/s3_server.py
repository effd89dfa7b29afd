"""A real S3-compatible server in its own process, with objects in memory."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2
import pytest

from tests.servers import HOST, free_port
from tests.waiting import wait_until

START_SECONDS = 60.0
# moto's server in which, as in S3, of two writes that want a new object only one succeeds. moto
# looks whether there is one, and then stores it.
PROGRAM = """
from threading import RLock

from moto.s3.responses import S3Response
from moto.server import main

lock, put_object = RLock(), S3Response.put_object


def put_object_atomically(self):
    with lock:
        return put_object(self)


S3Response.put_object = put_object_atomically
main()
"""
REGION = "us-east-1"
POLICY = """{"Version": "2012-10-17",
 "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}"""


@dataclass
class S3Server:
    """`environment` is what a process needs to reach it."""

    port: int = field(default_factory=free_port)
    key: str = "somebody"
    secret: str = "not-for-logs"
    bucket: str = ""

    def __post_init__(self) -> None:
        self._numbers = count(1)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
            "NO_PROXY": HOST,
        }

    def start(self, **environment: str) -> None:
        """Start it; returns once it accepts connections."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "-H", HOST, "-p", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        wait_until(self._answers, seconds=START_SECONDS, what="the start of the S3 server")

    def kill(self) -> None:
        """Stop it, which discards its objects."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Connections are accepted but get no response."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue after a freeze."""
        self._signal(signal.SIGCONT)

    def new_bucket(self) -> str:
        """The name of an empty bucket."""
        name = f"bucket-{next(self._numbers)}"
        self._call("PUT", f"/{name}")
        return name

    def write(self, path: str, content: bytes) -> None:
        """Put an object directly; the bucket is part of the path."""
        self._call("PUT", f"/{path}", content=content, headers=self._signed("s3"))

    def remove(self, path: str) -> None:
        """Delete an object directly."""
        self._call("DELETE", f"/{path}", headers=self._signed("s3"))

    def demand_credentials(self) -> None:
        """Require credentials from now on; `environment` then contains them."""

        def ask(action: str, **fields: str) -> str:
            form = {"Action": action, "Version": "2010-05-08", "UserName": "loraworks", **fields}
            return self._call("POST", "/", data=form, headers=self._signed("iam"))

        ask("CreateUser")
        ask("PutUserPolicy", PolicyName="all", PolicyDocument=POLICY)
        made = ask("CreateAccessKey")
        self.key, self.secret = (
            re.findall(f"<{name}>(.+)</{name}>", made)[0]
            for name in ("AccessKeyId", "SecretAccessKey")
        )
        self._call("POST", "/moto-api/reset-auth", content=b"0")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the S3 server left"
        try:
            self._call("GET", "/")
        except httpx2.ConnectError:
            return False
        return True

    def _signed(self, service: str) -> dict[str, str]:
        """Enough for a server that does not check credentials."""
        credential = f"Credential={self.key}/20260101/{REGION}/{service}/aws4_request"
        return {"Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=, Signature="}

    def _call(self, method: str, path: str, **more: Any) -> str:
        with httpx2.Client(trust_env=False) as client:
            return client.request(method, self.url + path, **more).raise_for_status().text

    def _signal(self, number: int) -> None:
        assert self.process is not None, "it does not run"
        self.process.send_signal(number)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One server for all tests of this process, with a new bucket for each."""
    server = S3Server()
    try:
        server.start()
        yield server
    finally:
        server.kill()
