"""The page of report.py: records of runs in, one HTML text out, in the frame of template.html.

Text is escaped where it becomes an element, so whatever a file says stays text.
"""

import base64
import hashlib
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from infonerf.evaluation.metrics import METRICS
from infonerf.evaluation.record import Record

NOT_COMPARABLE = "not measured on the same views at the same size, hence no best is marked"
TRUE_DEPTH = " Depth error in the scene's units; floaters: the fraction of pixels that end well before the surface."
CURVES = {  # the losses follow, by their labels
    "psnr/fine": "PSNR of training rays, dB",
    "test/psnr": "PSNR of test views, dB",
    "psnr/held_out": "PSNR of held-out rays, dB",
    "psnr/coarse": "PSNR of training rays, coarse network, dB",
}
TOTAL = {"loss/total": "Sum of the weighted losses"}
FRAME, MESH_SCRIPT = (Path(__file__).with_name(name) for name in ("template.html", "mesh.js"))
COLOURS = 6  # series that the style sheet has colours for; then they come again, dashed


# The records.


@dataclass(frozen=True)
class Picture:
    """An encoded image. kind: its MIME type; still: the first frame of a moving one."""

    data: bytes
    kind: str
    width: int
    height: int
    still: "Picture | None" = None


@dataclass(frozen=True)
class Model:
    """A mesh as binary glTF, what is up in its axes, and from where it is seen first, both directions."""

    glb: bytes
    up: tuple[float, float, float]
    eye: tuple[float, float, float]


@dataclass(frozen=True)
class RunView:
    """What a run made of one test view. Without ground truth there is no error map; entropy is rendered on request."""

    metrics: dict[str, float | None]
    rgb: Picture | None
    depth: Picture | None
    error: Picture | None
    entropy: Picture | None = None


@dataclass(frozen=True)
class View:
    name: str
    truth: dict[str, Picture]  # "ground truth" and, where there is one, "true depth"
    runs: dict[str, RunView]  # by the run's label


@dataclass(frozen=True)
class RunRow:
    """A run: a line of the table. pictures: the folder of its evaluation. notes: what to know about it, each with a
    command or None."""

    number: int
    label: str
    folder: str
    losses: str
    options: dict[str, str]
    record: Record | None
    pictures: Path | None
    curves: dict[str, list[tuple[int, float]]]
    loops: dict[str, Picture] = field(default_factory=dict)
    model: Model | None = None
    swept: Picture | None = None
    notes: list[tuple[str, str | None]] = field(default_factory=list)


@dataclass(frozen=True)
class SceneRuns:
    """The runs of one scene. views: those shown, of `n_views`."""

    name: str
    facts: str
    runs: list[RunRow]
    views: list[View]
    n_views: int
    comparable: bool
    ramps: dict[str, Picture]  # the colours of "depth", "error" and "entropy", as bars


# Elements.


class Markup(str):
    """Text that is HTML already; any other text is escaped."""


VOID = ("img", "source", "input")


def element(tag: str, *children, **attributes) -> Markup:
    """An HTML or SVG element; `class_` and `aria_label` stand for class and aria-label. Attributes and
    children that are None are left out, children that are not Markup are escaped."""
    given = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    start = "".join(f' {name}="{html.escape(str(value))}"' for name, value in given)
    if tag in VOID:
        return Markup(f"<{tag}{start}>")
    return Markup(f"<{tag}{start}>{joined(children)}</{tag}>")


def joined(parts: Sequence) -> Markup:
    texts = (part if isinstance(part, Markup) else html.escape(str(part)) for part in parts if part is not None)
    return Markup("".join(texts))


def section(heading: str, content: Markup) -> Markup:
    return element("section", element("h2", heading), content, id=identity(heading))


def identity(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def data_uri(picture: Picture) -> str:
    return f"data:{picture.kind};base64,{base64.b64encode(picture.data).decode()}"


def image(picture: Picture | None, alt: str, missing: str = "not there", **attributes) -> Markup:
    """A picture, or a word in its place. One that moves stands still for who asked for less motion."""
    if picture is None:
        return element("p", missing, class_="missing")
    size = {"width": picture.width, "height": picture.height}
    found = element("img", src=data_uri(picture), alt=alt, **size, **attributes)
    if picture.still is None:
        return found
    still = element("source", srcset=data_uri(picture.still), media="(prefers-reduced-motion: reduce)")
    return element("picture", still, found)


def colour_of(run: RunRow) -> str:
    return f"c{run.number % COLOURS}"


def swatch(run: RunRow) -> Markup:
    return element("span", "", class_=f"swatch {colour_of(run)}", aria_hidden="true")


def html_table(head: Sequence[str], bodies: Sequence[Markup], label: str) -> Markup:
    """A table that scrolls within the page where it is too wide."""
    header = element("thead", element("tr", *(element("th", text, scope="col") for text in head)))
    content = element("table", element("caption", label), header, *bodies)
    return element("div", content, class_="scroll", role="region", tabindex="0", aria_label=label)


# The table of runs.


def best(metric: str, values: Sequence[float | None]) -> set[int]:
    """Which values are best, as far as their digits are shown; none where there is nothing to compare."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return set()
    shown = METRICS[metric].shown
    winner = shown(max(known) if METRICS[metric].higher_is_better else min(known))
    found = {i for i, value in enumerate(values) if value is not None and shown(value) == winner}
    return found if len(found) < len(known) else set()


def metric_cell(metric: str, value: float | None, is_best: bool, tag: str = "td") -> Markup:
    shown = METRICS[metric].shown(value)
    return element(tag, element("strong", shown) if is_best else shown)


def runs_section(scenes: Sequence[SceneRuns]) -> Markup:
    means = [run.record.mean for scene in scenes for run in scene.runs if run.record]
    measured = {name for mean in means for name, value in mean.items() if value is not None}
    shown = [m for m in METRICS.values() if m.in_report == "always" or (m.in_report and m.name in measured)]
    arrows = {True: "\u2191", False: "\u2193"}
    names = [f"{metric.heading}\N{NO-BREAK SPACE}{arrows[metric.higher_is_better]}" for metric in shown]
    columns = [metric.name for metric in shown]
    head = ["Run", *names, "Step", "Views", "Minutes"]
    note = (
        "Means over the test views. \u2191 higher is better, \u2193 lower is better; "
        "the best of a scene's runs stands out. PSNR in dB; the minutes are those of the evaluation."
    ) + (TRUE_DEPTH if "floaters" in columns else "")
    bodies = [scene_rows(scene, columns, len(head)) for scene in scenes]
    return joined([html_table(head, bodies, "Runs and their means"), element("p", note, class_="muted"), notes(scenes)])


def scene_rows(scene: SceneRuns, columns: Sequence[str], width: int) -> Markup:
    """A scene's heading and a row a run."""
    name = element("span", element("b", scene.name), " ", element("span", scene.facts, class_="muted"))
    heading = element("th", name, scope="rowgroup", colspan=width)
    means = [run.record.mean if run.record else {} for run in scene.runs]
    winners = {name: best(name, [mean.get(name) for mean in means]) if scene.comparable else set() for name in columns}
    rows = []
    for i, run in enumerate(scene.runs):
        method = element("span", run.losses, class_="muted")
        cells = [metric_cell(name, means[i].get(name), i in winners[name]) for name in columns]
        record = run.record
        facts = (record.step, record.shown_views(), f"{record.seconds / 60:.1f}") if record else "---"
        name = element("th", swatch(run), element("b", run.label), method, scope="row")
        rows.append(element("tr", name, *cells, *(element("td", fact) for fact in facts)))
    return element("tbody", element("tr", heading, class_="group"), *rows)


def notes(scenes: Sequence[SceneRuns]) -> Markup | None:
    """What to know about scenes and runs; the same of several runs is said once."""
    said: dict[tuple, list[str]] = {}
    for scene in scenes:
        if not scene.comparable:
            said.setdefault((NOT_COMPARABLE, None), []).append(scene.name)
        for run in scene.runs:
            for note in run.notes:
                said.setdefault(note, []).append(run.label)
    items = []
    for (text, command), names in said.items():
        rest = (": ", element("code", command)) if command else ()
        items.append(element("li", element("b", ", ".join(names)), f": {text}", *rest))
    return element("ul", *items, class_="notes") if items else None


# Curves.

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380, 240, 64, 10, 8, 42


@dataclass(frozen=True)
class Axis:
    """Values low..high to pixels start..end, perhaps by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) for v in (self.low, self.high, value)) if self.log else (
            self.low, self.high, value)  # fmt: skip
        fraction = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + fraction * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        if not self.log:
            return linear_ticks(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        fine, coarse = ([m * 10.0**d for d in decades for m in factors if self.low <= m * 10.0**d <= self.high]
                        for factors in ((1, 2, 5), (1,)))  # fmt: skip
        return fine if len(fine) <= 7 else coarse[:: -(-len(coarse) // 6)]


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within low..high, about `most` of them."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(m * power for m in (1, 2, 5, 10) if (high - low) / (m * power) <= most)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def brief(value: float) -> str:
    """A number for an axis: 25k, 0.05, 2e-07."""
    return f"{value / 1000:g}k" if abs(value) >= 1000 and value % 100 == 0 and abs(value) < 1e6 else f"{value:.4g}"


def curve_chart(title: str, series: dict[str, tuple[RunRow, list[tuple[int, float]]]]) -> Markup:
    """The curves of all runs that have this value: label -> run and (step, value) points."""
    steps = [step for _, points in series.values() for step, _ in points]
    values = [value for _, points in series.values() for _, value in points]
    log = not title.startswith("PSNR") and min(values) > 0 and max(values) >= 10 * min(values)
    x = Axis(min(steps), max(steps), LEFT, WIDTH - RIGHT)
    y = Axis(min(values), max(values), HEIGHT - BOTTOM - 6, TOP, log)
    unit = "dB" if title.startswith("PSNR") else "value, logarithmic" if log else "value"
    lines = [curve(run, points, x, y) for run, points in series.values()]
    ends = [f"{label} {brief(points[-1][1])} at step {points[-1][0]}" for label, (_, points) in series.items()]
    svg = element(
        "svg", *grid(x, y, unit), *lines,
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title} over steps: {'; '.join(ends)}",
    )  # fmt: skip
    keys = [
        element("li", swatch(run), element("span", label), " ", element("b", brief(points[-1][1]), title="last value"))
        for label, (run, points) in series.items()
    ]
    return element("figure", element("figcaption", title), svg, element("ul", *keys, class_="legend"), class_="chart")


def grid(x: Axis, y: Axis, unit: str) -> list[Markup]:
    """Grid lines, the numbers at them, and what the axes are."""
    parts, bottom = [], HEIGHT - BOTTOM
    for value in y.ticks():
        at = y(value)
        parts.append(element("path", class_="grid", d=f"M{LEFT} {at}H{WIDTH - RIGHT}"))
        parts.append(element("text", brief(value), x=LEFT - 7, y=at + 4, text_anchor="end"))
    for value in x.ticks():
        at = x(value)
        parts.append(element("path", class_="grid", d=f"M{at} {bottom}v4"))
        parts.append(element("text", brief(value), x=at, y=bottom + 17, text_anchor="middle"))
    parts.append(element("path", class_="axis", d=f"M{LEFT} {bottom}H{WIDTH - RIGHT}"))
    middle = (TOP + bottom) / 2
    parts.append(element("text", "step", class_="name", x=(LEFT + WIDTH) / 2, y=HEIGHT - 6, text_anchor="middle"))
    parts.append(element("text", unit, class_="name", transform=f"translate(13 {middle}) rotate(-90)",
                         text_anchor="middle"))  # fmt: skip
    return parts


def curve(run: RunRow, points: list[tuple[int, float]], x: Axis, y: Axis) -> Markup:
    """A line, and at every point a spot that says its value when the mouse is over it."""
    places = [(x(step), y(value)) for step, value in points]
    dash = "5 4" if run.number >= COLOURS else None
    line = element("path", class_="line", d="M" + "L".join(f"{a} {b}" for a, b in places), stroke_dasharray=dash)
    spots = [
        element("circle", element("title", f"{run.label}, step {step}: {value:.4g}"), class_="spot", cx=a, cy=b, r=7)
        for (a, b), (step, value) in zip(places, points, strict=True)
    ]
    end = element("circle", class_="end", cx=places[-1][0], cy=places[-1][1], r=3)
    return element("g", line, end, *spots, class_=colour_of(run))


def curve_titles(loss_labels: Mapping[str, str]) -> dict[str, str]:
    """Tag of TensorBoard -> title, in the order in which curves are shown: PSNRs, losses, and those of the coarse
    network last."""
    losses = {f"loss/{name}": label[0].upper() + label[1:] for name, label in loss_labels.items()}
    titles = CURVES | losses | TOTAL
    return dict(sorted(titles.items(), key=lambda item: "coarse" in item[0]))


def other_title(tag: str, titles: Mapping[str, str]) -> str:
    """Of a curve that is not among those of `curve_titles`."""
    kind, _, name = tag.partition("/")
    if kind == "test" and name in METRICS:
        return f"{METRICS[name].heading} of test views"
    if kind == "loss_weighted" and f"loss/{name}" in titles:
        return f"{titles[f'loss/{name}']}, times its weight"
    return (tag[:1].upper() + tag[1:]).replace("_", " ").replace("/", ": ")


def curves_section(runs: Sequence[RunRow], loss_labels: Mapping[str, str], most: int) -> Markup:
    titles = curve_titles(loss_labels)
    tags = sorted({tag for run in runs for tag in run.curves}, key=lambda tag: (*titles, tag).index(tag))
    if not tags:
        return element("p", "No curves: the runs have no TensorBoard events.")
    charts, others = [], []
    for tag in tags:
        series = {run.label: (run, run.curves[tag]) for run in runs if run.curves.get(tag)}
        chart = curve_chart(titles.get(tag) or other_title(tag, titles), series)
        (charts if tag in titles else others).append(chart)
    folded = None
    if others:
        summary = element("summary", f"{len(others)} more curve{'s' if len(others) > 1 else ''}")
        folded = element("details", summary, element("div", *others, class_="charts"))
    text = f"As logged, losses before their weights. Of more than {most} points, neighbours are averaged."
    return joined([element("p", text, class_="muted"), element("div", *charts, class_="charts"), folded])


# Pictures.


def loops_section(scenes: Sequence[SceneRuns]) -> Markup | None:
    """The looping renders of the runs' paths."""
    figures = []
    for run in (run for scene in scenes for run in scene.runs if run.loops):
        pictures = [image(loop, f"{run.label}, {kind} along a camera path") for kind, loop in run.loops.items()]
        caption = element("figcaption", swatch(run), element("b", run.label))
        figures.append(element("figure", caption, element("div", *pictures, class_="pair"), class_="loop"))
    return element("div", *figures, class_="loops") if figures else None


def models_section(runs: Sequence[RunRow]) -> Markup | None:
    """The runs' meshes, to be turned."""
    figures = []
    for run in (run for run in runs if run.model):
        up, eye = (" ".join(f"{x:.6g}" for x in direction) for direction in (run.model.up, run.model.eye))
        canvas = element("canvas", class_="mesh", tabindex=0, role="img", aria_label=f"{run.label}, mesh", data_up=up,
                         data_eye=eye, data_glb=base64.b64encode(run.model.glb).decode())  # fmt: skip
        buttons = [element("button", text, type="button") for text in ("Turn", "Shape only")]
        caption = element("figcaption", swatch(run), element("b", run.label))
        figures.append(element("figure", caption, canvas, element("div", *buttons), class_="model"))
    text = ("The surface of the density, in the colours seen along its normals. Drag or use the arrow keys to turn it, "
            "+ and - or, once it is clicked, the wheel to come nearer; Home returns.")  # fmt: skip
    return joined([element("p", text, class_="muted"), element("div", *figures, class_="models")]) if figures else None


def swept_section(runs: Sequence[RunRow]) -> Markup | None:
    """What a plane sweep found in the training photographs; of runs with the same pictures, once."""
    figures, shown = [], set()
    for run in (run for run in runs if run.swept and run.swept.data not in shown):
        shown.add(run.swept.data)
        picture = image(run.swept, f"{run.label}: training photographs, their depth, and what is trusted of it")
        caption = element("figcaption", swatch(run), element("b", run.label))
        figures.append(element("figure", caption, picture, class_="loop"))
    text = ("Training photographs, the depth found in them by matching (near is bright), and what of it is trusted as "
            "a prior (the rest is red).")  # fmt: skip
    return joined([element("p", text, class_="muted"), element("div", *figures, class_="loops")]) if figures else None


def views_section(scenes: Sequence[SceneRuns]) -> Markup:
    parts = [part for scene in scenes if scene.views for part in scene_views(scene, len(scenes) > 1)]
    return joined(parts or [element("p", "No test views are shown.")])


def scene_views(scene: SceneRuns, with_name: bool) -> list[Markup]:
    """A scene's heading, what its pictures mean, and its views."""
    left_out = scene.n_views - len(scene.views)
    count = f"{len(scene.views)} of {scene.n_views} views; {left_out} left out." if left_out else None
    entropy = ()
    if any(found.entropy for view in scene.views for found in view.runs.values()):
        entropy = (" and the entropy of its rays (", image(scene.ramps["entropy"], "dark to bright", class_="ramp"),
                   " from light that is stopped in one place to a fog)")  # fmt: skip
    legend = element(
        "p", count, " " if count else None, "For each run: the rendering, its depth (",
        image(scene.ramps["depth"], "bright to dark", class_="ramp"), " from near to far, or empty) and its error (",
        image(scene.ramps["error"], "dark to bright", class_="ramp"), " from none to half the range or more)",
        *entropy, ". The slider lays the photograph over the rendering.", class_="muted",
    )  # fmt: skip
    heading = element("h3", scene.name, class_="scene") if with_name else None
    return [part for part in (heading, legend) if part] + [view_row(view, scene.runs) for view in scene.views]


CLASS_BY_TRUTHS = {0: "view untrue", 1: "view", 2: "view deep"}  # none; a photograph; a photograph and true depth


def view_row(view: View, runs: Sequence[RunRow]) -> Markup:
    """One test view: the ground truth, then each run's pictures."""
    runs = [run for run in runs if run.record]
    truth = None
    if view.truth:
        pictures = [image(picture, f"{view.name}, {kind}", class_="zoom") for kind, picture in view.truth.items()]
        truth = element("figure", element("figcaption", "Ground truth"), element("div", *pictures), class_="truth")
    numbers = [view.runs[run.label].metrics if run.label in view.runs else {} for run in runs]
    beside = [metric.name for metric in METRICS.values() if metric.per_view]
    winners = {name: best(name, [metrics.get(name) for metrics in numbers]) for name in beside}
    figures = []
    for i, run in enumerate(runs):
        values = []
        for name, value in numbers[i].items():
            if name in winners and (METRICS[name].in_report == "always" or value is not None):
                cell = metric_cell(name, value, i in winners[name], "span")
                values.append(element("span", f"{METRICS[name].heading} ", cell, class_="number"))
        caption = element("figcaption", swatch(run), element("b", run.label), *values)
        figures.append(element("figure", caption, row_of_pictures(view, run), class_="run"))
    strip = element("div", element("h4", view.name), truth, *figures, class_="strip")
    kind = CLASS_BY_TRUTHS[len(view.truth)] + (" alone" if len(runs) == 1 else "")
    return element("article", strip, class_=kind)


def row_of_pictures(view: View, run: RunRow) -> Markup:
    """A run's pictures of a view, or that it is not there: the rendering, over which a slider lays the photograph,
    depth, error and, where it was rendered, entropy."""
    found = view.runs.get(run.label)
    if found is None:
        return element("p", "not rendered", class_="missing")
    pictures = {"rendering": found.rgb, "depth": found.depth, "error": found.error, "entropy": found.entropy}
    if not view.truth:
        del pictures["error"]
    if found.entropy is None:
        del pictures["entropy"]
    named = {kind: image(picture, f"{view.name}, {run.label}, {kind}", class_="zoom")
             for kind, picture in pictures.items()}  # fmt: skip
    if view.truth and found.rgb:
        slider = element("input", type="range", min=0, max=100, value=0, class_="slider",
                         aria_label=f"{view.name}, {run.label}: percent that show the photograph")  # fmt: skip
        named["rendering"] = element("div", element("div", named["rendering"], class_="stack"), slider)
    return element("div", *named.values(), class_="pictures", style=f"--n: {len(named)}")


# Options, and the whole page.


def options_section(runs: Sequence[RunRow]) -> Markup:
    """The options in which the runs differ, and, folded, all of them."""
    names = sorted({name for run in runs for name in run.options})
    rows = {name: [run.options.get(name, "-") for run in runs] for name in names}
    differing = {name: values for name, values in rows.items() if len(set(values)) > 1}
    everything = element("details", element("summary", f"All {len(rows)} options"), options_table(rows, runs, "All"))
    if len(runs) < 2:
        return everything
    text = element("p", "Options in which the runs differ:" if differing else "The runs have the same options.")
    different = options_table(differing, runs, "Differing") if differing else None
    return joined([text, different, everything])


def options_table(rows: dict[str, list[str]], runs: Sequence[RunRow], which: str) -> Markup:
    head = ["Option", *(run.label for run in runs)]
    body = [
        element("tr", element("th", name, scope="row"), *(element("td", value) for value in values))
        for name, values in rows.items()
    ]
    return html_table(head, [element("tbody", *body, class_="text")], f"{which} options")


def sha256_of_script(frame: Template, mesh_script: str) -> str:
    """Of what stands between <script> and </script>: a browser runs that script alone."""
    script = frame.template.partition("<script>")[2].partition("</script>")[0]
    digest = hashlib.sha256(Template(script).substitute(mesh_script=mesh_script).encode()).digest()
    return base64.b64encode(digest).decode()


def make_page(scenes: Sequence[SceneRuns], loss_labels: Mapping[str, str], version: str, most_points: int) -> str:
    """The whole page. loss_labels: what to call the loss of a name."""
    runs = sorted((run for scene in scenes for run in scene.runs), key=lambda run: run.number)
    sections = {
        "Runs": runs_section(scenes),
        "Around the scene": loops_section(scenes),
        "Meshes": models_section(runs),
        "Depth from the photographs": swept_section(runs),
        "Curves": curves_section(runs, loss_labels, most_points),
        "Test views": views_section(scenes),
        "Options": options_section(runs),
    }
    there = {heading: section(heading, content) for heading, content in sections.items() if content}
    links = [element("a", heading, href=f"#{identity(heading)}") for heading in there]
    heading = ", ".join(dict.fromkeys(scene.name for scene in scenes))
    names = ", ".join(run.label for run in runs)
    frame = Template(FRAME.read_text(encoding="utf-8"))
    mesh_script = MESH_SCRIPT.read_text(encoding="utf-8") if "Meshes" in there else ""
    return frame.substitute(
        title=joined([f"{heading}: {names}"]),
        heading=joined([heading]),
        lede=joined([f"{len(runs)} runs side by side" if len(runs) > 1 else f"The run {names}"]),
        nav=element("nav", *links, aria_label="Sections"),
        content="\n".join(there.values()),
        mesh_script=mesh_script,
        script_sha256=sha256_of_script(frame, mesh_script),
        footer=joined([f"Made by report.py {version} from {', '.join(run.folder for run in runs)}"]),
    )
