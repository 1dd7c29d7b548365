"""The server of a page (viser): where it listens, and what it lets through."""

import contextlib
import errno
import http
import io
import ipaddress
import logging
import re
import socket
from collections.abc import Callable
from functools import partial

from infonerf.system.arguments import LARGEST
from infonerf.system.errors import InputError
from infonerf.system.logs import say

HERE = "127.0.0.1"
LOOPBACK = (HERE, "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::", "")
LONGEST_TEXT = 1000  # that a browser may put into the panel
TRIED = 100  # ports after the one that is asked for


def require_viser():
    """The package, or an InputError that says how to install it."""
    try:
        import viser

        return viser
    except ImportError as error:
        raise InputError(f"the viewer needs viser ({error}): pip install -r requirements-view.txt") from error


def free_port(host: str, port: int) -> int:
    """The first port from `port` on that nobody listens on; another one is said."""
    for candidate in range(port, min(port + TRIED, 65536)):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as attempt:
                attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                attempt.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            option = "port" if error.errno in (errno.EACCES, errno.EPERM) else "host"
            given = port if option == "port" else host
            raise InputError(f"--{option} {given}: cannot be listened on ({error.strerror or error}), expected "
                             f"{'one above 1023' if option == 'port' else 'an address of this machine'}") from error
        if candidate != port:
            say(f"port {port} is in use: taking {candidate}")
        return candidate
    raise InputError(f"--port {port}: found no free port from there to {min(port + TRIED, 65536) - 1}, expected one")


def start_server(host: str, port: int, title: str):
    """A server that listens, and says where. Nothing that a browser sends ends the process."""
    viser = require_viser()
    port = free_port(host, port)
    for name in ("websockets.server", "asyncio"):
        logging.getLogger(name).addFilter(ONE_LINE)
    with own_requests_only(host), contextlib.redirect_stdout(io.StringIO()):  # a panel of its own
        server = viser.ViserServer(host=host, port=port, label=title, verbose=False)
    hear_less(server)
    if host not in LOOPBACK:
        say(f"WARNING: listening on {host}, not on {HERE}: everyone who reaches port {server.get_port()} here "
            "sees the pictures, goes through the run, and has videos rendered here")
    return server


# Requests.


@contextlib.contextmanager
def own_requests_only(host: str):
    """Servers of websockets that are started meanwhile (viser's) refuse every request, for a file or a socket, that is
    not for this server or comes from another page: a page of the internet that somebody looks at has no part here."""
    from websockets.asyncio import server as websockets

    serve, served = websockets.serve, []

    def guarded_serve(*arguments, process_request: Callable, **options):
        served.append(host)
        return serve(*arguments, process_request=partial(answer, host, process_request), **options)

    websockets.serve = guarded_serve
    try:
        yield
    finally:
        websockets.serve = serve
    if not served:
        raise InputError("the viewer needs viser of the version in requirements-view.txt, found another one")


def answer(host: str, process_request: Callable, connection, request):
    """What a request is answered with before it is answered: None for one that opens a socket."""
    names, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
    if not is_own(host, names, origins):
        return connection.respond(http.HTTPStatus.FORBIDDEN, "of another host or page\n")
    try:
        return process_request(connection, request)
    except (OSError, ValueError):  # a path that the system does not know what to do with
        return connection.respond(http.HTTPStatus.NOT_FOUND, "not found\n")


def is_own(host: str, names: list[str], origins: list[str]) -> bool:
    """Whether a request names this server (its header Host, without or with any port, as through a tunnel), and
    whether the page that sends it, if one does (Origin), is this server's, of that name and port.

    host: the address that the server was told to listen on. Where that is all of this machine's, any address in numbers
    is one of it: only names can be made to lead here by others."""
    given = re.fullmatch(r"\[([0-9a-f:.]+)\](:\d+)?|([\w.-]+)(:\d+)?", names[0].lower()) if len(names) == 1 else None
    if not given or len(origins) > 1:
        return False
    if origins and origins[0].lower() not in (f"http://{names[0].lower()}", f"https://{names[0].lower()}"):
        return False
    name, own = given[1] or given[3], {*LOOPBACK, host.lower().strip("[]")}
    return name in own or (host in EVERYWHERE and (is_address(name) or name == socket.gethostname().lower()))


def is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


# Messages on a socket.


def hear_less(server) -> None:
    """Of what a browser may send, leave out what this page has no use for (a tunnel to the internet, for one, and what
    is passed on to all others), and values of its panel that are none: these would stay with everyone who looks."""
    from viser import _messages as messages

    interface, take = server._websock_server, server.gui._handle_gui_updates

    async def checked(client, message) -> None:
        handle = server.gui._gui_input_handle_from_uuid.get(message.uuid) if isinstance(message.uuid, str) else None
        if handle is not None and is_update(handle.value, message.updates):
            await take(client, message)

    for unused in (messages.ShareUrlRequest, messages.ShareUrlDisconnect, messages.GuiFormSubmitMessage,
                   messages.GuiFormDirtyMessage, messages.GuiButtonHoldMessage, messages.CommandTriggerMessage,
                   messages.GuiUpdateMessage):  # fmt: skip
        interface.unregister_handler(unused)
    interface.register_handler(messages.GuiUpdateMessage, checked)


def is_update(old, updates) -> bool:
    """Whether an update is that of a value alone, of the kind of the one that a part of the panel has."""
    if not isinstance(updates, dict) or updates.keys() != {"value"}:
        return False
    new = updates["value"]
    if isinstance(old, (bool, str)):
        return type(new) is type(old) and (isinstance(new, bool) or len(new) <= LONGEST_TEXT)
    if isinstance(old, tuple):
        return isinstance(new, (list, tuple)) and len(new) == len(old) and all(map(is_number, new))
    return isinstance(old, (int, float)) and is_number(new)


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


class OneLine(logging.Filter):
    """Instead of a traceback of what a browser's message did, a line, the first time that one does so. That a browser
    went away without a word is none."""

    def __init__(self):
        super().__init__()
        self.said: set[type] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and type(error) not in self.said and "ConnectionClosed" not in type(error).__name__:
            self.said.add(type(error))
            say(f"viewer: a browser's message was left out ({type(error).__name__}: {str(error)[:200]}), as will be "
                "others like it")
        return False


ONE_LINE = OneLine()


def guarded(what: Callable) -> Callable:
    """A callback of the page whose errors are a line."""

    def call(event):
        try:
            what(event)
        except Exception as error:
            say(f"viewer: {error if isinstance(error, InputError) else repr(error)}")
            client = getattr(event, "client", None)
            if client is not None:
                client.add_notification("That did not work", str(error), color="red")

    return call
