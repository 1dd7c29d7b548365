"""The viewer in a headless Chromium, by hand: `python -m tests.robustness.viewer_browser LOGDIR [LOGDIR] --out FOLDER`.

Needs chromium and chromedriver beside requirements-view.txt, and `pip install selenium`. Loads the page, drags, asks
that pictures change and the console is silent, and leaves screenshots, light and dark, wide and narrow, to look at.
"""

import argparse
import io
import shutil
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"wide": (1280, 800), "narrow": (390, 800)}


def browser(size):
    options = webdriver.ChromeOptions()
    flags = ["headless=new", "no-sandbox", "disable-dev-shm-usage", "enable-unsafe-swiftshader", "use-gl=angle",
             "use-angle=swiftshader", f"window-size={size[0]},{size[1] + 140}"]  # fmt: skip
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500})
    return driver


def shot(driver, path=None):
    data = driver.get_screenshot_as_png()
    if path:
        path.write_bytes(data)
    return iio.imread(io.BytesIO(data))[..., :3].astype(int)


def until(what, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return True
        time.sleep(0.1)
    return False


def errors(driver):
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def click(driver, text):
    found = [e for e in driver.find_elements(By.XPATH, f"//*[normalize-space(text())='{text}']") if e.is_displayed()]
    assert found, f"nothing reads {text!r}"
    found[0].click()


def choose(driver, label, value):
    """A value of a dropdown."""
    box = driver.find_element(By.XPATH, f"//*[normalize-space(text())='{label}']/following::input[1]")
    box.click()
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(value)
    time.sleep(0.3)
    box.send_keys(Keys.ARROW_DOWN, Keys.ENTER)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("logdir", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8123)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen([sys.executable, ROOT / "view.py", *given.logdir, "--port", str(given.port)], cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    try:
        address = next(line.split()[0] for line in server.stdout if line.startswith("http"))
        for name, size in SIZES.items():
            driver = browser(size)
            try:
                walk(driver, address, given.out, name)
            finally:
                driver.quit()
    finally:
        server.terminate()
    print(server.stdout.read())
    print("done: no errors on the console")


def walk(driver, address, out, name):
    start = time.time()
    driver.get(address)
    blank = shot(driver)
    assert until(lambda: np.abs(shot(driver) - blank).mean() > 2), "no picture came"
    print(f"{name}: first picture {time.time() - start:.1f} s after the page was asked for")
    assert until(lambda: "rays/s" in driver.page_source), "no picture was finished"
    time.sleep(2)
    before = shot(driver, out / f"{name}_light.png")
    canvas = max(driver.find_elements(By.TAG_NAME, "canvas"), key=lambda c: c.size["width"] * c.size["height"])
    drag = ActionChains(driver).move_to_element_with_offset(canvas, -60, -100).click_and_hold()
    drag.move_by_offset(60, 20).move_by_offset(50, 10).release().perform()
    assert until(lambda: np.abs(shot(driver) - before).mean() > 2), "the picture did not turn"
    time.sleep(4)
    shot(driver, out / f"{name}_turned.png")
    if name == "wide":
        for look in ("depth", "opacity", "entropy"):
            choose(driver, "show", look)
            time.sleep(2)
            shot(driver, out / f"{name}_{look}.png")
        choose(driver, "show", "error")
        choose(driver, "stand in", "train/r_")
        time.sleep(6)
        shot(driver, out / f"{name}_error.png")
        choose(driver, "show", "colour")
        for label in ("occupied cells", "bounds"):
            click(driver, label)
        time.sleep(4)
        shot(driver, out / f"{name}_drawn.png")
        click(driver, "dark panel")
        time.sleep(2)
        shot(driver, out / f"{name}_dark.png")
        click(driver, "Path")
        time.sleep(1)
        click(driver, "add a keyframe here")
        drag = ActionChains(driver).move_to_element_with_offset(canvas, -60, -100).click_and_hold()
        drag.move_by_offset(120, 0).release().perform()
        time.sleep(2)
        click(driver, "add a keyframe here")
        time.sleep(2)
        assert "2 keyframes" in driver.page_source
        shot(driver, out / f"{name}_path.png")
        click(driver, "save")
        time.sleep(2)
    found = errors(driver)
    assert not found, found


if __name__ == "__main__":
    main()
