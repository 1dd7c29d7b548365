"""A page that is ill-treated: `python tests/robustness/viewer.py --minutes 10` (Linux, by hand; requirements-view.txt).

A view.py of its own run, and several who send it what no browser would: messages of wrong types, requests that are
none, fifty clients that connect and vanish, a window whose size changes all the time, pages of other sites, and after
half of the time the run is deleted. The process must stand, its memory stay flat, an ordinary browser still get
pictures. A line every ten seconds says where it is; the exit status is 1 where something went wrong.
"""

import argparse
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec
import viser
import zstandard
from viser import _messages
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import run_nerf  # noqa: E402
from support.runs import options  # noqa: E402
from support.scenes import write_blender  # noqa: E402

VANISHING = 50
CAMERA = {"position": (4.0, 0.0, 0.0), "wxyz": (0.5, 0.5, -0.5, -0.5), "fov": 0.8, "near": 0.01, "far": 1000.0,
          "image_height": 90, "image_width": 120, "look_at": (0.0, 0.0, 0.0),
          "up_direction": (0.0, 0.0, 1.0)}  # fmt: skip
ODD = (None, True, -1, 0, 10**18, 1e308, float("nan"), float("inf"), "", "x", "../../etc/passwd", "\x1b[31m", b"\xff",
       [], [1], [1, 2, 3], [float("nan")] * 4, {}, {"value": 1}, "a" * 10_000, [[[]]], -(2**63))  # fmt: skip
TYPES = [kind for kind in vars(_messages).values() if isinstance(kind, type) and hasattr(kind, "redundancy_key")]


class Attack:
    """The server under attack, and what was done to it."""

    def __init__(self, port: int, seed: int):
        self.port, self.rng, self.end = port, random.Random(seed), threading.Event()
        self.counts, self.uuids = Counter(), []

    def open(self, **more):
        return connect(f"ws://127.0.0.1:{self.port}", subprotocols=[f"viser-v{viser.__version__}"], max_size=None,
                       compression=None, proxy=None, open_timeout=60, close_timeout=2, **more)  # fmt: skip

    def until_end(self, act) -> threading.Thread:
        def loop():
            while not self.end.is_set():
                try:
                    act()
                except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError) as error:
                    self.counts[type(error).__name__] += 1
                    time.sleep(0.05)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        return thread

    def message(self) -> bytes:
        """Of a known kind with fields that are odd, or bytes that are none."""
        rng = self.rng
        if rng.random() < 0.1:
            return rng.randbytes(rng.randrange(200))
        kind = rng.choice((*TYPES, *[_messages.ViewerCameraMessage] * 40, *[_messages.GuiUpdateMessage] * 40))
        content = {"type": kind.__name__}
        fields = {name: rng.choice(ODD) for name in getattr(kind, "__annotations__", {})}
        if kind is _messages.ViewerCameraMessage:
            fields = CAMERA | {name: rng.choice(ODD) for name in rng.sample(sorted(CAMERA), rng.choice((0, 1, 2)))}
        if kind is _messages.GuiUpdateMessage and self.uuids:
            updates = {rng.choice(("value", "value", "value", "visible", "disabled", "label", "x")): rng.choice(ODD)}
            fields = {"uuid": rng.choice(self.uuids), "updates": updates}
        for name in [*fields]:
            if "uuid" in name and self.uuids and rng.random() < 0.8:
                fields[name] = rng.choice(self.uuids)
        data = msgspec.msgpack.encode(content | fields)
        if rng.random() < 0.1:
            at = rng.randrange(len(data))
            data = data[:at] + rng.randbytes(rng.randrange(4)) + data[at + 1 :]
        return data

    def malformed(self) -> None:
        with self.open() as client:
            for _ in range(self.rng.randrange(1, 40)):
                client.send(self.message() if self.rng.random() < 0.98 else "text")
                self.counts["malformed messages"] += 1
                time.sleep(0.005)

    def vanish(self) -> None:
        clients = [self.open() for _ in range(VANISHING)]
        for client in clients:
            client.send(msgspec.msgpack.encode({"type": "ViewerCameraMessage", **CAMERA}))
        for client in clients:
            client.socket.shutdown(socket.SHUT_RDWR)
            client.socket.close()
        self.counts["vanished clients"] += len(clients)
        time.sleep(2)

    def resize(self) -> None:
        with self.open() as client:
            threading.Thread(target=lambda: [None for _ in client], daemon=True).start()
            for _ in range(500):
                size = {"image_height": self.rng.randrange(1, 3000), "image_width": self.rng.randrange(1, 3000)}
                client.send(msgspec.msgpack.encode({"type": "ViewerCameraMessage", **CAMERA, **size}))
                self.counts["resized windows"] += 1
                time.sleep(0.02)
                if self.end.is_set():
                    return

    def raw(self) -> None:
        """Requests that are none, or of others."""
        rng = self.rng
        lines = [b"GET / HTTP/1.1", b"GET /../../../../etc/passwd HTTP/1.1", b"POST / HTTP/1.1", b"\xff" * 100, b"",
                 b"GET /%2e%2e%2f HTTP/1.1", b"GET " + b"a" * 20_000 + b" HTTP/1.1", rng.randbytes(50)]  # fmt: skip
        headers = [b"Host: evil.example", f"Host: 127.0.0.1:{self.port}".encode(), b"Upgrade: websocket", b":",
                   b"Origin: null", b"Origin: http://evil.example", b"Content-Length: 99999999999",
                   b"X: " + b"y" * 9000, rng.randbytes(9)]  # fmt: skip
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(b"\r\n".join([rng.choice(lines), *rng.sample(headers, rng.randrange(5)), b"", b""]))
            if rng.random() < 0.7:
                assert b"root:" not in connection.recv(2**16)
        self.counts["odd requests"] += 1
        time.sleep(0.02)

    def learn(self) -> None:
        """The names of the panel's parts, as a browser hears them."""
        with self.open() as client:
            client.send(msgspec.msgpack.encode({"type": "ViewerCameraMessage", **CAMERA}))
            for _ in range(3):
                data = client.recv(timeout=20)
                sizes = [int.from_bytes(data[i : i + 8], "little") for i in (0, 8)]
                text = zstandard.ZstdDecompressor().decompress(data[16 : 16 + sizes[1]], max_output_size=sizes[0])
                found = re.findall(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", text)
                self.uuids = sorted({*self.uuids, *(name.decode() for name in found)})

    def ordinary(self) -> bool:
        """Whether a browser that moves gets pictures."""
        got = 0
        with self.open() as client:
            end = time.time() + 60
            turn = 0.0
            while time.time() < end and got < 2:
                turn += 0.3
                position = (4.0, turn, 0.0)
                client.send(msgspec.msgpack.encode({"type": "ViewerCameraMessage", **CAMERA, "position": position}))
                try:
                    got += b"\xff\xd8\xff" in client.recv(timeout=1)  # a JPEG
                except TimeoutError:
                    continue
        return got >= 2


def resident(process) -> float:
    """Of a process, in MB."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="viewer_"))
    scene = write_blender(folder / "scene", counts=(2, 1, 1))
    assert run_nerf.main(options(scene, folder, "--N_iters", "2", "--i_weights", "1", "--i_testset", "0")) == 0
    command = [sys.executable, str(ROOT / "view.py"), str(folder / "logs/run"), "--port", "18200", "--device", "cpu"]
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
    port, end = None, time.time() + 60
    while port is None and time.time() < end:
        time.sleep(0.2)
        found = re.search(r"http://127.0.0.1:(\d+)", (folder / "said.txt").read_text())
        port = found and int(found[1])
    attack, samples, start = Attack(port, given.seed), [], time.time()
    attack.learn()
    assert attack.ordinary()
    acts = (attack.malformed, attack.vanish, attack.resize, attack.raw, attack.raw)
    threads = [attack.until_end(act) for act in acts]
    deleted = False
    while process.poll() is None and time.time() < start + 60 * given.minutes:
        time.sleep(10)
        samples.append(resident(process))
        print(f"{time.time() - start:5.0f} s  {samples[-1]:7.1f} MB  {dict(attack.counts)}", flush=True)
        if not deleted and time.time() > start + 30 * given.minutes:
            shutil.rmtree(folder / "logs")
            deleted = True
    attack.end.set()
    for thread in threads:
        thread.join(30)
    alive = process.poll() is None
    pictures = alive and attack.ordinary()
    text = (folder / "said.txt").read_text(errors="replace")
    third = max(len(samples) // 3, 1)
    grown = max(samples[-third:]) - max(samples[third : 2 * third] or samples)
    print(f"process stands: {alive}, an ordinary browser gets pictures: {pictures}, memory grew by {grown:.1f} MB in "
          f"the last third, {text.count(chr(10))} lines said, tracebacks: {text.count('Traceback')}")
    process.terminate()
    process.wait(20)
    good = alive and pictures and grown < 20 and "Traceback" not in text
    if good:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
