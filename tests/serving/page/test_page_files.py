"""The page's files: what is vendored is unmodified, nothing is inline, all that is named exists."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from ltu_jax.serving import page

FOLDER = Path(page.__file__).parent


def test_vendored_files_are_those_of_the_manifest():
    manifest = json.loads((FOLDER / "vendor" / "manifest.json").read_text())
    listed = {
        name: file["sha256"]
        for package in manifest.values()
        for name, file in package["files"].items()
    }
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (FOLDER / "vendor").iterdir()
        if path.name != "manifest.json"
    }
    assert found == listed
    assert "Redistribution and use" in (FOLDER / "vendor" / "wavesurfer.LICENSE").read_text()


def test_it_is_small():
    assert sum(len(file.body) for file in page.FILES.values()) < 300_000


class _Inline(HTMLParser):
    """Collects what a strict policy forbids in a page, and the addresses it names."""

    def __init__(self):
        super().__init__()
        self.forbidden, self.named, self.inside = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.forbidden.append((tag, name))
            if name in ("src", "href") and not value.startswith("#"):
                self.named.append(value)

    def handle_data(self, data):
        if self.inside in ("script", "style") and data.strip():
            self.forbidden.append(self.inside)


def test_nothing_is_inline_and_every_file_that_is_named_is_there():
    parser = _Inline()
    parser.feed(page.FILES["/"].body.decode())
    assert not parser.forbidden
    named = set(parser.named)
    for url, file in page.FILES.items():
        if url.endswith(".js") and "/vendor/" not in url:
            text = file.body.decode()
            assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
            imported = re.findall(r"""(?:from |new URL\()["'](?:\./)?([\w./]+)["']""", text)
            named |= {f"/page/{one}" for one in imported}
    assert named <= page.FILES.keys() and len(named) > 12


def test_every_sound_says_where_it_is_from_and_may_be_passed_on():
    examples = json.loads(page.FILES["/page/examples/examples.json"].body)
    sounds = {path.name for path in (FOLDER / "examples").iterdir()} - {"examples.json"}
    assert {one["file"] for one in examples} == sounds
    for one in examples:
        assert one["source"] and one["licence"] in ("Apache-2.0", "CC0-1.0", "public domain")


def test_the_policy_allows_no_inline_script_and_no_other_host():
    policy = dict(
        part.split(" ", 1) for part in page.HEADERS["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert not re.search("unsafe|https?:|[*]", " ".join(policy.values()))
