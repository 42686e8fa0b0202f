"""A real browser without a window, that opens pages as files and says what it saw of them."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
_ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
    "--hide-scrollbars", "--force-device-scale-factor=1", "--no-first-run",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


class Browser:
    """One tab.  `width` and themes change in place, so that one start serves many pages."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def open(self, page: Path) -> None:
        """Load a file, and wait until it is there."""
        self._driver.get(page.resolve().as_uri())

    def resize(self, width: int, height: int = 900) -> None:
        """The view's size in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.tell("Emulation.setDeviceMetricsOverride", **metrics)

    def prefer(self, theme: str, *, motion: str = "no-preference", media: str = "") -> None:
        """What the reader's system asks for, and whether the page is for a screen or paper."""
        features = [{"name": "prefers-color-scheme", "value": theme},
                    {"name": "prefers-reduced-motion", "value": motion}]  # fmt: skip
        self.tell("Emulation.setEmulatedMedia", features=features, media=media)

    def scripts(self, on: bool) -> None:
        """Whether pages opened from now on may run scripts."""
        self.tell("Emulation.setScriptExecutionDisabled", value=not on)

    def tell(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._driver.execute_cdp_cmd(command, parameters)

    def ask(self, script: str, *arguments: Any) -> Any:
        """What a function's body returns in the page."""
        return self._driver.execute_script(script, *arguments)

    def ask_later(self, script: str) -> Any:
        """What a function's body hands to its last argument, a callback."""
        return self._driver.execute_async_script(script)

    def said(self) -> list[str]:
        """The console's lines since last asked: errors, and what the policy refused."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def asked_for(self) -> list[str]:
        """The addresses pages wanted since last asked."""
        events = [json.loads(entry["message"])["message"]
                  for entry in self._driver.get_log("performance")]  # fmt: skip
        return [event["params"]["request"]["url"] for event in events
                if event["method"] == "Network.requestWillBeSent"]  # fmt: skip

    def press(self, key: str) -> None:
        """A key, down and up."""
        for kind in ("rawKeyDown", "keyUp"):
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode={"Tab": 9, "Enter": 13}[key])  # fmt: skip

    def point(self, x: float, y: float) -> None:
        """Moves the pointer there."""
        self.tell("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def shoot(self, target: Path) -> None:
        """The whole page as a PNG."""
        found = self.tell("Page.captureScreenshot", captureBeyondViewport=True, format="png",
                          clip={**self._whole(), "scale": 1})  # fmt: skip
        target.write_bytes(base64.b64decode(found["data"]))

    def _whole(self) -> dict[str, float]:
        size = self.tell("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}

    def print(self, target: Path) -> None:
        """The page as a PDF."""
        found = self.tell("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        target.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A started browser whose profile is in `folder`; no page of it reaches a network."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (*_ARGUMENTS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        shown = Browser(driver)
        shown.tell("Network.enable")
        shown.tell("Network.emulateNetworkConditions", offline=True, latency=0,
                   downloadThroughput=0, uploadThroughput=0)  # fmt: skip
        yield shown
    finally:
        driver.quit()
