"""Recordings out of archives that are made here, over a server that cuts connections off."""

import hashlib
import http.server
import io
import lzma
import socket
import struct
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.real import (
    archive_members,
    fetch_recordings,
    recording_table,
    sound_containers,
)
from data_pipelines.real.fetch_recordings import Places
from data_pipelines.real.recording_table import Recording, RecordingPackage
from ltu_jax.sources import downloads
from ltu_jax.sources.packages import PackageError

QUIETLY = {"gone": "", "pause": 0, "report": lambda line: None}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wave_of(samples: np.ndarray, rate: int = 8_000, subtype: str = "PCM_U8") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


RAMP = np.linspace(-0.9, 0.9, 500)


def deb(files: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    """Make a Debian archive: `ar` of debian-binary, an odd-sized control, and data.tar.xz."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    parts = [("debian-binary", b"2.0\n"), ("control.tar.gz", b"odd"),
             ("data.tar.xz", lzma.compress(data.getvalue()))]  # fmt: skip
    result = b"!<arch>\n"
    for name, content in parts:
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        result += head + content + b"\n" * (len(content) % 2)
    return result


def wad(sounds: dict[str, tuple[int, np.ndarray]]) -> bytes:
    body, table = b"", b""
    for name, (rate, samples) in sounds.items():
        padded = np.concatenate([[samples[0]] * 16, samples, [samples[-1]] * 16]).astype(np.uint8)
        lump = struct.pack("<HHI", 3, rate, len(padded)) + padded.tobytes()
        table += struct.pack("<II8s", 12 + len(body), len(lump), name.encode())
        body += lump
    return struct.pack("<4sII", b"IWAD", len(sounds), 12 + len(body)) + body + table


def cat(entries: list[tuple[str, bytes]]) -> bytes:
    offset, table, body = 8 * len(entries), b"", b""
    for credit, riff in entries:
        name = credit.encode() + b"\0"
        entry = bytes([len(name)]) + name + riff
        table += struct.pack("<II", (offset + len(body)) | 0x80000000, len(riff))
        body += entry
    return table + body


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def recording(clip: str, file: str, sha256: str) -> Recording:
    return Recording(
        clip=clip, package="game", file=file, label="Dog", fine="Dog", group="Dog / wolf",
        seconds=1.0, licence="CC0", ships=True, split="train", fold=0, cluster=clip, sha256=sha256,
        confirmed=True, gender="", text="", where="here",
    )  # fmt: skip


DOG, COW, HORN = b"OggS dog", b"fLaC cow", wave_of(RAMP)
SHOT = np.arange(40, 240, dtype=np.uint8)
ARCHIVE = deb(
    {
        "usr/share/doc/game/copyright": b"CC0",
        "usr/game/dog.ogg": DOG,
        "usr/game/other.ogg": b"not asked for",
        "usr/game/pak.pk3": zipped({"sounds/cow!.FLAC": COW, "../evil": b"x"}),
        "usr/game/fx.cat": cat([("First. By A.", wave_of(-RAMP)), ('"A Horn (1)". By B.', HORN)]),
        "usr/game/doom.wad": wad({"D_MUSIC": (1, SHOT), "DSSHOT": (11_025, SHOT)}),
    },
    links={"usr/game/link.ogg": "/etc/passwd"},
)
GIVEN = [
    recording("game__dog", "usr/game/dog.ogg", sha(DOG)[:16]),
    recording("game__cow", "usr/game/pak.pk3!sounds/cow!.FLAC", sha(COW)[:16]),
    recording("game__horn", "usr/game/fx.cat!01 A Horn (1)", sha(HORN)[:16]),
    recording("game__shot", "usr/game/doom.wad!DSSHOT", ""),
]
PACKAGE = RecordingPackage(
    name="game", registry="debian", version="1:2.0-1", archive="game_2.0-1+b1_all.deb",
    folder="pool/main/g/game", size=len(ARCHIVE), sha256=sha(ARCHIVE),
)  # fmt: skip


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves one file; the first answers of a test end early, or say that the server is busy."""

    content, cuts, ranges, asked, busy = ARCHIVE, [], True, [], 0

    def do_GET(self):
        cls = type(self)
        start = 0
        cls.asked.append((self.path, self.headers.get("Range")))
        if cls.busy:
            cls.busy -= 1
            self.send_error(503)
            return
        if "game_2.0-1" not in self.path:
            self.send_error(404)
            return
        if (asked := self.headers.get("Range")) and cls.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        body = cls.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cls.cuts:
            self.wfile.write(body[: cls.cuts.pop(0)])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror():
    handler = type("Handler", (Mirror,), {"asked": [], "cuts": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}/debian"
    server.shutdown()
    server.server_close()


def fetch(tmp_path: Path, address: str, given=GIVEN, package=PACKAGE, **more):
    places = Places(mirrors=(address,), report=lambda line: None, **more)
    return fetch_recordings.fetch_package(package, given, out=tmp_path / "out", places=places)


def test_recordings_of_every_kind_of_container(tmp_path, mirror):
    handler, address = mirror
    folder = fetch(tmp_path, address)
    assert (folder / "game__dog.ogg").read_bytes() == DOG
    assert (folder / "game__cow.flac").read_bytes() == COW
    assert (folder / "game__horn.wav").read_bytes() == HORN
    shot, rate = soundfile.read(folder / "game__shot.wav", dtype="int16")
    assert rate == 11_025
    np.testing.assert_array_equal(shot // 256 + 128, SHOT)
    assert (folder / "copyright.txt").read_bytes() == b"CC0"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"game__dog.ogg", "game__cow.flac", "game__horn.wav", "game__shot.wav",
                     "copyright.txt"}  # fmt: skip
    assert not list((tmp_path / "out" / ".archives").iterdir())
    assert len(handler.asked) == 1
    fetch(tmp_path, address)
    assert len(handler.asked) == 1  # what is there is left alone
    fetch(tmp_path, address, given=GIVEN[:2])
    assert len(handler.asked) == 2  # another table is another folder


def test_a_download_goes_on_where_it_was_cut_off(tmp_path, mirror):
    handler, address = mirror
    half = len(ARCHIVE) // 2
    handler.cuts = [half, 3]
    to = tmp_path / "file"
    url = f"{address}/game_2.0-1"
    downloads.download(url, to=to, size=len(ARCHIVE), **QUIETLY)
    assert to.read_bytes() == ARCHIVE
    assert [asked for _, asked in handler.asked] == [None, f"bytes={half}-", f"bytes={half + 3}-"]
    assert not to.with_name("file.part").exists()


def test_what_an_earlier_run_left_is_gone_on_with_or_begun_anew(tmp_path, mirror):
    handler, address = mirror
    to, part = tmp_path / "file", tmp_path / "file.part"
    url = f"{address}/game_2.0-1"
    for ranges, left in ((True, ARCHIVE[:7]), (False, b"another"), (True, ARCHIVE + b"more")):
        handler.ranges, handler.busy = ranges, 1
        part.write_bytes(left)
        downloads.download(url, to=to, size=len(ARCHIVE), **QUIETLY)
        assert to.read_bytes() == ARCHIVE


def test_a_server_that_never_answers_is_given_up_and_the_beginning_kept(tmp_path, mirror):
    handler, address = mirror
    handler.cuts, to = [9] + [0] * 20, tmp_path / "file"
    url = f"{address}/game_2.0-1"
    with pytest.raises(PackageError, match="the 9 bytes that are there are kept"):
        downloads.download(url, to=to, size=len(ARCHIVE), **QUIETLY)
    assert to.with_name("file.part").read_bytes() == ARCHIVE[:9]


def test_a_version_that_left_the_mirror_is_looked_for_on_the_next(tmp_path, mirror):
    handler, address = mirror
    places = Places(mirrors=(f"{address}/none", address), report=lambda line: None)
    gone = RecordingPackage(**{**vars(PACKAGE), "archive": "game_3_all.deb"})
    with pytest.raises(PackageError, match=r"game_3_all\.deb: the server says 404.*--mirror"):
        fetch_recordings.fetch_package(gone, GIVEN, out=tmp_path, places=places)
    assert len(handler.asked) == 2


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--mirror", "deb.debian.org/debian", "--mirror deb.debian.org/debian is no address"),
        ("--archives", "nowhere", "--archives nowhere is no folder"),
    ],
)
def test_a_place_that_is_none_is_named_before_anything_is_fetched(
    tmp_path, monkeypatch, option, value, named
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(downloads, "download", None)
    monkeypatch.setattr("sys.argv", ["fetch", "--only", "bucklespring-data", option, value])
    with pytest.raises(PackageError, match=named):
        fetch_recordings.run()
    assert not list(tmp_path.iterdir())


def test_a_damaged_archive_is_refused_and_fetched_again(tmp_path, mirror):
    handler, address = mirror
    handler.content = ARCHIVE[:-1] + b"?"
    with pytest.raises(PackageError, match="it is damaged or another version; run the same"):
        fetch(tmp_path, address)
    handler.content = ARCHIVE
    assert (fetch(tmp_path, address) / "game__dog.ogg").is_file()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (recording("game__dog", "usr/game/dog.ogg", "0" * 16), "has sha256"),
        (recording("game__link", "usr/game/link.ogg", ""), r"has no usr/game/link\.ogg"),
        (recording("game__cat", "usr/game/fx.cat!00 Horn", ""), "has no usr/game/fx.cat!00 Horn"),
    ],
)
def test_a_file_that_the_table_does_not_mean_is_refused(tmp_path, changed, named):
    (tmp_path / PACKAGE.archive).write_bytes(ARCHIVE)
    with pytest.raises(PackageError, match=named):
        fetch(tmp_path, "unused:", given=[GIVEN[1], changed], archives=tmp_path)
    assert not fetch_recordings.package_folder(tmp_path / "out", PACKAGE).exists()
    assert (tmp_path / PACKAGE.archive).is_file()  # a person's own file


@pytest.mark.parametrize(
    "damage",
    [ARCHIVE[:100], b"x" * 99, ARCHIVE[: len(ARCHIVE) // 2], ARCHIVE.replace(b"`\n", b"??", 2)],
)
def test_a_broken_archive_is_an_error_by_name(tmp_path, damage):
    path = tmp_path / "game.deb"
    path.write_bytes(damage)
    with pytest.raises(PackageError, match=r"game\.deb cannot be read"):
        for _, stream in archive_members.read_members(path, {"usr/game/doom.wad", "none"}):
            stream.read()


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("a.wad", b"IWAD" + b"\xff" * 30, "DSSHOT"),
        ("a.wad", wad({"DSSHOT": (1, SHOT)})[:60], "DSSHOT"),
        ("a.cat", cat([("Horn.", b"RIFX" + HORN[4:])]), "00 Horn"),
        ("a.pk3", zipped({"x": b"y"})[:-30], "x"),
        ("a.zip", b"PK\3\4", "x"),
    ],
)
def test_a_broken_container_is_an_error_by_name(tmp_path, name, content, wanted):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PackageError, match=name.replace(".", r"\.")):
        list(sound_containers.read_contents(path, {wanted}))


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("a.wad", wad({"DSSHOT": (11_025, SHOT[:40])}), "DSSHOT"),
        ("a.cat", cat([("Horn.", wave_of(RAMP[:40]))]), "00 Horn"),
        ("a.pk3", zipped({"x": DOG}), "x"),
    ],
    ids=["wad", "cat", "zip"],
)
def test_no_byte_of_a_container_is_trusted(tmp_path, name, content, wanted):
    """Cut off anywhere, or with any byte changed, it is read, or is an error by name."""
    path = tmp_path / name
    changed = [content[:end] for end in range(len(content))]
    for place in range(len(content)):
        for byte in {0, 0xFF, content[place] ^ 1}:
            changed.append(content[:place] + bytes([byte]) + content[place + 1 :])
    refused = 0
    for damaged in changed:
        path.write_bytes(damaged)
        try:
            found = list(sound_containers.read_contents(path, {wanted}))
        except PackageError as error:
            refused += 1
            assert name in str(error)
        else:
            assert all(len(data) <= len(content) + 44 for _, data in found)
    assert refused > len(content) // 3


def test_a_lump_that_claims_gigabytes_is_not_made_room_for(tmp_path):
    path, whole = tmp_path / "a.wad", wad({"DSSHOT": (11_025, SHOT)})
    table = struct.pack("<II8s", 12, 0xFFFF_FFFF, b"DSSHOT")
    path.write_bytes(whole[: -len(table)] + table)
    with pytest.raises(PackageError, match="DSSHOT says that it has 4294967295 bytes"):
        list(sound_containers.read_contents(path, {"DSSHOT"}))


def test_wheels_and_source_distributions_are_read_the_same_way(tmp_path):
    (tmp_path / "a.whl").write_bytes(zipped({"a/x.ogg": DOG, "a/y.ogg": COW}))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("a-1/x.ogg")
        member.size = len(DOG)
        archive.addfile(member, io.BytesIO(DOG))
    for file, name in (("a.whl", "a/x.ogg"), ("a.tar.gz", "a-1/x.ogg")):
        found = archive_members.read_members(tmp_path / file, {name})
        assert [(one, stream.read()) for one, stream in found] == [(name, DOG)]


def test_the_folder_says_of_which_table_it_is(tmp_path, mirror):
    folder = fetch(tmp_path, mirror[1])
    assert (folder / ".recordings").read_text().strip() == recording_table.digest(GIVEN)
    assert recording_table.digest(GIVEN) != recording_table.digest(GIVEN[1:])
