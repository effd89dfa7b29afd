"""No spelling of a private address is sent to, unless the setting names it."""

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.errors import AppError
from app.settings import Settings
from app.webhooks import http_client
from app.webhooks.errors import NoWebhookResponse, PrivateWebhookAddress, WebhookHostNotFound
from app.webhooks.url_checks import (
    Address,
    AllowedHosts,
    check_webhook_url,
    resolve_and_require_allowed_addresses,
    resolve_host,
)
from tests.webhook_receiver import receiving

NOTHING = AllowedHosts(())
PUBLIC, LOCAL = ip_address("93.184.216.34"), ip_address("127.0.0.1")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that nothing may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening
        with pytest.raises(BlockingIOError):  # nobody is waiting to be accepted
            listening.accept()


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def send(url: str, *addresses: str, allowed: Sequence[str] = (), body: bytes = b"{}") -> int:
    """Send to a host name that has these addresses."""

    def resolve(host: str, port: int) -> Sequence[Address]:
        return [ip_address(each) for each in addresses] or resolve_host(host, port)

    return http_client.post_to_receiver(
        url, body, {}, allowed=AllowedHosts(allowed), resolve=resolve
    )


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0", "0.0.0.0"),  # noqa: S104
        *("127。0。0。1", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::7f00:1]"),
        *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fc00::1]", "[ff02::1]"),
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
        *("255.255.255.255", "240.0.0.1", "192.0.2.1", "[2001:db8::1]"),
    ],
)
def test_private_addresses_are_refused_in_every_spelling(
    host: str, listener: socket.socket
) -> None:
    with pytest.raises(PrivateWebhookAddress, match="WEBHOOK_ALLOWED_HOSTS"):
        send(f"https://{host}:{port_of(listener)}/")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://a@b/", "invalid_webhook_url"),
        ("https://a:b@example.com/", "invalid_webhook_url"),
        ("https://example.com@127.0.0.1/", "invalid_webhook_url"),
        ("https://example.com/#here", "invalid_webhook_url"),
        ("https://[fe80::1%25lo]/", "invalid_webhook_url"),
        ("https://exa mple.com/", "invalid_webhook_url"),
        ("https://example.com\\.evil.com/", "invalid_webhook_url"),
        ("https://0177.0.0.1/", "invalid_webhook_url"),
        ("https://[::1/", "invalid_webhook_url"),
        ("https://example.com:0/", "invalid_webhook_url"),
        ("https://example.com:65536/", "invalid_webhook_url"),
        ("https://exam\nple.com/", "invalid_webhook_url"),
        ("https:///events", "invalid_webhook_url"),
        ("//example.com/", "invalid_webhook_url"),
        ("ftp://example.com/", "invalid_webhook_url"),
        ("gopher://127.0.0.1/", "invalid_webhook_url"),
        ("file:///etc/passwd", "invalid_webhook_url"),
        ("nonsense", "invalid_webhook_url"),
        ("", "invalid_webhook_url"),
        ("http://example.com/", "insecure_webhook_url"),
        ("http://2130706433/", "insecure_webhook_url"),
    ],
)
def test_other_urls_are_refused(url: str, code: str) -> None:
    with pytest.raises(AppError) as refused:
        check_webhook_url(url, NOTHING)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "url", ["https://example.com", "https://EXAMPLE.com.:8443/a?b=c", "https://[2606:4700::1]/"]
)
def test_public_urls_are_accepted(url: str) -> None:
    assert check_webhook_url(url, NOTHING).url.scheme == "https"


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("93.184.216.34", "127.0.0.1"), ("::1",)])
def test_names_with_a_private_address_are_refused(
    addresses: tuple[str, ...], listener: socket.socket
) -> None:
    with pytest.raises(PrivateWebhookAddress):
        send(f"https://rebind.example:{port_of(listener)}/", *addresses)


def test_addresses_of_nat64_are_checked_as_what_they_stand_for_and_kept() -> None:
    target = check_webhook_url("https://hooks.example/x", AllowedHosts(()))
    public, private = ip_address("64:ff9b::808:808"), ip_address("64:ff9b::a00:1")
    assert resolve_and_require_allowed_addresses(target, AllowedHosts(()), lambda *_: [public]) == [
        public
    ]
    with pytest.raises(PrivateWebhookAddress):
        resolve_and_require_allowed_addresses(target, AllowedHosts(()), lambda *_: [private])


def test_a_name_is_resolved_once_and_its_checked_address_is_used() -> None:
    asked: list[str] = []
    with receiving("::1") as allowed_receiver:

        def rebinding(host: str, port: int) -> Sequence[Address]:
            asked.append(host)
            return [ip_address("::1" if len(asked) == 1 else "127.0.0.1")]

        url = f"http://rebind.example:{allowed_receiver.port}/events"
        target = check_webhook_url(url, AllowedHosts(("rebind.example",)))
        assert resolve_and_require_allowed_addresses(
            target, AllowedHosts(("::1/128",)), rebinding
        ) == [ip_address("::1")]
        with pytest.raises(PrivateWebhookAddress):
            resolve_and_require_allowed_addresses(target, AllowedHosts(("::1/128",)), rebinding)
        asked.clear()
        names = AllowedHosts(("rebind.example",))
        assert http_client.post_to_receiver(url, b"{}", {}, allowed=names, resolve=rebinding) == 204
        (request,) = allowed_receiver.requests
    assert asked == ["rebind.example"]
    assert request.headers["host"] == f"rebind.example:{allowed_receiver.port}"


def test_the_next_address_is_used_if_one_refuses_the_connection() -> None:
    with receiving() as receiver:
        url = f"http://two.example:{receiver.port}/"
        assert send(url, "::1", "127.0.0.1", allowed=["two.example"]) == 204


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://intern.example/", "intern.example"),
        ("https://intern.example/", "10.0.0.0/8"),
        ("http://10.1.2.3/", "10.0.0.0/8"),
        ("http://[::ffff:10.1.2.3]/", "10.1.2.3/32"),
    ],
)
def test_allowed_hosts_may_be_private(url: str, allowed: str) -> None:
    hosts = AllowedHosts((allowed,))
    target = check_webhook_url(url, hosts)
    assert resolve_and_require_allowed_addresses(target, hosts, lambda *_: [ip_address("10.1.2.3")])


def test_an_allowed_network_allows_no_other(listener: socket.socket) -> None:
    with pytest.raises(PrivateWebhookAddress):
        send(f"https://127.0.0.1:{port_of(listener)}/", allowed=["10.0.0.0/8", "intern.example"])


def test_redirects_are_not_followed(listener: socket.socket) -> None:
    with receiving() as receiver:
        receiver.statuses = [302, 307]
        receiver.response_headers["Location"] = f"http://127.0.0.1:{port_of(listener)}/"
        assert send(receiver.url, allowed=["127.0.0.1/32"]) == 302
        assert send(receiver.url, allowed=["127.0.0.1/32"]) == 307


def test_proxies_of_the_environment_are_ignored(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port_of(listener)}")
    with receiving() as receiver:
        assert send(receiver.url, allowed=["127.0.0.1/32"]) == 204


def test_unknown_names_are_reported() -> None:
    with pytest.raises(WebhookHostNotFound, match=r"nowhere\.invalid"):
        send("https://nowhere.invalid/")


@pytest.mark.parametrize("answer", [b"secret" * 9999, b"HTTP/1.1 200 \x00secret\r\n\r\n", b""])
def test_answers_that_are_not_http_are_not_quoted(answer: bytes) -> None:
    with (
        endless(start=answer + b"\r\n\r\n", then=b"x", pause=0.02) as url,
        pytest.raises(NoWebhookResponse) as refused,
    ):
        send(url, allowed=["127.0.0.1/32"])
    assert str(refused.value) == "The receiver did not respond: it sent no valid HTTP response."


def test_a_connection_that_ends_in_the_handshake_is_reported() -> None:
    def hang_up() -> None:
        listening.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(NoWebhookResponse, match=r"respond: the connection broke\.$"):
            send(f"https://127.0.0.1:{port_of(listening)}/", allowed=["127.0.0.1/32"])
        thread.join()


def test_a_handshake_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "SEND_SECONDS", 0.4)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(NoWebhookResponse, match="there was no connection in time"),
    ):
        send(f"https://127.0.0.1:{port_of(silent)}/", allowed=["127.0.0.1/32"])


def test_an_address_that_does_not_react_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as an IPv6 address on a host whose IPv6 packets are dropped on their way."""
    monkeypatch.setattr(http_client, "SEND_SECONDS", 6.0)
    with receiving() as receiver, socket.socket(socket.AF_INET6) as silent, ExitStack() as stack:
        silent.bind(("::1", receiver.port))
        silent.listen(0)
        fill_queue(silent, stack)
        url = f"http://hooks.example:{receiver.port}/"
        assert send(url, "::1", "127.0.0.1", allowed=["hooks.example"]) == 204


def fill_queue(listening: socket.socket, stack: ExitStack) -> None:
    """Connect until the kernel no longer accepts connections to this socket."""
    connected = True
    while connected:
        waiting = stack.enter_context(socket.socket(listening.family))
        waiting.settimeout(0.5)
        try:
            waiting.connect(listening.getsockname())
        except TimeoutError:
            connected = False


@contextmanager
def endless(*, start: bytes, then: bytes, pause: float) -> Iterator[str]:
    """A receiver whose response never ends; yields its URL."""
    hung_up = threading.Event()

    def respond() -> None:
        connection, _ = listening.accept()
        with connection, suppress(ConnectionError):
            connection.sendall(start)
            while not hung_up.wait(pause):
                connection.sendall(then)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=respond)
        thread.start()
        yield f"http://127.0.0.1:{port_of(listening)}/"
        hung_up.set()
        thread.join()


def test_the_rest_of_a_large_response_is_not_read() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with endless(start=head, then=b"1000\r\n" + b"x" * 4096 + b"\r\n", pause=0.001) as url:
        assert send(url, allowed=["127.0.0.1/32"]) == 200


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b""]
)
def test_a_slow_response_is_given_up(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "SEND_SECONDS", 0.5)
    with (
        endless(start=start, then=b"x" if start else b"", pause=0.02) as url,
        pytest.raises(NoWebhookResponse, match=r"timed out after 0\.5 s"),
    ):
        send(url, allowed=["127.0.0.1/32"])


def test_certificates_are_those_of_the_host_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path, "hooks.example")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=certificate)
    with receiving(tls=tls) as receiver:
        url, allowed = f"https://hooks.example:{receiver.port}/", ["127.0.0.1/32"]
        with pytest.raises(NoWebhookResponse, match="self-signed"):
            send(url, "127.0.0.1", allowed=allowed)
        monkeypatch.setattr(http_client, "_ssl_context", lambda: trusting)
        assert send(url, "127.0.0.1", allowed=allowed) == 204
        with pytest.raises(NoWebhookResponse, match="other\\.example"):
            send(url.replace("hooks", "other"), "127.0.0.1", allowed=allowed)
        assert len(receiver.requests) == 1


def write_certificate(folder: Path, name: str) -> Path:
    """Write a certificate that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.mark.parametrize("value", ["10.0.0.0/33", "10.0.0.1/8", "a b", "http://x", "1.2.3", "::g"])
def test_invalid_settings_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="webhook_allowed_hosts"):
        Settings(webhook_allowed_hosts=value)  # type: ignore[arg-type]


def test_setting_is_normalized() -> None:
    text = "Intern.Example, 127.0.0.1,10.0.0.0/8 , ::1"
    hosts = Settings(webhook_allowed_hosts=text).webhook_allowed_hosts  # type: ignore[arg-type]
    assert hosts == ("intern.example", "127.0.0.1/32", "10.0.0.0/8", "::1/128")
