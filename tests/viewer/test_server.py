"""Where the page listens, and what it does with what a browser sends."""

import builtins
import socket
import threading
import time

import numpy as np
import pytest

import run_nerf
import view
from infonerf.viewer import looks, path_tab
from infonerf.viewer.frames import Wish
from infonerf.viewer.server import free_port, is_update, require_viser
from support.runs import options
from support.scenes import refused


@pytest.fixture
def taken():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_port_in_use_makes_way_for_the_next(taken, capsys):
    port = free_port("127.0.0.1", taken)
    assert port > taken and f"port {taken} is in use: taking {port}" in capsys.readouterr().out


def test_an_address_of_another_machine():
    with refused("--host 192.0.2.1: cannot be listened on"):
        free_port("192.0.2.1", 8080)


def test_without_viser(monkeypatch):
    importing = builtins.__import__

    def missing(name, *more):
        if name == "viser":
            raise ImportError("No module named 'viser'")
        return importing(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with refused("the viewer needs viser .*pip install -r requirements-view.txt"):
        require_viser()


@pytest.mark.parametrize("argv, message", [
    (["nowhere"], "nowhere"),
    ([], "logdir"),
    (["a", "b", "c"], "found 3 runs"),
    (["a", "--port", "70000"], "port"),
])  # fmt: skip
def test_bad_input_is_one_line(monkeypatch, capsys, argv, message):
    monkeypatch.setattr(view, "require_viser", lambda: None)
    assert view.main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_a_run_without_a_checkpoint(monkeypatch, capsys, logdir):
    monkeypatch.setattr(view, "require_viser", lambda: None)
    for file in logdir.glob("*.tar"):
        file.unlink()
    assert view.main([str(logdir)]) == 2
    assert "no checkpoint" in capsys.readouterr().err


# With viser: a page of a run, and a client that speaks its protocol.


@pytest.fixture
def page(logdir):
    pytest.importorskip("viser")
    shown = view.open_shown(logdir, view.parse_arguments([str(logdir), "--device", "cpu"]))
    page = view.Page([shown], view.ray_entropy, "127.0.0.1", 18080, 0.1)
    page.tab = view.PathTab(page)
    yield page
    page.close()


class Browser:
    """What a browser would send, and what it gets."""

    def __init__(self, page):
        import msgspec
        import viser
        from websockets.sync.client import connect

        self.encode = msgspec.msgpack.encode
        protocol = f"viser-v{viser.__version__}"
        address = page.address.replace("http", "ws")
        self.socket = connect(address, subprotocols=[protocol], max_size=None, compression=None, proxy=None)
        self.got = 0
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self):
        try:
            for message in self.socket:
                self.got += len(message)
        except Exception:  # closed
            pass

    def send(self, **message):
        self.socket.send(self.encode(message))

    def camera(self, position=(4.0, 0.0, 0.0), wxyz=(0.5, 0.5, -0.5, -0.5), **more):
        given = {"fov": 0.8, "near": 0.01, "far": 1000.0, "image_height": 48, "image_width": 64,
                 "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 0.0, 1.0)}  # fmt: skip
        self.send(type="ViewerCameraMessage", position=position, wxyz=wxyz, **given | more)


def until(what, page=None, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if page:
            page.painter.work(0.05)
        if what():
            return True
        time.sleep(0.01)
    return False


def test_a_browser_that_moves_gets_pictures(page):
    browser = Browser(page)
    browser.camera()
    assert until(lambda: page.pictures and list(page.pictures.values())[-1][2], page)
    (wish, picture, _), = page.pictures.values()
    assert picture.acc.shape == wish.size == (64, 85)
    np.testing.assert_allclose(wish.pose[:, 3], [4, 0, 0])
    browser.camera(position=(0.0, 4.0, 0.0))
    assert until(lambda: list(page.pictures.values())[-1][0].pose[1, 3] == 4, page)
    page.look.value = "entropy"
    page.change_look(None)
    browser.socket.close()
    assert until(lambda: not page.painter.eyes and not page.pictures)


def test_bad_messages_leave_it_running(page):
    bad = Browser(page)
    bad.camera(position=(float("nan"), 0.0, 0.0))
    bad.camera(wxyz=(0.0, 0.0, 0.0, 0.0))
    bad.camera(image_height=10**9, image_width=1)
    bad.camera(fov=-3.0)
    bad.send(type="GuiUpdateMessage", uuid=page.look._impl.uuid, updates={"value": "nothing"})
    bad.send(type="GuiUpdateMessage", uuid=page.height._impl.uuid, updates={"value": 1e9})
    bad.send(type="GuiUpdateMessage", uuid=page.fov._impl.uuid, updates={"value": "x"})
    bad.send(type="ShareUrlRequest")
    bad.send(type="NoSuchMessage")
    other = Browser(page)
    other.socket.send("text")
    third = Browser(page)
    third.socket.send(b"\xff\x00garbage")
    last = Browser(page)
    last.camera()
    assert until(lambda: any(wish.size[1] > 1 and last for wish, _, last in page.pictures.values()), page)


@pytest.mark.parametrize("old, good, bad", [
    (0.5, [1, 0.25, -3.0], [float("nan"), float("inf"), 1e30, 10**400, "1", True, None, [1.0], {}, b"1"]),
    (3, [4, 2.0], ["4", None, [4]]),
    ("depth", ["error", ""], [1, None, "x" * 2000, ["error"], b"error"]),
    (False, [True], [1, "True", None, 0.0]),
    ((0.0, 1.0), [[0, 2.0], (1, 1)], [[], [1], [1, 2, 3], ["0", "1"], [float("nan"), 1], 1, None, "01", {0: 1, 1: 2}]),
    (object(), [], [b"", 1, "x"]),
], ids=lambda value: str(value)[:20])  # fmt: skip
def test_values_of_the_panel_stay_of_their_kind(old, good, bad):
    assert all(is_update(old, {"value": new}) for new in good)
    assert not any(is_update(old, {"value": new}) for new in bad)
    assert not any(is_update(old, updates) for updates in (None, [], {}, {"update_cb": []}, {"value": 1, "removed": 1}))


def test_what_one_browser_spoils_is_not_spoilt_for_others(page, capsys):
    bad = Browser(page)
    bad.camera()
    nan = float("nan")
    for handle, value in ((page.depths, []), (page.box[0], [nan, nan]), (page.fov, nan), (page.look, 7),
                          (page.go, "x" * 10**6), (page.height, "inf")):  # fmt: skip
        bad.send(type="GuiUpdateMessage", uuid=handle._impl.uuid, updates={"value": value})
    bad.send(type="GuiUpdateMessage", uuid=page.look._impl.uuid, updates={"update_cb": ["x"], "removed": True})
    bad.send(type="GuiUpdateMessage", uuid=["x"], updates={"value": 1})
    bad.send(type="GuiFormDirtyMessage", uuid="x" * 10**6, dirty=True)
    for odd in ({"position": ()}, {"position": [[1], 2, 3]}, {"fov": "x"}, {"wxyz": None}, {"image_width": 10**18}):
        bad.camera(**odd)
    kept = {"near": page.depths.value, "x": page.box[0].value, "fov": page.fov.value}
    good = Browser(page)
    good.camera(position=(0.0, 4.0, 0.0))
    assert until(lambda: any(wish.pose[1, 3] == 4 and last for wish, _, last in page.pictures.values()), page)
    page.wish_all()
    assert kept == {"near": page.depths.value, "x": page.box[0].value, "fov": page.fov.value}
    assert page.look.value == "colour" and capsys.readouterr().out.count("\n") < 9


def test_one_video_at_a_time_and_no_more_keyframes_than_a_path_has(page, monkeypatch):
    browser = Browser(page)
    browser.camera()
    assert until(lambda: page.server.get_clients())
    event = type("Event", (), {"client": next(iter(page.server.get_clients().values()))})()
    monkeypatch.setattr(path_tab, "MOST_KEYFRAMES", 1)
    page.tab.add_keyframe(event)
    with refused("has 1 keyframes"):
        page.tab.add_keyframe(event)
    page.tab.start_film(event)
    with refused("a video is being rendered"):
        page.tab.start_film(event)


def test_a_path_is_clicked_together_saved_loaded_and_rendered(page, logdir):
    browser = Browser(page)
    browser.camera()
    assert until(lambda: page.server.get_clients())
    client, = page.server.get_clients().values()
    event = type("Event", (), {"client": client})()
    tab = page.tab
    tab.add_keyframe(event)
    browser.camera(position=(0.0, 4.0, 0.0), wxyz=(0.0, 0.0, -0.7071, -0.7071))
    assert until(lambda: client.camera.position[1] == 4)
    tab.add_keyframe(event)
    tab.seconds.value, tab.fps.value, tab.width.value, tab.height.value = 0.2, 10, 16, 12
    tab.save(event)
    tab.save(event)
    folder = logdir / "paths"
    assert sorted(file.name for file in folder.iterdir()) == ["path.json", "path_1.json"]
    tab.keep([], [])
    content = (folder / "path.json").read_bytes()
    file = type("File", (), {"name": "path.json", "content": content})()
    tab.load(type("Event", (), {"client": client, "target": type("Target", (), {"value": file})()})())
    assert len(tab.poses) == 2 and tab.path().poses.shape == (2, 3, 4)
    tab.start_film(event)
    assert until(lambda: (folder / "path_000002.mp4").is_file(), page)
    assert not list(folder.glob("*.part.mp4"))
    tab.name.value = "../../x"
    with refused("expected letters, digits"):
        tab.save(event)


def test_depths_follow_an_eye_that_goes_away(page):
    scene, turn = page.scene, page.scene.poses[0]
    assert page.cut(view_from(turn)).near is None

    def at(distance):
        pose = turn.copy()
        pose[:, 3] = page.middle - distance * (page.middle - turn[:, 3]) / np.linalg.norm(page.middle - turn[:, 3])
        return page.cut(view_from(pose))

    far_away = at(page.distances[1] + 10)
    assert far_away.near == pytest.approx(scene.near + 10) and far_away.far == pytest.approx(scene.far + 10)
    assert 0 <= at(0.01).near < at(0.01).far
    page.depths.value = (0.5 * scene.near, 0.5 * (scene.near + scene.far))
    assert page.cut(view_from(turn)).far == pytest.approx(0.5 * (scene.near + scene.far))


def view_from(pose):
    return Wish(pose, 0.7, (10, 10))


def test_a_click_on_a_camera_goes_there(page):
    browser = Browser(page)
    browser.camera()
    assert until(lambda: page.server.get_clients())
    client, = page.server.get_clients().values()
    view_, = page.scene.split.train[:1]
    browser.send(type="SceneNodeClickMessage", name=f"/cameras/training/{view_}", instance_index=None,
                 ray_origin=(0, 0, 0), ray_direction=(0, 0, 1), screen_pos=(0, 0), modifier=None)  # fmt: skip
    assert until(lambda: np.allclose(client.camera.position, page.scene.poses[view_, :, 3]))
    assert until(lambda: page.stood_in == {client.client_id: view_})
    assert not page.frusta["training"][view_].visible
    page.look.value = "error"
    assert until(lambda: page.pictures and list(page.pictures.values())[-1][2], page)
    wish, picture, _ = page.pictures[client.client_id]
    assert (page.coloured(wish, picture, view_) == looks.OUTSIDE).all(-1).any()


def test_a_training_with_its_page(blender, tmp_path, capsys):
    pytest.importorskip("viser")
    assert run_nerf.main(options(blender, tmp_path, "--N_iters", "3", "--view")) == 0
    assert "view      http://127.0.0.1:" in capsys.readouterr().out


def test_checkpoints_and_a_run_that_is_deleted(page, logdir, capsys):
    run, slider, text = page.checkpoints[0]
    assert page.steps[run.folder] == [1, 2] and run.step == 2
    slider.value = 0
    page.painter.work(20)
    assert run.step == 1 and "step 1" in text.content
    for file in logdir.glob("*"):
        if file.is_file():
            file.unlink()
    slider.value = 1
    page.painter.work(20)
    assert run.step == 1 and "000002" in capsys.readouterr().out
    logdir.rename(logdir.with_name("moved"))
    page.look_after()
    page.look_after()
    assert capsys.readouterr().out.count("moved or deleted") == 1
    with refused("moved or deleted"):
        page.tab.place(".json")


def test_listening_everywhere_is_said(logdir, capsys):
    pytest.importorskip("viser")
    shown = view.open_shown(logdir, view.parse_arguments([str(logdir), "--device", "cpu"]))
    view.Page([shown], view.ray_entropy, "0.0.0.0", 18080, 0.1).close()
    assert "WARNING: listening on 0.0.0.0" in capsys.readouterr().out
