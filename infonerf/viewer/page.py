"""The page: a scene to walk around in, what is drawn into it, and the panel beside it.

Callbacks of the server only note what is wished; all that renders runs in the thread that paints (Painter).
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from infonerf.rendering.occupancy import CELLS, EMPTY, Occupancy
from infonerf.rendering.renderer import Renderer
from infonerf.scene.poses import common_point
from infonerf.scene.scene import Scene, bounds_of
from infonerf.system.arguments import LARGEST
from infonerf.system.errors import InputError
from infonerf.system.logs import say
from infonerf.training import checkpoint
from infonerf.viewer import looks
from infonerf.viewer.frames import Picture, Source, Wish
from infonerf.viewer.painter import Painter
from infonerf.viewer.server import guarded, start_server

TRAIN, TEST, UNSEEN = "training", "test", "unseen"
COLOURS = {TRAIN: (235, 125, 30), TEST: (40, 120, 220), UNSEEN: (130, 130, 130)}
MOST_CAMERAS = 100  # of a kind that are drawn, evenly chosen
THUMBNAIL = 128  # pixels across
HEIGHT, LEAST_HEIGHT, MOST_HEIGHT = 400, 64, 1080  # of the sharpest picture
DEEPEST = 160.0  # the page's own limit of a depth that hides what is behind; beyond an eighth nothing is hidden
CV = np.diag([1.0, -1.0, -1.0])  # from OpenGL axes to the page's, and back
LEGENDS = {
    looks.COLOUR: "what a camera would see",
    looks.DEPTH: "z-depth, bright is near, from near to far of the scene",
    looks.OPACITY: "accumulated opacity, white is opaque",
    looks.ENTROPY: "ray entropy in bits: dark, opacity gathers in one place; bright, it is spread like fog; yellow is "
    "log2 of the samples of a ray",
    looks.ERROR: f"difference from the photograph while standing in its camera (click on one): dark 0, yellow "
    f"{looks.MOST_ERROR:g} or more; grey: no photograph there",
}


@dataclass
class Shown:
    """A run on a page. source: what it is rendered with now. load: a step of a checkpoint -> its renderer; None while
    it trains, when the newest weights are shown."""

    name: str
    folder: Path
    scene: Scene
    source: Callable[[], Source]
    step: int
    load: Callable[[int], Renderer] | None = None

    @classmethod
    def of_renderer(cls, name: str, folder: Path, scene: Scene, renderer: Renderer, step: int, load) -> "Shown":
        shown = cls(name, folder, scene, lambda: None, step, load)
        shown.use(renderer, step)
        return shown

    def use(self, renderer: Renderer, step: int) -> None:
        self.source, self.step = (lambda: Source(renderer, self.scene.cameras)), step


class Page:
    """One or two runs of one scene on a server that listens at a host and a port.

    entropy: alpha r s -> r. first: seconds of the rays of a first picture."""

    def __init__(self, runs: Sequence[Shown], entropy: Callable, host: str, port: int, first: float):
        self.runs, self.scene = list(runs), runs[0].scene
        self.painter = Painter(lambda: [run.source() for run in self.runs], entropy, self.show, self.complain, first)
        self.reach, self.middle = reach_and_middle(self.scene)
        away = np.linalg.norm(self.scene.poses[:, :, 3] - self.middle, axis=-1)
        self.distances = 0.99 * away.min(), 1.01 * away.max()
        self.pictures: dict[int, tuple[Wish, Picture, bool]] = {}  # the last one of each browser
        self.stood_in: dict[int, int] = {}  # the view in whose camera a browser stands
        self.photographs: dict[int, np.ndarray] = {}  # of views that were stood in
        self.cells = None  # those of the occupancy grid, where they are drawn
        self.missing: set[Path] = set()  # folders that are gone, which was said
        self.steps = {run.folder: self.saved_steps(run) for run in self.runs}
        self.server = start_server(host, port, " | ".join(run.name for run in self.runs))
        self.server.gui.configure_theme(show_logo=False, show_share_button=False, dark_mode=False)
        self.place_first_camera()
        self.tabs = self.server.gui.add_tab_group()
        with self.tabs.add_tab("View"):
            self.add_view_tab()
        self.frusta = self.add_cameras()
        self.server.on_client_connect(guarded(self.arrived))
        self.server.on_client_disconnect(guarded(self.left))
        self.painter.job(self.thumbnails())

    @property
    def address(self) -> str:
        host = self.server.get_host()
        return f"http://{'localhost' if host == '0.0.0.0' else host}:{self.server.get_port()}"

    def complain(self, error: Exception) -> None:
        say(f"viewer: {error if isinstance(error, InputError) else repr(error)}")
        self.note.content = f"**{error}**"

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it says that it stops
            self.server.stop()

    # The panel.

    def add_view_tab(self) -> None:
        gui, scene = self.server.gui, self.scene
        self.look = gui.add_dropdown("show", looks.LOOKS, initial_value=looks.COLOUR)
        self.legend = gui.add_markdown(LEGENDS[looks.COLOUR])
        self.note = gui.add_markdown("")
        self.share = gui.add_slider("left | right", 0.0, 1.0, 0.01, 0.5, visible=len(self.runs) > 1)
        if len(self.runs) > 1:
            gui.add_markdown(f"left {self.runs[0].name}, right {self.runs[1].name}")
        self.checkpoints = [self.add_checkpoints(run) for run in self.runs if run.load]
        first = scene.split.train[0]
        fov = float(np.degrees(vertical_fov(scene, first)))
        self.fov = gui.add_slider("field of view", 5.0, 120.0, 0.5, round(min(max(fov, 5.0), 120.0) * 2) / 2)
        views = dict.fromkeys((*scene.split.train, *scene.split.test, *scene.split.unmeasured))
        names = [scene.view_names[view] for view in views]
        self.go = gui.add_dropdown("stand in", ["-", *names], initial_value="-")
        self.height = gui.add_slider("height, pixels", LEAST_HEIGHT, MOST_HEIGHT, 8, HEIGHT)
        self.add_cuts()
        self.add_drawn()
        for handle in (self.share, self.height, self.depths, *self.box):
            handle.on_update(guarded(lambda event: self.wish_all()))
        self.look.on_update(guarded(self.change_look))
        self.fov.on_update(guarded(self.change_fov))
        self.go.on_update(guarded(lambda event: self.stand_in(event.client, self.view_named(self.go.value))))

    def add_checkpoints(self, run: Shown):
        """A slider over the run's checkpoints, and what it says."""
        gui, steps = self.server.gui, self.steps[run.folder]
        at = steps.index(run.step) if run.step in steps else len(steps) - 1
        slider = gui.add_slider("checkpoint", 0, max(len(steps) - 1, 1), 1, max(at, 0), visible=len(steps) > 1)
        text = gui.add_markdown("")
        slider.on_update(guarded(lambda event: self.painter.job(self.change_checkpoint(run, slider, text))))
        text.content = f"{run.name}: step {run.step}"
        return run, slider, text

    def add_cuts(self) -> None:
        gui, scene, self.box = self.server.gui, self.scene, []
        with gui.add_folder("cut", expand_by_default=False):
            most = scene.far if scene.cameras.ndc else 1.5 * scene.far
            step = (most / 200) or 0.01
            self.depths = gui.add_multi_slider("near, far", 0.0, float(most), float(step),
                                               (float(scene.near), float(scene.far)))  # fmt: skip
            if scene.cameras.ndc:
                gui.add_markdown("scene in NDC: near and far run from 0 to 1, infinity; no box")
                return
            for axis, low, high in zip("xyz", *bounds_of(scene), strict=True):
                span = float(low), float(high)
                self.box.append(gui.add_multi_slider(axis, *span, (span[1] - span[0]) / 200, span))

    def add_drawn(self) -> None:
        gui = self.server.gui
        with gui.add_folder("draw"):
            self.visible = {kind: gui.add_checkbox(f"{kind} cameras", kind != UNSEEN) for kind in COLOURS}
            for handle in self.visible.values():
                handle.on_update(guarded(lambda event: self.show_frusta()))
            if not self.scene.cameras.ndc:
                bounds, cells = gui.add_checkbox("bounds", False), gui.add_checkbox("occupied cells", False)
                bounds.on_update(guarded(lambda event: self.draw_bounds(bounds.value)))
                cells.on_update(guarded(lambda event: self.painter.job(self.draw_cells(cells))))
            dark = gui.add_checkbox("dark panel", False)
            dark.on_update(guarded(lambda event: gui.configure_theme(
                show_logo=False, show_share_button=False, dark_mode=dark.value)))  # fmt: skip

    def change_look(self, event) -> None:
        self.legend.content = LEGENDS[self.chosen_look()]
        for who in list(self.pictures):
            self.send(who)

    def chosen_look(self) -> str:
        return self.look.value if self.look.value in looks.LOOKS else looks.COLOUR

    def change_fov(self, event) -> None:
        for client in self.server.get_clients().values():
            client.camera.fov = float(np.radians(np.clip(self.fov.value, 1, 170)))
        self.wish_all()

    def change_checkpoint(self, run: Shown, slider, text):
        """A job: show another checkpoint."""
        steps = self.steps[run.folder]
        step = steps[min(max(int(slider.value), 0), len(steps) - 1)]
        if step != run.step:
            run.use(run.load(step), step)
            text.content, self.note.content = f"{run.name}: step {step}", ""
            self.painter.renew()
        yield

    # Cameras.

    def place_first_camera(self) -> None:
        scene, first = self.scene, self.scene.split.train[0]
        pose = scene.poses[first]
        up = scene.poses[:, :, 1].mean(0)
        if np.linalg.norm(up) < 1e-3:
            up = pose[:, 1]
        axis = np.argmax(np.abs(up))
        if abs(up[axis]) > 0.9 * np.linalg.norm(up):
            up = np.sign(up[axis]) * np.eye(3)[axis]
        self.server.scene.set_up_direction(tuple(up / np.linalg.norm(up)))
        camera = self.server.initial_camera
        camera.position, camera.look_at = tuple(pose[:, 3]), tuple(self.looked_at(pose))
        camera.fov = vertical_fov(scene, first)
        camera.near, camera.far = self.reach / 1000, self.reach * 100

    def looked_at(self, pose: np.ndarray) -> np.ndarray:
        """The point on a camera's axis (3 4) beside the scene's middle."""
        forward = -pose[:, 2] / np.linalg.norm(pose[:, 2])
        return pose[:, 3] + forward * max(float((self.middle - pose[:, 3]) @ forward), 0.1 * self.reach)

    def add_cameras(self) -> dict[str, dict[int, object]]:
        """Kind -> view -> frustum; -1, -2 ... for poses of no view."""
        split, scene, found = self.scene.split, self.scene, {}
        taken: set[int] = set()
        for kind, views in ((TRAIN, split.train), (TEST, split.test + split.unmeasured), (UNSEEN, split.unseen)):
            chosen = evenly([view for view in views if view not in taken])
            taken |= set(views)
            found[kind] = {view: self.add_frustum(kind, view, scene.poses[view]) for view in chosen}
        if scene.made_poses is not None:
            made = enumerate(evenly(list(scene.made_poses)))
            found[UNSEEN] = {-1 - k: self.add_frustum(UNSEEN, -1 - k, pose) for k, pose in made}
        return found

    def add_frustum(self, kind: str, view: int, pose: np.ndarray):
        like = view if view >= 0 else self.scene.split.train[0]
        height, width = self.scene.size(like)
        handle = self.server.scene.add_camera_frustum(
            f"/cameras/{kind}/{view if view >= 0 else f'made_{-view}'}",
            fov=vertical_fov(self.scene, like), aspect=width / height, scale=0.04 * self.reach,
            thickness=0.001 * self.reach, color=COLOURS[kind], wxyz=wxyz_of(pose), position=pose[:, 3],
            visible=kind != UNSEEN, cast_shadow=False, receive_shadow=False,
        )  # fmt: skip
        handle.on_click(guarded(lambda event: self.stand_at(event.client, pose, vertical_fov(self.scene, like))))
        return handle

    def thumbnails(self):
        """A job: photographs on the frusta, one at a time."""
        for kind in COLOURS:
            for view, handle in self.frusta[kind].items():
                if view < 0 or view in self.scene.split.unmeasured:  # no photograph
                    continue
                try:
                    image = self.scene.photographs.image(view)
                except (InputError, OSError) as error:
                    self.complain(error)
                    continue
                scale = min(1.0, THUMBNAIL / max(image.shape[:2]))
                small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                handle.image = looks.eight_bit(small)
                yield

    def show_frusta(self) -> None:
        """Those that are wished, but none that a browser stands in: its photograph would be all that is seen."""
        occupied = set(self.stood_in.values())
        for kind, handles in self.frusta.items():
            for view, handle in handles.items():
                visible = self.visible[kind].value and view not in occupied
                if handle.visible != visible:
                    handle.visible = visible

    def view_named(self, name: str) -> int | None:
        names = self.scene.view_names
        return names.index(name) if name in names else None

    def stand_in(self, client, view: int | None) -> None:
        if view is not None:
            self.stand_at(client, self.scene.poses[view], vertical_fov(self.scene, view))

    def stand_at(self, client, pose: np.ndarray, fov: float) -> None:
        """Take a browser to a camera."""
        if client is None:
            return
        with client.atomic():
            client.camera.position, client.camera.look_at = pose[:, 3], self.looked_at(pose)
            client.camera.up_direction = pose[:, 1] / np.linalg.norm(pose[:, 1])
            client.camera.fov = fov
        self.wish_for(client)

    # Drawn into the scene.

    def draw_bounds(self, wanted: bool) -> None:
        low, high = bounds_of(self.scene)
        self.server.scene.add_box("/bounds", (200, 60, 60), tuple(high - low), wireframe=True,
                                  position=tuple((low + high) / 2), visible=wanted)  # fmt: skip

    def draw_cells(self, checkbox):
        """A job: the cells of the occupancy grid that are not empty, as points coloured by height."""
        if self.cells is not None:
            self.cells.remove()
            self.cells = None
        low, high = bounds_of(self.scene)
        points = occupied_cells(self.runs[0].source().renderer, bounds_of(self.scene)) if checkbox.value else ()
        if len(points):
            colours = looks.mapped(((points - low) / (high - low))[:, 2:])[:, 0]
            self.cells = self.server.scene.add_point_cloud(
                "/cells", points.astype(np.float32), colours, point_size=float((high - low).max() / CELLS / 2))
        yield

    # Browsers.

    def arrived(self, client) -> None:
        def moved(camera) -> None:
            self.wish_for(client)

        client.camera.on_update(guarded(moved))
        self.wish_for(client)

    def left(self, client) -> None:
        self.painter.forget(client.client_id)
        self.pictures.pop(client.client_id, None)
        if self.stood_in.pop(client.client_id, None) is not None:
            self.show_frusta()

    def wish_all(self) -> None:
        for client in self.server.get_clients().values():
            self.wish_for(client)

    def wish_again(self) -> None:
        """Pictures of what has changed since: of newer weights, once the last picture is finished."""
        if not self.painter.busy:
            self.painter.renew()

    def wish_for(self, client) -> None:
        """Note what a browser sees. A camera that is none is left out."""
        camera = client.camera
        if not is_camera(camera):
            return
        pose = np.column_stack([matrix_of(camera.wxyz) @ CV, camera.position])
        self.painter.wish(client.client_id, self.wish_at(pose, camera.fov, (camera.image_height, camera.image_width)))
        view = looks.view_stood_in(pose, self.scene.poses, self.reach)
        if view != self.stood_in.get(client.client_id):
            self.stood_in.pop(client.client_id, None)
            if view is not None:
                self.stood_in[client.client_id] = view
            self.show_frusta()

    def wish_at(self, pose: np.ndarray, fov: float, window: tuple[int, int]) -> Wish:
        height = int(np.clip(self.height.value, LEAST_HEIGHT, min(max(window[0], LEAST_HEIGHT), MOST_HEIGHT)))
        width = int(np.clip(round(height * max(window[1], 1) / max(window[0], 1)), 1, 4 * MOST_HEIGHT))
        return self.cut(Wish(pose, float(np.clip(fov, 0.01, 3.0)), (height, width)))

    def cut(self, wish: Wish) -> Wish:
        """The wish with near, far, box and share of the panel."""
        near, far = sorted(float(value) for value in self.depths.value)
        scene, kept = self.scene, {}
        given = abs(near - scene.near) + abs(far - scene.far) > 0.02 * (scene.far - scene.near)  # the slider has steps
        if given and 0 <= near < far and not (scene.cameras.ndc and far > 1):
            kept |= {"near": near, "far": far}
        elif shift := self.beyond_cameras(wish.pose[:, 3]):
            kept |= {"near": max(scene.near + shift, 0.0), "far": max(scene.far + shift, 0.1 * scene.far)}
        if self.box:
            low, high = np.array([sorted(axis.value) for axis in self.box], float).T
            bounds = bounds_of(scene)
            if not np.allclose([low, high], bounds):
                kept["box"] = np.stack([low, high])
        share = float(np.clip(self.share.value, 0, 1)) if len(self.runs) > 1 else 1.0
        return Wish(wish.pose, wish.fov, wish.size, share=share, **kept)

    def beyond_cameras(self, centre: np.ndarray) -> float:
        """How much farther away from the middle than any camera of the scene, or (below 0) nearer, in world units: from
        there the object is not at the depths at which the cameras see it."""
        if self.scene.cameras.ndc:
            return 0.0
        least, most = self.distances
        distance = float(np.linalg.norm(centre - self.middle))
        return distance - float(np.clip(distance, least, most))

    # Pictures.

    def show(self, who: int, wish: Wish, picture: Picture, last: bool) -> None:
        self.pictures[who] = wish, picture, last
        self.send(who)
        if last:
            height, width = picture.acc.shape
            self.note.content = f"{width} x {height}, {self.painter.pace.rate:,.0f} rays/s"

    def send(self, who: int) -> None:
        client, kept = self.server.get_clients().get(who), self.pictures.get(who)
        if client is None or kept is None:
            return
        wish, picture, last = kept
        image = self.coloured(wish, picture, self.stood_in.get(who))
        depth = None if self.scene.cameras.ndc or self.reach > DEEPEST / 8 else looks.hiding_depth(picture, DEEPEST)
        client.scene.set_background_image(image, format="jpeg", jpeg_quality=92 if last else 75, depth=depth)
        client.flush()

    def coloured(self, wish: Wish, picture: Picture, view: int | None = None) -> np.ndarray:
        sampling = self.runs[0].source().renderer.sampling
        look, scene, truth = self.chosen_look(), self.scene, None
        if look == looks.ERROR and view is not None:
            photograph = self.photograph(view)
            if photograph is not None:
                truth = looks.seen_photograph(photograph, scene.cameras.at([view]), wish, picture.acc.shape)
        n_samples = sampling.n_samples + sampling.n_importance
        return looks.coloured(look, picture, scene.near, scene.far, n_samples, truth)

    def photograph(self, view: int) -> np.ndarray | None:
        if view in self.scene.split.unmeasured:
            return None
        if view not in self.photographs:
            try:
                image = self.scene.photographs.image(view)
            except (InputError, OSError) as error:
                self.complain(error)
                return None
            self.photographs = {view: image}  # the last one is enough
        return self.photographs[view]

    # What happens to the runs meanwhile.

    def saved_steps(self, run: Shown) -> list[int]:
        return sorted({step for step, _ in checkpoint.saved(run.folder)} | {run.step})

    def look_after(self) -> None:
        """Hear of new checkpoints, and of runs that are gone."""
        for run, slider, text in self.checkpoints:
            gone = not run.folder.is_dir()
            if gone and run.folder not in self.missing:
                self.missing.add(run.folder)
                self.complain(InputError(f"{run.folder}: the run was moved or deleted; step {run.step} is still shown"))
            elif not gone:
                self.missing.discard(run.folder)
                steps = self.saved_steps(run)
                if steps != self.steps[run.folder]:
                    self.steps[run.folder] = steps
                    slider.max, slider.visible = max(len(steps) - 1, 1), len(steps) > 1
                    text.content = f"{run.name}: step {run.step}; the newest is {steps[-1]}"


def reach_and_middle(scene: Scene) -> tuple[float, np.ndarray]:
    """How large a scene is, as the distance of its training cameras, and where its middle is."""
    poses = scene.poses[list(scene.split.train)]
    middle = None if scene.cameras.ndc else common_point(poses)
    if middle is None and scene.cameras.ndc:
        middle = poses[:, :, 3].mean(0) - 4 * poses[:, :, 2].mean(0)
    elif middle is None:
        middle = bounds_of(scene).mean(0)
    reach = float(np.linalg.norm(poses[:, :, 3] - middle, axis=-1).mean())
    return max(reach, 1e-3), middle


def vertical_fov(scene: Scene, view: int) -> float:
    """In radians."""
    return float(2 * np.arctan(scene.size(view)[0] / 2 / scene.cameras.intrinsics[view, 1].item()))


def is_camera(camera) -> bool:
    """Whether what a browser says of its camera is one: numbers, finite, and a rotation."""
    try:
        parts = [np.array(part, np.float64) for part in (camera.position, camera.wxyz, (
            camera.fov, camera.image_width, camera.image_height))]  # fmt: skip
    except (TypeError, ValueError):
        return False
    of_shapes = [part.shape for part in parts] == [(3,), (4,), (3,)]
    return of_shapes and np.abs(np.concatenate(parts)).max() <= LARGEST and np.linalg.norm(parts[1]) > 0.1


def evenly(items: list) -> list:
    """At most MOST_CAMERAS of them."""
    if len(items) <= MOST_CAMERAS:
        return items
    return [items[k] for k in np.linspace(0, len(items) - 1, MOST_CAMERAS).round().astype(int)]


def matrix_of(wxyz: np.ndarray) -> np.ndarray:
    """A quaternion -> a rotation, 3 3."""
    w, x, y, z = np.asarray(wxyz, float) / np.linalg.norm(wxyz)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def wxyz_of(pose: np.ndarray) -> np.ndarray:
    """The quaternion of a pose (3 4, OpenGL) in the page's axes."""
    turn = cv2.Rodrigues(pose[:, :3] @ CV)[0][:, 0]
    angle = np.linalg.norm(turn)
    axis = turn / angle if angle > 0 else turn
    return np.array([np.cos(angle / 2), *(np.sin(angle / 2) * axis)])


def occupied_cells(renderer: Renderer, bounds: np.ndarray) -> np.ndarray:
    """n 3: the middles of the cells of the renderer's grid, or of one made for it, that are not empty."""
    device = renderer.networks.device
    grid = renderer.query.occupancy
    if grid is None or not grid.in_use:
        grid = Occupancy(torch.as_tensor(bounds, dtype=torch.float32, device=device)).filled(renderer.networks)
    cells = (grid.density > EMPTY).nonzero()[:, 0].cpu().numpy()
    corners = np.stack([cells // CELLS**2, cells // CELLS % CELLS, cells % CELLS], axis=-1)
    low, size = grid.lower.cpu().numpy(), grid.size.cpu().numpy()
    return low + (corners + 0.5) / CELLS * size
