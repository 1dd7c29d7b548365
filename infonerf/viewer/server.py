"""The server of a page (viser): where it listens, and what it lets through."""

import contextlib
import errno
import io
import logging
import socket
from collections.abc import Callable

from infonerf.system.errors import InputError
from infonerf.system.logs import say

HERE = "127.0.0.1"
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
        logging.getLogger(name).addFilter(OneLine())
    with contextlib.redirect_stdout(io.StringIO()):  # a panel of its own
        server = viser.ViserServer(host=host, port=port, label=title, verbose=False)
    server.request_share_url = lambda verbose=True: None  # a tunnel to the internet, which any page may ask for
    if host not in (HERE, "localhost", "::1"):
        say(f"WARNING: listening on {host}, not on {HERE}: everyone who reaches port {server.get_port()} here "
            "sees the pictures, goes through the run, and has videos rendered here")
    return server


class OneLine(logging.Filter):
    """A traceback of what a browser's message did becomes a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            say(f"viewer: a browser's message was left out ({type(error).__name__}: {error})")
        return False


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
