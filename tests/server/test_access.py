"""TLS, mutual TLS, API keys, scopes and rate limits, with real handshakes; and where a gateway may listen."""

from __future__ import annotations

import queue
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from typer.testing import CliRunner

from braid.v1 import catalog_pb2, event_pb2, user_pb2
from features.database.engine import open_database
from features.settings import ROOT, Settings
from server.access.exposure import Exposed, check_exposure, is_loopback
from server.access.key_commands import keys as key_commands
from server.access.key_ring import KeyRing
from server.access.key_table import KeyTable
from server.access.scopes import Scope
from server.access.tls import TlsError, TlsFiles
from server.errors import Unauthenticated
from server.following import Counters
from server.settings import GatewaySettings
from tests.certificates import Authority, Certificate
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.processes import environment
from tests.server.client import SERVING, Client, RunningGateway, gateway, new_event, refusal

VIEW = event_pb2.EVENT_TYPE_VIEW
DENIED, UNKNOWN_CALLER = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


@dataclass(frozen=True)
class Guarded:
    """A gateway beyond loopback, with mutual TLS and keys."""

    running: RunningGateway
    authority: Authority
    server: Certificate
    customer: Certificate
    table: KeyTable
    address: str

    def channel_credentials(
        self, certificate: Certificate | None, authority: Path | None = None
    ) -> grpc.ChannelCredentials:
        mine = (certificate.key.read_bytes(), certificate.certificate.read_bytes()) if certificate else (None, None)
        return grpc.ssl_channel_credentials((authority or self.authority.file).read_bytes(), *mine)

    def client(self, secret: str = "") -> Client:
        credentials = self.channel_credentials(self.customer)
        if secret:
            token = grpc.access_token_call_credentials(secret)  # sends `authorization: Bearer <secret>`
            credentials = grpc.composite_channel_credentials(credentials, token)
        return Client(self.address, credentials)

    def client_with(self, *scopes: Scope, calls_per_s: float = 0, burst: int = 0) -> tuple[Client, str]:
        """A client with a new key that the gateway has taken in, and the key's id."""
        key_id, secret = self.table.create("a test", scopes, calls_per_s=calls_per_s, burst=burst)
        client = self.client(secret)
        eventually(lambda: UNKNOWN_CALLER not in outcomes(lambda: list_services(client)), what="the new key")
        return client, key_id


def outcomes(call: Callable[[], object]) -> list[grpc.StatusCode]:
    try:
        call()
    except grpc.RpcError as error:
        return [error.code()]
    return []


def list_services(client: Client) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    return [
        it.name for it in next(stub.ServerReflectionInfo(iter([request]), timeout=10)).list_services_response.service
    ]


@pytest.fixture(scope="module")
def guarded(new_settings: NewSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    settings = new_settings()
    port = settings.gateway_address.rpartition(":")[2]
    beyond = settings.model_copy(update={"gateway_address": f"0.0.0.0:{port}"})
    authority = Authority(tmp_path_factory.mktemp("authority"))
    server, customer = authority.sign("server"), authority.sign("customer")
    engine = open_database(settings.log_url)
    table = KeyTable(engine)
    table.create("the first", [Scope.ADMIN], calls_per_s=0, burst=0)
    address = f"localhost:{port}"
    credentials = grpc.ssl_channel_credentials(
        authority.file.read_bytes(), customer.key.read_bytes(), customer.certificate.read_bytes()
    )
    with gateway(
        beyond,
        caller=Client(address, credentials),
        tls_certificate=str(server.certificate),
        tls_key=str(server.key),
        tls_client_ca=str(authority.file),
        log_level="DEBUG",
    ) as running:
        yield Guarded(running, authority, server, customer, table, address)
    engine.dispose()


def test_only_a_client_with_a_certificate_of_the_authority_is_let_in(guarded: Guarded, tmp_path: Path) -> None:
    strangers = Authority(tmp_path / "strangers")
    refused = [
        guarded.channel_credentials(None),
        guarded.channel_credentials(strangers.sign("stranger")),
        guarded.channel_credentials(guarded.customer, authority=strangers.file),  # here the client turns away
        None,
    ]
    for credentials in refused:
        client = Client(guarded.address, credentials)
        with client.channel:
            assert outcomes(client.health) == [grpc.StatusCode.UNAVAILABLE]
    assert guarded.running.client.health() == SERVING, "health is asked without a key"


def test_a_call_needs_a_key_and_its_scope(guarded: Guarded) -> None:
    calls: dict[str, Callable[[Client], object]] = {
        "Recommend": lambda client: client.recommend("u"),
        "WriteEvents": lambda client: client.write(new_event(VIEW, "i", user_id="u")),
        "ListItems": lambda client: client.catalog.ListItems(catalog_pb2.ListItemsRequest()),
        "UpsertUsers": lambda client: client.users.UpsertUsers(
            user_pb2.UpsertUsersRequest(users=[user_pb2.User(user_id="u")])
        ),
        "DeleteUser": lambda client: client.events.DeleteUser(event_pb2.DeleteUserRequest(session_id="nobody")),
        "Unheard": lambda client: client.channel.unary_unary("/braid.v1.Unheard/Of")(b""),
    }

    def answered(client: Client) -> dict[str, list[grpc.StatusCode]]:
        return {name: outcomes(lambda call=call: call(client)) for name, call in calls.items()}  # type: ignore[misc]

    storefront, _ = guarded.client_with(Scope.STOREFRONT)
    assert answered(storefront) == {name: [] if name == "Recommend" else [DENIED] for name in calls}
    ingest, _ = guarded.client_with(Scope.INGEST)
    allowed = ("WriteEvents", "ListItems", "UpsertUsers")
    assert answered(ingest) == {name: [] if name in allowed else [DENIED] for name in calls}
    both, _ = guarded.client_with(Scope.STOREFRONT, Scope.INGEST)
    assert answered(both) == {name: [] if name in ("Recommend", *allowed) else [DENIED] for name in calls}
    admin, _ = guarded.client_with(Scope.ADMIN)
    unheard = {"Unheard": [grpc.StatusCode.UNIMPLEMENTED]}
    assert answered(admin) == {name: [] for name in calls} | unheard
    for nobody in (guarded.client(), guarded.client("braid_guessed")):
        assert answered(nobody) == {name: [UNKNOWN_CALLER] for name in calls}
        assert outcomes(lambda nobody=nobody: list_services(nobody)) == [UNKNOWN_CALLER]  # type: ignore[misc]
    assert "braid.v1.EventService" in list_services(storefront)


def test_refusals_say_what_to_do(guarded: Guarded) -> None:
    storefront, key_id = guarded.client_with(Scope.STOREFRONT)
    with pytest.raises(grpc.RpcError) as denied:
        storefront.write(new_event(VIEW, "i", user_id="u"))
    assert denied.value.details() == (
        f"/braid.v1.EventService/WriteEvents needs the scope ingest; key {key_id} has storefront"
    )
    with pytest.raises(grpc.RpcError) as unknown:
        guarded.client().recommend("u")
    assert "brings no key" in unknown.value.details() and "authorization: Bearer" in unknown.value.details()


def test_a_key_that_calls_too_often_is_told_when_to_come_back_and_the_others_are_not(guarded: Guarded) -> None:
    often, _ = guarded.client_with(Scope.STOREFRONT, calls_per_s=0.5, burst=3)
    other, _ = guarded.client_with(Scope.STOREFRONT)
    refused: list[grpc.RpcError] = []
    for _ in range(4):
        try:
            often.recommend("u")
        except grpc.RpcError as error:
            refused.append(error)
        other.recommend("u")
    assert refused and {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    retry = error_details_pb2.RetryInfo()
    assert rpc_status.from_call(refused[-1]).details[0].Unpack(retry)
    assert 0 < retry.retry_delay.ToMilliseconds() <= 2_000
    eventually(lambda: often.recommend("u"), every_s=0.2, what="the next token")


def test_messages_of_a_stream_wait_for_their_turn(guarded: Guarded) -> None:
    client, _ = guarded.client_with(Scope.INGEST, calls_per_s=20, burst=5)
    requests = [event_pb2.StreamEventsRequest(events=[new_event(VIEW, "i", user_id="u")]) for _ in range(15)]
    began_s = time.perf_counter()
    assert len(list(client.events.StreamEvents(iter(requests), timeout=60))) == 15
    assert time.perf_counter() - began_s >= 0.4, "ten of them had to wait for 50 ms each"


def test_a_revoked_key_ends_its_calls_and_its_open_streams(guarded: Guarded) -> None:
    client, key_id = guarded.client_with(Scope.INGEST)
    line: queue.SimpleQueue[event_pb2.StreamEventsRequest] = queue.SimpleQueue()
    request = event_pb2.StreamEventsRequest(events=[new_event(VIEW, "i", user_id="u")])
    responses = client.events.StreamEvents(iter(line.get, None), timeout=60)
    line.put(request)
    assert next(responses)
    assert guarded.table.revoke(key_id) and not guarded.table.revoke(key_id)
    eventually(lambda: refusal(lambda: client.write())[0] == UNKNOWN_CALLER, within_s=5, what="the end of the key")
    line.put(request)
    with pytest.raises(grpc.RpcError) as ended:
        next(responses)
    assert ended.value.code() == UNKNOWN_CALLER and "revoked" in ended.value.details()


def test_a_renewed_certificate_is_taken_in_without_a_restart(guarded: Guarded) -> None:
    context = ssl.create_default_context(cafile=str(guarded.authority.file))
    context.load_cert_chain(guarded.customer.certificate, guarded.customer.key)
    context.set_alpn_protocols(["h2"])

    def served() -> str:
        host, _, port = guarded.address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            certificate = connection.getpeercert(binary_form=True)
            assert certificate is not None
            return ssl.DER_cert_to_PEM_cert(certificate)

    before = guarded.server.certificate.read_text()
    assert served() == before
    kept = guarded.server.key.read_text()
    renewed = guarded.authority.sign("server")
    new_key = renewed.key.read_text()
    renewed.key.write_text(kept)  # the certificate came first, its key is on the way
    assert served() == before
    assert "is not the key of the certificate" in guarded.running.log
    renewed.key.write_text(new_key)
    assert served() == renewed.certificate.read_text() != before


def test_no_secret_is_stored_or_logged(guarded: Guarded) -> None:
    _, secret = guarded.table.create("secretive", [Scope.STOREFRONT], calls_per_s=0, burst=0)
    client = guarded.client(secret)
    eventually(lambda: client.recommend("u") is not None, what="the new key")
    refusal(lambda: client.write())
    stored = b"".join(file.read_bytes() for file in guarded.running.settings.home.glob("braid.db*"))
    assert secret.encode() not in stored and b"secretive" in stored
    assert secret not in guarded.running.log and "PermissionDenied" in guarded.running.log


async def test_a_shop_that_ever_made_a_key_asks_for_keys_for_ever(settings: Settings) -> None:
    engine = open_database(settings.log_url)
    table = KeyTable(engine)
    with ThreadPoolExecutor(1) as threads:
        ring = KeyRing(engine, Counters(engine, threads), threads, open_without_keys=True)
        await ring.refresh()
        assert ring.open
        key_id, secret = table.create("only", [Scope.ADMIN], calls_per_s=0, burst=0)
        await ring.refresh()
        assert not ring.open
        assert ring.caller([("authorization", f"bearer {secret}")]).key_id == key_id
        table.revoke(key_id)
        await ring.refresh()
        assert not ring.open
        with pytest.raises(Unauthenticated):
            ring.caller([("authorization", f"Bearer {secret}")])
    engine.dispose()


def test_keys_are_made_listed_and_revoked_on_the_command_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAID_HOME", str(settings.home))
    run = CliRunner()
    made = run.invoke(key_commands, ["create", "shop window [/2]", "--scope", "storefront", "--calls-per-s", "7.5"])
    assert made.exit_code == 0 and made.stdout.startswith("braid_")
    key_id = made.stderr.split()[1].rstrip(";")
    monkeypatch.setenv("COLUMNS", "200")
    listed = run.invoke(key_commands, ["list"])
    assert all(text in listed.stdout for text in (key_id, "shop window [/2]", "storefront", "7.5"))
    assert made.stdout.strip() not in listed.stdout
    assert run.invoke(key_commands, ["revoke", key_id]).exit_code == 0
    again = run.invoke(key_commands, ["revoke", key_id])
    assert again.exit_code == 2 and key_id in again.stderr
    nonsense = run.invoke(key_commands, ["create", "x", "--scope", "storefront", "--burst", "3"])
    assert nonsense.exit_code == 2 and "--calls-per-s" in nonsense.stderr


def test_files_that_give_no_tls_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    server, other = authority.sign("server"), authority.sign("other")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")

    def message(**files: Path) -> str:
        own = GatewaySettings(**{f"tls_{name}": file for name, file in files.items()})  # type: ignore[arg-type]
        with pytest.raises(TlsError) as error:
            files_ = TlsFiles.of(own)
            assert files_ is not None
            files_.credentials()
        assert "\n" not in str(error.value)
        return str(error.value)

    pair = {"certificate": server.certificate, "key": server.key}
    assert "BRAID_GATEWAY_TLS_KEY is missing" in message(certificate=server.certificate)
    assert "BRAID_GATEWAY_TLS_CERTIFICATE is missing" in message(client_ca=authority.file)
    assert "BRAID_GATEWAY_TLS_CERTIFICATE is missing" in message(key=server.key)
    assert "No such file" in message(**pair | {"certificate": tmp_path / "none.pem"})
    assert "BRAID_GATEWAY_TLS_KEY" in message(**pair | {"key": tmp_path})
    assert "is not the key of" in message(**pair | {"key": other.key})
    assert "as PEM" in message(**pair | {"certificate": text})
    assert "BRAID_GATEWAY_TLS_CLIENT_CA" in message(**pair, client_ca=text)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:1", True), ("127.8.0.1:1", True), ("localhost:1", True), ("[::1]:1", True)]
    + [("0.0.0.0:1", False), ("[::]:1", False), ("10.1.2.3:1", False), ("shop.example:1", False), (":1", False)],
)
def test_beyond_loopback_a_gateway_needs_tls_and_known_callers_or_an_express_setting(
    address: str, loopback: bool, tmp_path: Path
) -> None:
    assert is_loopback(address) == loopback

    def problem(any_key: bool, **settings: object) -> str:
        try:
            check_exposure(address, GatewaySettings(**settings), any_key=any_key)  # type: ignore[arg-type]
        except Exposed as error:
            return "TLS" if "no TLS" in str(error) else "key"
        return ""

    tls = {"tls_certificate": tmp_path, "tls_key": tmp_path}
    assert problem(True) == ("" if loopback else "TLS")
    assert problem(False, **tls) == ("" if loopback else "key")
    assert problem(True, **tls) == problem(True, allow_plaintext=True) == ""
    assert problem(False, **tls, tls_client_ca=tmp_path) == problem(False, **tls, allow_anonymous=True) == ""


def test_a_gateway_that_would_be_open_to_others_does_not_start(settings: Settings) -> None:
    exposed = settings.model_copy(update={"gateway_address": "0.0.0.0:" + settings.gateway_address.rpartition(":")[2]})
    command = [sys.executable, "-m", "server"]
    done = subprocess.run(command, cwd=ROOT, env=environment(exposed), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "BRAID_GATEWAY_ADDRESS=0.0.0.0" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
