"""The kiosk's page in a real browser: a prompt, a style, a picture, a cancelled one, a daemon that starts anew.

    apt-get install chromium chromium-driver
    python -m venv venv && venv/bin/pip install -r tools/screen/requirements.txt
    venv/bin/python tools/screen/try.py [--model FILE] [--pictures FOLDER]

Runs target/release/tintype (or $TINTYPE) with the model that ships, unless another is named; `--pictures` keeps screenshots.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("TINTYPE", ROOT / "target/release/tintype"))


class Kiosk:
    """A daemon, its page's server, and a browser on the page."""

    def __init__(self, model: Path) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="tintype-")
        self.root = Path(self.folder.name)
        (self.root / "models").mkdir()
        shutil.copy(model, self.root / "models")
        self.daemon = self.start_daemon()
        command = [PROGRAM, "screen", "--listen", "127.0.0.1:0", "--socket", self.root / "socket"]
        self.screen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = self.screen.stdout.readline().strip()
        options = webdriver.ChromeOptions()
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=800,1000"):
            options.add_argument(flag)
        # Named, so that nothing is looked for on the network.
        options.binary_location = shutil.which("chromium")
        self.browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        self.browser.get(self.address)

    def start_daemon(self) -> subprocess.Popen:
        paths = ["--socket", self.root / "socket", "--models", self.root / "models", "--state", self.root / "state"]
        return subprocess.Popen([PROGRAM, "serve", *paths])

    def find(self, name: str):
        return self.browser.find_element(By.ID, name)

    def until(self, what: str, condition, seconds: float = 60):
        return WebDriverWait(self.browser, seconds, 0.02).until(lambda _: condition(), f"waited for {what}")

    def draw(self, words: str) -> None:
        box = self.find("prompt")
        box.clear()
        box.send_keys(words)
        self.find("draw").click()

    def picture(self) -> str:
        return self.find("picture").get_attribute("src") or ""

    def is_drawn(self) -> bool:
        """Whether the picture of a job is on the screen, whole."""
        loaded = "const p = document.getElementById('picture'); return p.complete && p.naturalWidth > 0 && !p.className"
        return self.picture().endswith("/image") and self.browser.execute_script(loaded)

    def shot(self, folder: Path | None, name: str) -> None:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(str(folder / f"{name}.png"))

    def jobs(self) -> list[dict]:
        with urllib.request.urlopen(f"{self.address}v1/jobs") as answer:
            return json.load(answer)["jobs"]

    def close(self) -> None:
        self.browser.quit()
        self.screen.kill()
        self.daemon.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models/emoji.tintype")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    kiosk = Kiosk(options.model)
    try:
        kiosk.shot(options.pictures, "empty")
        a_picture_with_previews(kiosk, options.pictures)
        a_cancelled_picture(kiosk)
        a_daemon_that_starts_anew(kiosk)
        nobody_else_may_ask(kiosk)
    finally:
        kiosk.close()
    print("the page works: 4 passed, 0 failed")
    return 0


def a_picture_with_previews(kiosk: Kiosk, pictures: Path | None) -> None:
    kiosk.draw("a strawberry on a blue background")
    kiosk.until("a preview", lambda: kiosk.picture().startswith("data:image/png;base64,"))
    kiosk.shot(pictures, "preview")
    kiosk.until("the picture", kiosk.is_drawn)
    kiosk.shot(pictures, "picture")
    assert kiosk.find("print").is_displayed() and not kiosk.find("cancel").is_displayed()
    assert kiosk.find("say").text == "a glossy strawberry on a blue background", kiosk.find("say").text
    errors = [entry for entry in kiosk.browser.get_log("browser") if "favicon" not in entry["message"]]
    assert not errors, errors


def a_cancelled_picture(kiosk: Kiosk) -> None:
    kiosk.browser.execute_script(SLOW)
    kiosk.draw("a cat")
    kiosk.until("the stop button", lambda: kiosk.find("cancel").is_displayed() and len(kiosk.jobs()) == 2)
    kiosk.find("cancel").click()
    kiosk.until("the end", lambda: kiosk.find("say").text == "Stopped.")
    assert kiosk.jobs()[-1]["state"] == "cancelled", kiosk.jobs()


def a_daemon_that_starts_anew(kiosk: Kiosk) -> None:
    kiosk.browser.execute_script(SLOW)
    kiosk.draw("a dog")
    kiosk.until("a step", lambda: kiosk.find("bar").get_attribute("value") not in ("", "0"))
    kiosk.daemon.kill()
    kiosk.daemon.wait()
    kiosk.daemon = kiosk.start_daemon()
    kiosk.until("the picture", kiosk.is_drawn, 180)


# The page's next requests take many steps, so that there is time to do something meanwhile.
SLOW = """
const send = window.fetch;
window.fetch = (path, options) => {
  if (options && options.body) options.body = JSON.stringify({ ...JSON.parse(options.body), steps: 100 });
  return send(path, options);
};
"""


def nobody_else_may_ask(kiosk: Kiosk) -> None:
    before = len(kiosk.jobs())
    for headers in ({"Origin": "http://example.org"}, {}, {"Host": "example.org", "Origin": kiosk.address.rstrip("/")}):
        request = urllib.request.Request(f"{kiosk.address}v1/jobs", b'{"prompt":"a cat"}', headers)
        try:
            urllib.request.urlopen(request)
            raise AssertionError(f"{headers} was answered")
        except urllib.error.HTTPError as refused:
            assert refused.code == 403, (headers, refused.code)
    assert len(kiosk.jobs()) == before


if __name__ == "__main__":
    sys.exit(main())
