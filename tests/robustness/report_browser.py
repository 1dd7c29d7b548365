"""A page of report.py in a headless Chromium, by hand: `python -m tests.robustness.report_browser PAGE --out FOLDER`.

The page: of a run with test views, `--mesh --entropy`. Needs chromium and chromedriver, and `pip install selenium`.
With --hostile instead, pages of its own, all of whose names are hostile: nothing of them runs, or is asked for.
Moves a slider and the mesh, asks that pictures change and the console is silent, and leaves screenshots, light and
dark, wide and narrow, to look at.
"""

import argparse
import io
import json
import shutil
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from torch.utils.tensorboard import SummaryWriter

import report
from tests.robustness import run_folders


def browser(width, scheme):
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "enable-unsafe-swiftshader", "use-gl=angle", "use-angle=swiftshader"):
        options.add_argument(f"--{flag}")
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500})
    wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wanted.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    return driver


def look(driver, element, path=None):
    """An element's pixels, h w 3."""
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    time.sleep(0.5)
    data = element.screenshot_as_png
    if path:
        path.write_bytes(data)
    return iio.imread(io.BytesIO(data))[..., :3].astype(int)


def differ(before, after):
    return before.shape == after.shape and np.abs(before - after).mean() > 0.5


def walk(driver, out):
    """What is wrong, in words."""
    canvas, article = driver.find_element(By.CSS_SELECTOR, "canvas.mesh"), driver.find_element(By.TAG_NAME, "article")
    slider, stack = (article.find_element(By.CSS_SELECTOR, name) for name in ("input", ".stack"))
    before = [look(driver, canvas, out / "mesh.png")]
    actions = {
        "dragging": lambda: ActionChains(driver).drag_and_drop_by_offset(canvas, 90, 0).perform(),
        "an arrow key": lambda: canvas.send_keys(Keys.ARROW_UP * 3),
        "the + key": lambda: canvas.send_keys("+++"),
        "s, for the shape": lambda: canvas.send_keys("s"),
        "Home": lambda: canvas.send_keys(Keys.HOME),
    }
    wrong = []
    for name, act in actions.items():
        act()
        before.append(look(driver, canvas))
        if not differ(*before[-2:]):
            wrong.append(f"{name} does not change the mesh")
    canvas.send_keys("s")
    if differ(before[0], look(driver, canvas)):
        wrong.append("Home does not return")
    rendering = look(driver, stack)
    slider.send_keys(Keys.ARROW_RIGHT * 50)
    if not differ(rendering, look(driver, stack)):
        wrong.append("the slider does not change its picture")
    look(driver, article, out / "view.png")
    stack.find_element(By.TAG_NAME, "img").click()
    dialog = driver.find_element(By.TAG_NAME, "dialog")
    half = look(driver, dialog, out / "dialog.png")
    dialog.find_element(By.TAG_NAME, "input").send_keys(Keys.HOME)
    if not differ(half, look(driver, dialog)):
        wrong.append("the slider of the enlarged picture does not change it")
    dialog.send_keys(Keys.ARROW_RIGHT)
    if dialog.find_element(By.TAG_NAME, "input").is_displayed():
        wrong.append("a depth has a slider")
    dialog.send_keys(Keys.ESCAPE)
    if driver.execute_script("return document.documentElement.scrollWidth > innerWidth"):
        wrong.append("the page is wider than the window")
    return wrong + [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def hostile_pages(folder):
    """A page for each hostile text, which stands wherever a run's folder can hold it."""
    for number, text in enumerate(run_folders.HOSTILE):
        name = text.encode(errors="replace").decode().replace("/", "|").replace("\x1b", "|")[:100]
        logdir = run_folders.write_run(folder / str(number), "run")
        record = json.loads((logdir / "testset_000002/metrics.json").read_text())
        views = record["views"] | run_folders.hostile_record(text)["views"]
        changed = record | run_folders.hostile_record(text) | {"views": views}
        (logdir / "testset_000002/metrics.json").write_text(json.dumps(changed))
        options = (logdir / "args.txt").read_text().replace("a group", "".join(c for c in name if c not in "[]'\""))
        (logdir / "args.txt").write_text(options, encoding="utf-8")
        with SummaryWriter(logdir, filename_suffix=".x") as writer:
            writer.add_scalar(name, 1.0, 1)
            writer.add_scalar(f"loss/{name}", 1.0, 1)
        (logdir / f"events.out.tfevents.{name}").write_bytes(b"damaged")
        output = folder / f"{number}.html"
        logdir = logdir.rename(logdir.with_name(name))
        assert report.main([str(logdir), "--output", str(output)]) == 0
        assert not run_folders.what_is_foreign(output.read_text(encoding="utf-8")), text
        yield text, output


def check_hostile(folder):
    driver = browser(1280, "light")
    driver.execute_cdp_cmd("Network.enable", {})
    for text, page in hostile_pages(folder):
        driver.get(page.resolve().as_uri())
        time.sleep(1)
        try:
            print(f"{text!r}: an alert, {driver.switch_to.alert.text}")
            continue
        except NoAlertPresentException:
            pass
        asked = driver.execute_script(
            "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))")
        scripts, others = (len(driver.find_elements(By.TAG_NAME, tag)) for tag in ("script", "iframe"))
        said = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        shown = len(driver.find_elements(By.TAG_NAME, "article"))
        fine = not (asked or said or others) and scripts == 1 and shown
        fine = fine and driver.current_url == page.resolve().as_uri()
        print(f"{text!r}: {'nothing runs' if fine else (asked, scripts, others, said, shown)}", flush=True)
    driver.quit()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hostile", action="store_true")
    given = parser.parse_args()
    if given.hostile:
        check_hostile(given.out)
        return
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            driver = browser(width, scheme)
            out = given.out / f"{width}_{scheme}"
            out.mkdir(parents=True, exist_ok=True)
            driver.get(given.page.resolve().as_uri())
            print(width, scheme, walk(driver, out) or "nothing wrong", flush=True)
            driver.execute_script("scrollTo(0, 0)")
            height = driver.execute_script("return Math.min(document.documentElement.scrollHeight, 5000)")
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                   {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
            time.sleep(1)
            (out / "page.png").write_bytes(driver.get_screenshot_as_png())
            driver.quit()


if __name__ == "__main__":
    main()
