"""The part of the page on camera paths: click keyframes together, look at the path, save it, render it."""

import re
import threading
from pathlib import Path

import imageio
import numpy as np

from infonerf.system.errors import InputError
from infonerf.system.files import free_path
from infonerf.system.logs import say
from infonerf.viewer.frames import Wish, paint
from infonerf.viewer.page import Page, is_camera, matrix_of, wxyz_of
from infonerf.viewer.paths import (
    CameraPath,
    as_json,
    moved,
    parse_path,
    path_through,
    to_files_world,
    write_path,
)
from infonerf.viewer.server import guarded

FOLDER = "paths"  # in the run's
COLOUR = (60, 160, 60)
MOST_KEYFRAMES = 1000  # that are clicked together
LARGEST_FILE = 50_000_000  # bytes of a path that is loaded


class PathTab:
    """What is clicked together belongs to the page, not to one browser."""

    def __init__(self, page: Page):
        self.page, self.gui, self.scene = page, page.server.gui, page.scene
        self.poses: list[np.ndarray] = []
        self.fovs: list[float] = []  # degrees
        self.drawn: list = []
        self.loaded: CameraPath | None = None  # of a file without keyframes
        self.stop_preview, self.stop_film = threading.Event(), threading.Event()
        with page.tabs.add_tab("Path"):
            self.add_panel()

    def add_panel(self) -> None:
        gui, (height, width) = self.gui, self.scene.size(self.scene.split.train[0])
        buttons = {
            "add a keyframe here": self.add_keyframe,
            "remove the last": lambda event: self.keep(self.poses[:-1], self.fovs[:-1]),
            "remove all": lambda event: self.keep([], []),
        }
        for label, call in buttons.items():
            gui.add_button(label).on_click(guarded(call))
        self.text = gui.add_markdown("no keyframes")
        self.seconds = gui.add_number("seconds", 4.0, min=0.1, max=300.0, step=0.1)
        self.fps = gui.add_number("frames a second", 30, min=1, max=120, step=1)
        self.cycle = gui.add_checkbox("closed", False)
        self.tension = gui.add_slider("tension", 0.0, 1.0, 0.05, 0.0)
        for handle in (self.cycle, self.tension, self.seconds, self.fps):
            handle.on_update(guarded(lambda event: self.draw()))
        self.width = gui.add_number("width", max(width // 2 * 2, 2), min=2, max=8192, step=2)
        self.height = gui.add_number("height", max(height // 2 * 2, 2), min=2, max=8192, step=2)
        self.preview = gui.add_button("preview")
        self.preview.on_click(guarded(self.play))
        self.name = gui.add_text("name", "path")
        gui.add_button("save").on_click(guarded(self.save))
        upload = gui.add_upload_button("load a file", mime_type="application/json")
        upload.on_upload(guarded(self.load))
        self.film = gui.add_button("render a video")
        self.film.on_click(guarded(self.start_film))
        self.cancel = gui.add_button("cancel", visible=False)
        self.cancel.on_click(guarded(lambda event: self.stop_film.set()))
        self.progress = gui.add_progress_bar(0, visible=False)

    # Keyframes.

    def add_keyframe(self, event) -> None:
        if len(self.poses) >= MOST_KEYFRAMES:
            raise InputError(f"the path has {len(self.poses)} keyframes, expected at most so many")
        camera = event.client.camera
        if not is_camera(camera):
            raise InputError("the browser has no camera, expected one")
        pose = np.column_stack([matrix_of(camera.wxyz) @ np.diag([1.0, -1.0, -1.0]), camera.position])
        self.keep([*self.poses, pose], [*self.fovs, float(np.degrees(camera.fov))])

    def keep(self, poses: list, fovs: list) -> None:
        self.poses, self.fovs, self.loaded = list(poses), list(fovs), None
        self.draw()

    def path(self) -> CameraPath:
        """In the scene's world."""
        if self.loaded is not None:
            return self.loaded
        if not self.poses:
            raise InputError("the path has no keyframes, expected one or more")
        size = tuple(int(np.clip(handle.value, 2, 8192)) // 2 * 2 for handle in (self.height, self.width))
        fps, seconds = float(np.clip(self.fps.value, 1, 120)), float(np.clip(self.seconds.value, 0.1, 300))
        tension = float(np.clip(self.tension.value, 0, 1))
        return path_through(np.stack(self.poses), np.array(self.fovs), size, fps, seconds, self.cycle.value, tension)

    def draw(self) -> None:
        """The keyframes and the path into the scene."""
        scene = self.page.server.scene
        for handle in self.drawn:
            handle.remove()
        self.drawn = []
        poses, fovs = (self.poses, self.fovs) if self.loaded is None else (self.loaded.poses[:1], self.loaded.fovs[:1])
        aspect = max(self.width.value, 1) / max(self.height.value, 1)
        for k, (pose, fov) in enumerate(zip(poses, fovs, strict=True)):
            self.drawn.append(scene.add_camera_frustum(
                f"/path/{k}", fov=np.radians(fov), aspect=aspect, scale=0.04 * self.page.reach,
                thickness=0.002 * self.page.reach, color=COLOUR, wxyz=wxyz_of(pose), position=pose[:, 3],
                cast_shadow=False, receive_shadow=False,
            ))  # fmt: skip
        self.text.content = f"{len(poses)} keyframes" if self.loaded is None else f"{len(self.loaded.poses)} frames"
        if len(poses) < 2 and self.loaded is None:
            return
        places = self.path().poses[:, :, 3]
        if len(places) > 1:
            segments = np.stack([places[:-1], places[1:]], axis=1)
            thickness = 0.004 * self.page.reach
            self.drawn.append(scene.add_line_segments("/path/line", segments, COLOUR, thickness=thickness))

    def play(self, event) -> None:
        """Take the browser along the path; a second click stops it."""
        if self.preview.label == "stop":
            self.stop_preview.set()
            return
        path, client = self.path(), event.client
        self.stop_preview.clear()
        self.preview.label = "stop"
        try:
            for pose, fov in zip(path.poses, path.fovs, strict=True):
                if self.stop_preview.wait(1 / path.fps) or client.client_id not in self.page.server.get_clients():
                    break
                self.page.stand_at(client, pose, float(np.radians(fov)))
        finally:
            self.preview.label = "preview"

    # Files.

    def place(self, ending: str) -> Path:
        """A name in the run's folder that is not taken. Raises InputError where the run is gone."""
        name, folder = self.name.value.strip(), self.page.runs[0].folder
        if not re.fullmatch(r"[\w-]{1,100}", name):
            raise InputError(f"name {name[:100]!r}: expected letters, digits, - and _")
        if not folder.is_dir():
            raise InputError(f"{folder}: the run was moved or deleted, expected it there")
        (folder / FOLDER).mkdir(exist_ok=True)
        path = folder / FOLDER / f"{name}{ending}"
        return free_path(path) if path.exists() else path

    def save(self, event) -> None:
        path = to_files_world(self.path(), self.scene.world)
        place = self.place(".json")
        write_path(place, path)
        self.told(event, f"saved {place}")
        event.client.send_file_download(place.name, as_json(path).encode())

    def load(self, event) -> None:
        file = event.target.value
        if len(file.content) > LARGEST_FILE:
            raise InputError(f"{file.name}: {len(file.content)} bytes, expected a camera path")
        path = moved(parse_path(file.content.decode(errors="replace"), file.name), self.scene.world)
        (self.height.value, self.width.value), self.fps.value = path.size, max(round(path.fps), 1)
        self.seconds.value, self.cycle.value, self.tension.value = float(path.seconds), path.cycle, path.tension
        self.keep(list(path.keyframes), [float(fov) for fov in path.keyframe_fovs])
        if not len(path.keyframes):
            self.loaded = path
            self.draw()

    def told(self, event, text: str) -> None:
        say(f"viewer: {text}")
        if event.client is not None:
            event.client.add_notification("Path", text)

    # A video.

    def start_film(self, event) -> None:
        if self.film.disabled:
            raise InputError("a video is being rendered, expected one at a time")
        path, place = self.path(), self.place(f"_{self.page.runs[0].step:06d}.mp4")
        self.stop_film.clear()
        self.film.disabled, self.cancel.visible, self.progress.visible = True, True, True
        self.page.painter.job(self.rendered(path, place, event))

    def rendered(self, path: CameraPath, place: Path, event):
        """A job: the video of a path, as the page shows it now; a file that is whole, or none."""
        page, half = self.page, place.with_name(f"{place.stem}.part.mp4")
        even = tuple(max(side // 2 * 2, 2) for side in path.size)
        try:
            with imageio.get_writer(half, fps=path.fps, quality=8, macro_block_size=2) as writer:
                for k, (pose, fov) in enumerate(zip(path.poses, path.fovs, strict=True)):
                    wish = page.cut(Wish(pose, float(np.radians(fov)), even))
                    sources = page.painter.sources()
                    picture = yield from paint(sources, wish, even, page.painter.pace, page.painter.entropy)
                    writer.append_data(page.coloured(wish, picture))
                    self.progress.value = 100 * (k + 1) / len(path.poses)
                    if self.stop_film.is_set():
                        return
            half.rename(place)
            self.told(event, f"{len(path.poses)} frames in {place}")
        finally:
            half.unlink(missing_ok=True)
            self.film.disabled, self.cancel.visible, self.progress.visible = False, False, False
