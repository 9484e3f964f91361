"""Debian's Chromium, headless, with a microphone that beeps; and axe-core, fetched by its hash."""

import contextlib
import fcntl
import hashlib
import io
import shutil
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ASSETS = Path(__file__).resolve().parents[3] / "assets"
AXE = "https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz"  # MPL-2.0
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
# Remembers each microphone that the page opens, and what the page could not load.
WATCH = """
window.microphones = [];
window.violations = [];
const devices = navigator.mediaDevices;
const open = devices.getUserMedia.bind(devices);
devices.getUserMedia = async (wanted) => {
  const stream = await open(wanted);
  window.microphones.push(...stream.getTracks());
  return stream;
};
document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  window.violations.push(`${violatedDirective} ${blockedURI}`));
"""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser, or skip saying what is missing."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: apt install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=path,
            args=[
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                "--autoplay-policy=no-user-gesture-required",
                "--disable-gpu",
                "--no-sandbox",
            ],
        )
        yield browser
        browser.close()


def axe_source() -> str:
    """Return axe-core's script, or skip where the registry is out of reach."""
    kept = ASSETS / "axe-core-4.14.1.min.js"
    ASSETS.mkdir(exist_ok=True)
    with (ASSETS.parent / "assets.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_file():
            try:
                with urllib.request.urlopen(AXE, timeout=30) as answer:
                    packed = answer.read()
            except OSError as error:
                pytest.skip(f"axe-core cannot be fetched: {error}")
            assert hashlib.sha256(packed).hexdigest() == AXE_SHA256
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                script = archive.extractfile("package/axe.min.js").read()
            kept.with_suffix(".part").write_bytes(script)
            kept.with_suffix(".part").rename(kept)
    return kept.read_text("utf-8")
