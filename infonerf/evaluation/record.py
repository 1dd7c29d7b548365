"""The Record of an evaluation: what metrics.json holds, the table and results.csv show, and the report reads."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from infonerf.evaluation.metrics import METRICS, means
from infonerf.system.errors import InputError
from infonerf.system.files import append_line, atomic_file
from infonerf.system.logs import text_table
from infonerf.version import VERSION

UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass
class Record:
    """Metrics of views of one step of a run, and what they were measured of.

    kind: testset, valset, renderonly_test or renderonly_train. options: those that the pictures depend on.
    render_size: width and height of the views; of views that differ, the size of the first. weights: a checksum.
    views: view name -> metric -> value, None where it has none. unmeasured: view name -> why it has none, of views that
    were rendered only. views_missing: how many an evaluation that was stopped has left. seconds: that rendering and
    measuring took. device: on which they were done. lpips_net: the network of the LPIPS of its views. timing: view name
    -> rays and the seconds that they took, where one process rendered.
    """

    step: int
    kind: str
    options: dict[str, Any]
    scene: str
    render_size: tuple[int, int]
    weights: str
    depth_png: dict[str, Any]
    version: str = VERSION
    true_depth: bool = False
    seconds: float = 0.0
    device: str = ""
    views: dict[str, dict[str, float | None]] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    lpips_missing: str | None = None
    views_missing: int = 0
    lpips_net: str | None = None
    timing: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def mean(self) -> dict[str, float | None]:
        """The means over the views measured so far."""
        return means(self.views)

    @property
    def all_views(self) -> list[str]:
        """The views rendered so far, measured or not."""
        return [*self.views, *self.unmeasured]

    def is_of_the_same(self, other: "Record") -> bool:
        """Whether both are of the same pictures, and this one has the other's LPIPS. An option that only this one
        knows, of another version, does not matter."""
        named = ("step", "kind", "scene", "render_size", "weights", "depth_png", "version", "true_depth")
        alike = all(getattr(self, name) == getattr(other, name) for name in named)
        alike = alike and other.lpips_net in (None, self.lpips_net)
        return alike and all(self.options.get(name) == value for name, value in other.options.items())

    def shown_views(self) -> str:
        """How many views are measured, and of how many where these are not all: "12 of 25"."""
        measured, others = len(self.views), self.views_missing + len(self.unmeasured)
        return f"{measured} of {measured + others}" if others else str(measured)

    def write(self, path: Path) -> None:
        content = asdict(self) | {"render_size": list(self.render_size), "mean": self.mean}
        for name in ("true_depth", "unmeasured", "lpips_net", "timing"):
            if not content[name]:
                del content[name]
        with atomic_file(path) as file:
            file.write(json.dumps(content, indent=1).encode())

    @classmethod
    def read(cls, path: Path) -> "Record":
        """A record with None for numbers that are not finite. Raises InputError where the file holds none."""
        try:
            return cls.of_content(json.loads(path.read_text(encoding="utf-8")))
        except UNUSABLE as error:
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            raise InputError(f"{path}: found no record of an evaluation ({reason}); run evaluate.py again") from error

    @classmethod
    def of_content(cls, content: dict) -> "Record":
        """From what metrics.json holds; raises one of UNUSABLE where that is no record."""
        given = {part.name: content[part.name] for part in fields(cls) if part.name in content}
        width, height = given["render_size"]
        if min(width, height) < 1:
            raise ValueError(f"render_size {width} x {height}")
        views = {str(name): finite_values(metrics) for name, metrics in given.pop("views").items()}
        missing, net = given.get("lpips_missing"), given.get("lpips_net")
        if net is None and any(metrics.get("lpips") is not None for metrics in views.values()):
            net = "vgg"  # an earlier version had no other
        means(views)  # fails where a view has no mse
        return cls(**given | {
            "step": int(given["step"]),
            "scene": str(given["scene"]),
            "seconds": float(given["seconds"]),
            "options": dict(given["options"]),
            "render_size": (int(width), int(height)),
            "views": views,
            "unmeasured": {str(name): str(why) for name, why in dict(given.get("unmeasured", {})).items()},
            "version": str(given.get("version", "")),
            "lpips_missing": None if missing is None else str(missing),
            "lpips_net": None if net is None else str(net),
            "timing": {str(name): (int(n), float(t)) for name, (n, t) in dict(given.get("timing", {})).items()},
            "views_missing": int(given.get("views_missing", 0)),
        })  # fmt: skip


def finite_values(metrics: Mapping) -> dict[str, float | None]:
    """Metric -> value, None for what is not finite. TypeError where one is no number."""
    values = {}
    for name, value in metrics.items():
        known = value is not None and math.isfinite(value)
        values[str(name)] = float(value) if known else None
    return values


def metrics_table(runs: Mapping[str, tuple[int, str, Mapping[str, float | None]]]) -> str:
    """Run -> step, number of views, and means, as text: a line a run, a column a metric that any run has."""
    known = {name for _, _, mean in runs.values() for name, value in mean.items() if value is not None}
    columns = [metric for metric in METRICS.values() if metric.name in known]
    rows = [["run", "step", "views", *(metric.name for metric in columns)]]
    for run, (step, views, mean) in runs.items():
        rows.append([run, str(step), views, *(metric.shown(mean.get(metric.name)) for metric in columns)])
    return text_table(rows)


def records_table(records: Mapping[str, Record]) -> str:
    return metrics_table({run: (record.step, record.shown_views(), record.mean) for run, record in records.items()})


def is_in_results(path: Path, record: Record) -> bool:
    """Whether results.csv has a line of a record, which its seconds tell from all others; a run may have been moved."""
    wanted = {name: csv_text(getattr(record, name)) for name in ("scene", "step", "kind", "seconds")}
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            whole = [line for line in file if line.endswith("\n")]  # the last may have been cut off
            return any(wanted.items() <= line.items() for line in csv.DictReader(whole))
    except (OSError, csv.Error, TypeError):  # TypeError: a line of more columns than the header
        return False


def csv_text(value) -> str:
    """What is read of a value that was written."""
    return str(value).encode(errors="backslashreplace").decode()


def append_result(path: Path, expname: str, record: Record) -> None:
    """One line of results.csv, or none. What columns a file of an earlier version lacks are added to its header; its
    lines stay as they are, and are shorter."""
    row = {"time": datetime.now().isoformat(timespec="seconds"), "expname": expname}
    row |= {name: getattr(record, name) for name in ("scene", "step", "kind", "seconds", "device", "version")}
    row |= {"views": len(record.views), "width": record.render_size[0]}
    row |= {metric.name: record.mean.get(metric.name) for metric in METRICS.values() if metric.in_results}
    content = path.read_bytes() if path.exists() else b""
    header, _, lines = content.partition(b"\n")
    try:
        columns = next(csv.reader([header.decode("latin-1")]), [])
    except csv.Error as error:
        raise InputError(f"{path}: cannot be added to ({error}), expected a table with a header") from error
    new = [name for name in row if name not in columns]
    if columns and new:
        with atomic_file(path) as file:
            file.write(b",".join([header.rstrip(b"\r"), *map(str.encode, new)]) + b"\r\n" + lines)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns + new)
    if not columns:
        writer.writeheader()
    writer.writerow(row)
    append_line(path, text.getvalue().encode(errors="backslashreplace"))
