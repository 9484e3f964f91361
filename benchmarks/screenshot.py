"""Take the picture of the page in the README from a server that runs.

python -m benchmarks.screenshot --url http://127.0.0.1:8000 --out docs/images/demo.png
"""

import argparse
import io
import shutil
from pathlib import Path
from urllib.parse import urljoin

from ltu_jax.core import errors
from ltu_jax.core.errors import UserError

QUESTION = "What can be inferred from the audio?"


def take(url: str, *, out: Path, scheme: str, patience: float) -> None:
    """Ask about an example, look at what was listened to, and write the picture.

    Args:
        url: address of the page.
        out: the PNG.
        scheme: "light" or "dark".
        patience: seconds that one step of the server may take.

    Raises:
        UserError: Debian's chromium is not installed.
    """
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise UserError("there is no chromium; apt install chromium")
    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=chromium, args=["--disable-gpu", "--no-sandbox"]
        )
        page = browser.new_page(
            viewport={"width": 1280, "height": 860},
            device_scale_factor=1.5,
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        page.set_default_timeout(1000 * patience)
        page.goto(urljoin(url, "/"))
        page.get_by_role("button", name="a voice and frogs").click()
        page.locator("#segments li").first.wait_for()
        page.locator(".modes label").nth(3).click()
        page.locator("#question").fill(QUESTION)
        page.locator("#question").press("Enter")
        page.locator("#send").wait_for()
        page.get_by_role("button", name="What it listened to").first.click()
        page.locator("#explanation").wait_for()
        page.get_by_role("listbox").press("ArrowRight")
        page.evaluate("scrollTo(0, 0)")
        picture = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    # A palette halves the file; what is seen stays.
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the server runs")
    parser.add_argument("--out", type=Path, default=Path("docs/images/demo.png"))
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds a step may take")
    given = parser.parse_args()
    take(given.url, out=given.out, scheme=given.scheme, patience=given.patience)


if __name__ == "__main__":
    errors.main(main)
