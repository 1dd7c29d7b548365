"""A Record in the shape in which nerfstudio's ns-eval writes its results, for scripts that compare such."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from infonerf.evaluation.metrics import METRICS
from infonerf.evaluation.record import Record
from infonerf.system.errors import InputError
from infonerf.system.files import atomic_file, check_output

KEYS = ("experiment_name", "method_name", "checkpoint", "results")


def check_ns_eval_output(path: Path) -> None:
    """Raise InputError where the file cannot be written, or is there and no earlier one of this kind."""
    check_output("nerfstudio_json", path)
    try:
        there = json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        there = None
    if not isinstance(there, dict) or set(there) != set(KEYS):
        raise InputError(f"--nerfstudio_json {path}: found another file, expected a new name, or an earlier one of "
                         "this option")


def write_ns_eval(path: Path, record: Record, experiment: str, method: str, checkpoint: Path) -> None:
    """Raises InputError where nothing was measured, hence has a result."""
    if not record.views:
        raise InputError(f"--nerfstudio_json: found no measured view of {experiment}, expected some")
    content = dict(zip(KEYS, (experiment, method, str(checkpoint), ns_results(record)), strict=True))
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=2).encode())


def ns_results(record: Record) -> dict[str, float]:
    """Name -> mean over the views, name_std -> their (unbiased) standard deviation, of the metrics of each view, of
    num_rays_per_sec and of fps, 1 / seconds of a picture. What is not known is not there."""
    columns = {name: [view.get(name) for view in record.views.values()] for name in METRICS}
    timing = [record.timing[name] for name in record.views if name in record.timing]
    columns["num_rays_per_sec"] = [rays / seconds for rays, seconds in timing if seconds > 0]
    columns["fps"] = [1 / seconds for _, seconds in timing if seconds > 0]
    results = {}
    for name, column in columns.items():
        results |= mean_and_deviation(name, [value for value in column if value is not None])
    return results


def mean_and_deviation(name: str, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    deviation = {f"{name}_std": statistics.stdev(values)} if len(values) > 1 else {}
    return {name: math.fsum(values) / len(values)} | deviation
