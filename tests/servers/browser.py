"""Chromium without a screen, to look at pages with: from Debian packages, driven over its DevTools protocol on pipes.

    with chromium.start() as browser, browser.page() as page:
        page.open("file:///tmp/page.html")
        assert page.evaluate("document.title") == "..." and not page.complaints and not page.requests

Pipes need no port, and the browser ends when this process does, whose end of them closes then.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from attrs import define, field

from tests.servers.installing import missing_debian, runs, system_key, unpack_debian
from tests.servers.model import ServerFailed
from tests.servers.processes import unpacked_environment
from tests.servers.provided import Provided

__all__ = ["Browser", "Chromium", "Page"]

_PROGRAM: Final = "usr/lib/chromium/chromium-headless-shell"
_FLAGS: Final = (
    "--remote-debugging-pipe",
    "--no-sandbox",  # it refuses to run as root with it; only pages of our own are opened
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
#: The protocol runs on 3 and 4; what the browser prints goes to its log.
_ON_PIPES: Final = 'exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>&2'
_LIMIT: Final = 60.0

_FONTS: Final = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{tree}/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{cache}</cachedir></fontconfig>
"""


class Chromium(Provided):
    """The browser, installed."""

    name: ClassVar[str] = "chromium"
    summary: ClassVar[str] = "Chromium without a screen"

    def available(self) -> str | None:
        return missing_debian()

    def key(self) -> str:
        return system_key()

    def build(self, folder: Path) -> None:
        # Named are the parts that must lie beside each other, whatever the machine has.
        unpack_debian(["chromium-common", "chromium-headless-shell", "fonts-dejavu-core"], folder)

    def works(self, folder: Path) -> bool:
        return runs([folder / _PROGRAM, "--no-sandbox", "--version"], _environment(folder))

    @contextmanager
    def start(self) -> Iterator[Browser]:
        """A running browser with a profile of its own."""
        home = Path(tempfile.mkdtemp(prefix="stow-chromium-"))
        try:
            (home / "fonts.conf").write_text(_FONTS.format(tree=self.folder, cache=home / "fonts"), encoding="utf-8")
            command: list[str | Path] = ["/bin/sh", "-c", _ON_PIPES, self.folder / _PROGRAM, *_FLAGS]
            own = {"HOME": str(home), "FONTCONFIG_FILE": str(home / "fonts.conf")}
            with (home / "log").open("wb") as log:
                process = subprocess.Popen(
                    [*command, f"--user-data-dir={home}/profile"],
                    env=_environment(self.folder) | own,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    bufsize=0,
                )
            with process:
                try:
                    yield Browser(process, home / "log")
                finally:
                    process.kill()
        finally:
            # Its helpers may still be writing into the profile while they end.
            shutil.rmtree(home, ignore_errors=True)


class Browser:
    """A browser that runs; used by one thread."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self._number = 0
        self._received = b""
        self._answers = select.poll()
        assert process.stdout is not None
        self._answers.register(process.stdout, select.POLLIN)
        self._pages: dict[str, Page] = {}

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A page to open something in, which shares nothing with others."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        try:
            for domain in ("Log", "Network", "Page", "Runtime"):
                page.call(f"{domain}.enable")
            yield page
        finally:
            del self._pages[session]
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def call(self, method: str, session: str | None = None, /, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result; raises `ServerFailed`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        assert self._process.stdin is not None
        left = memoryview(json.dumps(message).encode() + b"\0")
        while left:
            left = left[self._process.stdin.write(left) or 0 :]
        deadline = time.monotonic() + _LIMIT
        while True:
            found = self._receive(deadline, method)
            if found.get("id") == self._number:
                if "error" in found:
                    raise ServerFailed(f"chromium: {method}: {found['error']}")
                result: dict[str, Any] = found["result"]
                return result

    def wait_for(self, page: Page, event: str) -> None:
        """Waits until a page has told an event; raises `ServerFailed`."""
        deadline = time.monotonic() + _LIMIT
        while event not in page.told:
            self._receive(deadline, event)

    def _receive(self, deadline: float, awaited: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\0" not in self._received:
            left = deadline - time.monotonic()
            ready = self._answers.poll(max(0.0, 1000 * left))
            piece = os.read(self._process.stdout.fileno(), 1 << 20) if ready else b""
            if not piece:
                how = "ended" if ready else f"did not answer within {_LIMIT:g} s"
                log = self._log.read_text(encoding="utf-8", errors="replace")
                raise ServerFailed(f"chromium {how} at {awaited}\n{log[-4000:]}")
            self._received += piece
        raw, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if page := self._pages.get(message.get("sessionId", "")):
            page.hear(message)
        return message


@define(eq=False)
class Page:
    """A page: what it said and asked for since it was opened."""

    _browser: Browser
    _session: str
    #: Everything on its console, errors of its scripts, and what its policy or the browser refused.
    complaints: list[str] = field(factory=list)
    #: URLs that were asked for, its own left out.
    requests: list[str] = field(factory=list)
    told: set[str] = field(factory=set)
    _url: str = ""

    def call(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol about this page."""
        return self._browser.call(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Opens a URL and waits until all of it is loaded."""
        self.complaints.clear()
        self.requests.clear()
        self.told.clear()
        self._url = url
        done = self.call("Page.navigate", url=url)
        if "errorText" in done:
            raise ServerFailed(f"chromium: {url}: {done['errorText']}")
        self._browser.wait_for(self, "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, which JSON can hold; a promise is awaited."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise ServerFailed(f"chromium: {expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def screenshot(self, width: int = 1280, height: int = 900, *, whole: bool = False) -> bytes:
        """A PNG of the page, or of all that can be scrolled to."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        done = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(done["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def hear(self, message: Mapping[str, Any]) -> None:
        """Takes down an event."""
        method, more = message.get("method", ""), message.get("params", {})
        self.told.add(method)
        match method:
            case "Log.entryAdded":
                self.complaints.append(f"{more['entry']['source']}: {more['entry']['text']}")
            case "Runtime.consoleAPICalled":
                self.complaints.append(f"console.{more['type']}: {json.dumps(more['args'])}")
            case "Runtime.exceptionThrown":
                self.complaints.append(f"exception: {json.dumps(more['exceptionDetails'])}")
            case "Network.requestWillBeSent" if more["request"]["url"] != self._url:
                self.requests.append(more["request"]["url"])


def _environment(folder: Path) -> dict[str, str]:
    # Sound, which it is linked with, keeps a library of its own in a folder of its own.
    return unpacked_environment(folder, "pulseaudio")
