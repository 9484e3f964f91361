"""The doctor finds exactly the defects that were put in, in all three kinds of data."""

import html.parser
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.doctor import __main__ as doctor
from data_pipelines.doctor.checks import CHECKS
from data_pipelines.doctor.text_checks import is_unanswerable
from data_pipelines.input.token_counts import pair_tokens
from data_pipelines.records import record_files
from ltu_jax.core.errors import UserError
from tests.support import records_corpus

RATE = 16000


def _row(audio_id, split="train", **changes):
    values = {
        "instruction": "What is heard?", "input": "", "audio_id": audio_id, "dataset": "mine",
        "task": "cla_sound", "output": f"Sound of {audio_id}.", "split": split,
    }  # fmt: skip
    return values | changes


def _found(report):
    return {check["name"]: check["found"] for check in report["checks"] if check["found"]}


def _examine(tmp_path, *arguments):
    path = tmp_path / "report.json"
    status = doctor.command([*map(str, arguments), "--json", str(path)])
    return status, json.loads(path.read_text())


def _write_rows(folder, rows, name="rows.json"):
    (folder / name).write_text(json.dumps(rows))
    return folder / name


@pytest.fixture
def sick(tmp_path) -> Path:
    """A manifest with one defect of each kind; the comments count them."""
    folder = tmp_path / "sick"
    folder.mkdir()

    def save(name, samples, rate=RATE, **options):
        soundfile.write(folder / name, samples, rate, **options)

    sound = [records_corpus.samples(number, seconds=1) for number in range(12)]
    save("good.wav", sound[0])
    same, _ = soundfile.read(folder / "good.wav", dtype="int16")
    save("again.flac", same)  # twins: the same samples in another container
    save("stereo.wav", np.stack([sound[1]] * 2, axis=1)[:44100], 44100)
    save("short.wav", sound[2][:1600])
    save("silent.wav", np.zeros(RATE, np.float32))
    save("silent_too.wav", np.zeros(RATE, np.float32))  # silent, but not a twin
    save("faint.wav", 1e-5 * sound[3], subtype="FLOAT")
    save("clipped.wav", np.clip(8 * sound[4], -1, 1))
    gap = sound[5].copy()
    gap[4000:4800] = 0
    save("gap.wav", gap)
    save("long.wav", np.tile(sound[6], 12))
    save("leak.wav", sound[0])  # the training's good.wav, in test
    (folder / "cut.flac").write_bytes((folder / "again.flac").read_bytes()[:3000])
    save("spoken.wav", sound[7])
    save("spoken_test.wav", sound[8])
    save("asked.wav", sound[9])
    speech = "The quick brown fox, it jumps!"
    story = "A long and detailed answer that tells of all sounds in it."
    rows = [
        _row("good.wav"), _row("again.flac"), _row("stereo.wav"), _row("short.wav"),
        _row("silent.wav"), _row("silent_too.wav"), _row("faint.wav"), _row("clipped.wav"),
        _row("gap.wav"), _row("long.wav"), _row("cut.flac"), _row("gone.wav"),
        _row("leak.wav", "test"),
        _row("spoken.wav", input=speech),
        _row("spoken.wav", input=speech, task="open_a", instruction="Tell.", output=story),
        _row("spoken_test.wav", "test", input="the quick brown fox it JUMPS"),
        _row("spoken_test.wav", "test", input="the quick brown fox it JUMPS", task="open_a",
             instruction="Tell.", output=story.upper()),
        _row("asked.wav", output="A bell."),
        _row("asked.wav", output="a bell"),  # repeated
        _row("asked.wav", output="A horn."),  # contradicts
        _row("asked.wav", instruction="Who?", output="It cannot be determined from the audio."),
        _row("asked.wav", instruction="<script>alert(1)</script>", output="No information given."),
        _row("asked.wav", instruction="", output="x"),  # a row that breaks the format
    ]  # fmt: skip
    return _write_rows(folder, rows)


TRUTH = {
    "rows": 1, "missing": 1, "corrupt": 1, "short": 1, "silent": 3, "clipped": 1, "dropouts": 1,
    "unheard": 1, "twins": 1, "leaked_audio": 1, "leaked_text": 1, "shared_answers": 1,
    "repeated": 1, "contradictions": 1, "unanswerable": 2, "no_licence": 16,
}  # fmt: skip


def test_every_defect_of_a_manifest_is_counted_once(sick, tmp_path, capsys):
    status, report = _examine(tmp_path, sick, "--html", tmp_path / "report.html")
    assert status == 1 and not report["ok"]
    assert _found(report) == TRUTH
    assert (report["clips"], report["heard"], report["pairs"]) == (16, 14, 22)
    bad = {check["name"] for check in report["checks"] if not check["ok"]}
    assert bad == set(TRUTH) - {"dropouts", "unheard", "shared_answers", "no_licence"}
    assert report["formats"] == {"16000 Hz, 1 ch": 13, "44100 Hz, 2 ch": 1}
    assert sum(report["histograms"]["seconds"]["counts"]) == 14
    assert sum(report["histograms"]["characters"]["counts"]) == 22
    assert report["seconds"] == pytest.approx(11 + 0.1 + 12 + RATE / 44100, abs=0.01)
    shown = capsys.readouterr().out
    assert "NOT healthy: rows, missing, corrupt" in shown
    assert "row 12" in shown and "gone.wav" in shown and "cut.flac: damaged" in shown
    where = {check["name"]: check["examples"] for check in report["checks"]}
    assert "leak.wav" in (sick.parent / "rows.json").read_text()
    assert where["leaked_audio"][0]["what"].endswith("row 1 of train")


def test_a_manifest_has_the_clips_that_write_records_makes_of_it(tmp_path):
    for number, name in enumerate("ab"):
        soundfile.write(tmp_path / f"{name}.wav", records_corpus.samples(number, seconds=1), RATE)
    rows = [
        _row("a.wav"), _row("a.wav", dataset="other"),  # a clip in each dataset, and no twin
        _row("b.wav", input="Hello"), _row("b.wav", input="Hello", instruction="Who?"),
        _row("b.wav", input="Goodbye"),  # disagrees with most
    ]  # fmt: skip
    path = _write_rows(tmp_path, rows)
    _, report = _examine(tmp_path, path)
    assert (report["clips"], report["pairs"], _found(report)["rows"]) == (3, 4, 1)
    assert "'Goodbye'" in report["checks"][0]["examples"][0]["what"]
    assert "twins" not in _found(report)
    path.write_text(path.read_text()[:-20])  # what stands before is examined all the same
    _, report = _examine(tmp_path, path)
    assert (report["clips"], report["pairs"], _found(report)["rows"]) == (3, 4, 1)


def test_a_copy_of_a_file_is_a_twin_in_whatever_dataset(tmp_path):
    for name in ("a", "copy", "third"):
        soundfile.write(tmp_path / f"{name}.wav", records_corpus.samples(0, seconds=1), RATE)
    rows = [
        _row("a.wav"), _row("a.wav", dataset="other"), _row("copy.wav", dataset="other"),
        _row("third.wav", "test"), _row("third.wav", "test", dataset="other"),
    ]  # fmt: skip
    _, report = _examine(tmp_path, _write_rows(tmp_path, rows))
    found = _found(report)
    assert (report["clips"], found["twins"], found["leaked_audio"]) == (5, 1, 1)
    where = {check["name"]: check["examples"] for check in report["checks"]}
    assert where["twins"][0]["where"].endswith("row 3")
    assert where["twins"][0]["what"].endswith("row 1")


def test_limits_decide_and_the_rest_are_notes(sick, tmp_path):
    arguments = [f"--limit={name}=1" for name in TRUTH]
    status, report = _examine(tmp_path, sick, *arguments)
    assert status == 0 and report["ok"] and _found(report) == TRUTH
    arguments[list(TRUTH).index("short")] = f"--limit=short={1 / 16 - 1e-6}"
    assert _examine(tmp_path, sick, *arguments)[0] == 1


class _Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_stands_alone_and_no_text_becomes_markup(sick, tmp_path):
    rows = json.loads(sick.read_text())
    rows.append(_row("asked.wav", instruction="<img src=x onerror=y>", output="\u202eno details"))
    sick.write_text(json.dumps([row | {"dataset": "</svg><b>d"} for row in rows]))
    out = tmp_path / "report.html"
    assert doctor.command([str(sick), "--html", str(out)]) == 1
    page = _Page()
    page.feed(out.read_text())
    assert page.links == [] and not {"script", "img", "link", "b"} & set(page.tags)
    assert page.tags.count("svg") >= 4 and "\u202e" not in out.read_text()
    words = "".join(page.words)
    assert "<img src=x onerror=y>" in words and "</svg><b>d" in words
    assert all(check.title in words for check in CHECKS.values())


def test_tokens_and_what_the_cut_off_takes(tmp_path, golden, tokenizer):
    soundfile.write(tmp_path / "a.wav", records_corpus.samples(1, seconds=1), RATE)
    texts = [("Short?", "Yes."), ("Short?" * 3, "noise " * 40), ("long " * 60, "Never.")]
    rows = [
        _row("a.wav", instruction=ask, output=answer, task=f"cla_{place}")
        for place, (ask, answer) in enumerate(texts)
    ]
    rows.append(_row("a.wav", instruction="Nothing?", output="</s>", task="cla_3"))
    counted = [
        pair_tokens(tokenizer, instruction=row["instruction"], spoken_text="", output=row["output"])
        for row in rows
    ]
    cutoff = counted[1][0] + 5
    assert counted[0][1] < cutoff < counted[2][0] and counted[1][1] > cutoff
    vocabulary = golden / "text_cases" / "spm320.model"
    status, report = _examine(
        tmp_path, _write_rows(tmp_path, rows), "--tokenizer", vocabulary, "--cutoff", cutoff
    )
    found = _found(report)
    assert status == 1
    assert (found["cut"], found["answers_gone"], found["no_token"]) == (2, 1, 1)
    whole = [length for _, length in counted]
    assert report["tokens"]["total"] == sum(whole)
    assert report["tokens"]["lost"] == sum(max(0, length - cutoff) for length in whole)
    assert report["tokens"]["tasks"]["cla_2"] == {"pairs": 1, "cut": 1, "answers gone": 1}
    bins = report["histograms"]["tokens"]
    for place, count in enumerate(bins["counts"]):
        low, high = bins["edges"][place : place + 2]
        assert count == sum(low <= length < high for length in whole)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("It cannot be determined from the audio.", True),
        ("The speaker\u2019s age is not specified.", True),
        ("I don't know.", True),
        ("There is no information about the place.", True),
        ("It's difficult to say who speaks.", True),
        ("A dog barks and a man says that he can do it.", False),
        ("She does not sound happy.", False),
        ("The music is not loud.", False),
    ],
)
def test_unanswerable_answers(answer, wanted):
    assert is_unanswerable(answer) == wanted


# --- records --------------------------------------------------------------------------------------


def test_whole_records_are_healthy(records_dir, tmp_path):
    status, report = _examine(tmp_path, records_dir, "--limit=unheard=1")
    assert status == 0 and report["kind"] == "records"
    assert set(_found(report)) <= {"no_licence", "unheard", "shared_answers"}
    assert (report["clips"], report["heard"], report["pairs"]) == (9, 9, 22)
    train = report["datasets"]["train"]
    assert {name: of["clips"] for name, of in train.items()} == {"mini_sound": 4, "mini_speech": 3}
    assert report["tasks"]["train"]["cla_sound"]["closed"] == 11


def test_damage_of_records_is_found(records_copy, tmp_path):
    store = record_files.RecordStore(records_copy, split="train")
    victim = store.entries[1]
    path = record_files.shard_path(records_copy, victim.shard)
    content = bytearray(path.read_bytes())
    content[victim.offset + 99] ^= 1
    path.write_bytes(content)
    shutil.copy(path, path.with_name("stray.tfrecord"))
    (records_copy / "quarantine.jsonl").write_text('{"reason": "gone"}\n')

    def silence(fields):
        fields["tags"].bytes_list.value[:] = [b"howl"]

    other = next(e for e in store.entries if e.shard != victim.shard)
    records_corpus.tamper(records_copy, other.clip_id, silence)
    status, report = _examine(tmp_path, records_copy)
    assert status == 1
    found = _found(report)
    assert (found["damaged"], found["foreign"], found["quarantined"]) == (1, 1, 1)
    assert (found["shards"], found["unknown_tags"]) == (2, 1)
    assert (report["clips"], report["heard"]) == (9, 8)
    damaged = next(check for check in report["checks"] if check["name"] == "damaged")
    assert f"(clip '{victim.clip_id}'): checksum differs" in damaged["examples"][0]["what"]


# --- corpus ---------------------------------------------------------------------------------------


@pytest.fixture
def corpus(clips, tmp_path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines, rows = [], {"train": [], "val": [], "test": []}
    for clip in clips:
        shutil.copy(clip.audio, folder / clip.audio.name)
        digest = record_files.sha256_file(clip.audio)
        lines.append(
            {
                "clip_id": clip.clip_id, "split": clip.split, "dataset": clip.dataset,
                "audio": clip.audio.name, "spoken_text": clip.spoken_text,
                "tags": list(clip.tags), "sha256": digest,
                "source": {"license": "CC0" if clip.dataset == "mini_sound" else ""},
            }
        )  # fmt: skip
        for pair in clip.pairs:
            changes = dict(instruction=pair.instruction, output=pair.output, task=pair.task)
            row = _row(clip.audio.name, input=clip.spoken_text, **changes)
            rows[clip.split].append({k: v for k, v in row.items() if k != "split"})
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "tag_labels.json").write_text(json.dumps(records_corpus.LABELS))
    for split, found in rows.items():
        _write_rows(folder, found, f"open_asqa_{split}.json")
    return folder


def test_a_corpus_with_its_licences(corpus, tmp_path):
    status, report = _examine(tmp_path, corpus)
    assert status == 0
    assert report["licences"] == {"mini_sound": {"CC0": 5}, "mini_speech": {"unknown": 4}}
    assert _found(report)["no_licence"] == 4 and report["pairs"] == 22


def test_a_corpus_that_changed(corpus, tmp_path):
    (corpus / "clip1.flac").write_bytes((corpus / "clip2.flac").read_bytes())
    (corpus / "clip3.flac").unlink()
    text = (corpus / "clips.jsonl").read_text().splitlines()
    lines = ["{broken", *text[:-1], '{"clip_id": 3}', "[1]"]
    (corpus / "clips.jsonl").write_text("\n".join(lines) + "\n")
    rows = json.loads((corpus / "open_asqa_train.json").read_text())
    _write_rows(corpus, [*rows, _row("nowhere.flac"), 7], "open_asqa_train.json")
    status, report = _examine(tmp_path, corpus)
    found = _found(report)
    assert status == 1
    assert (found["corrupt"], found["missing"]) == (1, 1)
    # Three lines of clips.jsonl, the number, rows about a clip that is none: twice.
    assert found["rows"] == 6


def test_what_is_no_data_is_said(tmp_path, records_dir, sick):
    for arguments, message in (
        ([tmp_path], "is no data: give a corpus folder"),
        ([tmp_path / "none.json"], "is no data"),
        ([records_dir, "--audio-root", tmp_path], "--audio-root belongs to a JSON file"),
        ([sick, "--limit", "quiet=1"], "no check 'quiet'; there are rows, shards"),
        ([sick, "--limit", "silent"], "give silent=SHARE"),
        ([sick, "--limit", "silent=2"], "between 0 and 1"),
        ([sick, "--every", "0"], "--every is 0; it must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            doctor.command(list(map(str, arguments)))
