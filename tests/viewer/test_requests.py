"""Which requests the page's server answers: its own files to its own page, to nobody else anything."""

import http.client
import io
import socket

import pytest

import view
from infonerf.viewer.server import is_own

OWN = ["127.0.0.1:8080", "localhost", "LOCALHOST:9000", "[::1]:8080"]
FOREIGN = ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example:8080", "", " ",
           "127.0.0.1:8080@evil.example", "evil.example/127.0.0.1", "127.0.0.1, evil.example", "192.0.2.1:8080",
           "2130706433", "[::2]:8080", "0.0.0.0:8080", "localhost:80x"]  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_its_own_names(name):
    assert is_own("127.0.0.1", [name], []) and is_own("0.0.0.0", [name], [f"http://{name}"])


@pytest.mark.parametrize("name", FOREIGN)
def test_names_of_others(name):
    """Whatever names lead to this machine: that of another site does not open the door to its page."""
    assert not is_own("127.0.0.1", [name], []) and not is_own("127.0.0.1", [name], [f"http://{name}"])
    assert not is_own("127.0.0.1", ["127.0.0.1:8080"], [f"http://{name}"])


@pytest.mark.parametrize("origin", [
    "null", "http://localhost:3000", "https://evil.example", "http://127.0.0.1", "file://", "chrome-extension://x",
    "http://127.0.0.1:8080.evil.example", "http://127.0.0.1:8080/", "http://a@127.0.0.1:8080", "127.0.0.1:8080", "",
])  # fmt: skip
def test_pages_of_others(origin):
    assert not is_own("127.0.0.1", ["127.0.0.1:8080"], [origin])


def test_the_address_that_was_asked_for():
    assert is_own("192.0.2.1", ["192.0.2.1:8080"], ["http://192.0.2.1:8080"])
    assert is_own("lab.example", ["LAB.example"], [])
    assert not is_own("192.0.2.1", ["192.0.2.2:8080"], [])
    for everywhere in ("0.0.0.0", "::"):
        for name in ("192.0.2.1:8080", "[2001:db8::1]:8080", socket.gethostname()):
            assert is_own(everywhere, [name], [f"https://{name}"])
        assert not is_own(everywhere, ["evil.example:8080"], [])


def test_a_header_that_is_there_twice_or_not_at_all():
    own = "127.0.0.1:8080"
    assert not is_own("127.0.0.1", [], []) and not is_own("127.0.0.1", [own, own], [])
    assert not is_own("127.0.0.1", [own], [f"http://{own}"] * 2)


# With viser: a server that answers.


@pytest.fixture
def page(logdir):
    pytest.importorskip("viser")
    shown = view.open_shown(logdir, view.parse_arguments([str(logdir), "--device", "cpu"]))
    page = view.Page([shown], view.ray_entropy, "127.0.0.1", 18180, 0.1)
    yield page
    page.close()


def answered(page, path="/", host=None, **headers):
    """Status and content of a request, as it is given, byte for byte."""
    port = page.server.get_port()
    lines = [f"GET {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", *(f"{k}: {v}" for k, v in headers.items())]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        data = b""
        while b"\r\n\r\n" not in data or not headers.get("Upgrade"):
            part = connection.recv(2**16)
            if not part:
                break
            data += part
    if not data:
        return None, b""
    answer = http.client.HTTPResponse(type("Socket", (), {"makefile": lambda self, mode: io.BytesIO(data)})())
    answer.begin()
    return answer.status, b"" if headers.get("Upgrade") else answer.read()


def test_the_page_is_served_to_itself_alone(page):
    own = f"127.0.0.1:{page.server.get_port()}"
    socket_of = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
                 "Sec-WebSocket-Version": "13"}  # fmt: skip
    assert answered(page)[0] == 200 and answered(page, Origin=f"http://{own}")[0] == 200
    assert answered(page, Origin=f"http://{own}", **socket_of)[0] == 101
    assert answered(page, Origin="http://evil.example", **socket_of)[0] == 403
    assert answered(page, host="evil.example", Origin="http://evil.example", **socket_of)[0] == 403
    assert answered(page, host="evil.example")[0] == 403 and answered(page, Origin="null")[0] == 403
    assert not page.server.get_clients()


UP = ["..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "..%00", "%c0%ae%c0%ae", "%u002e%u002e", "..;", "....", "\u00ae."]
BETWEEN = ["/", "%2f", "\\", "%5c", "%252f", "//", "/./", "%c0%af"]


def test_no_file_of_the_disk_is_served(page, logdir):
    """Whatever the way out of the page's folder is called; nor one named from the root, or the run's."""
    secret = logdir / "secret.txt"
    secret.write_text("a secret")
    paths = [f"/{between.join([up] * 30)}{between}{str(secret)[1:].replace('/', between)}" for up in UP
             for between in BETWEEN]  # fmt: skip
    paths += [str(secret), f"/{secret}", f"//{secret}", f"file://{secret}", f"/index.html/../..{secret}", "*",
              f"/?path={secret}", f"/assets/..%2f..%2f{secret}", f"/{'a/' * 3000}", "/%", "/%zz", "/\x00", "/..", "/."]
    for path in paths:
        status, content = answered(page, path)
        assert b"a secret" not in content and b"root:" not in content, path
        assert status in (None, 200, 400, 404), (status, path)
        assert status != 200 or content == answered(page, "/")[1], path
    assert answered(page)[0] == 200
