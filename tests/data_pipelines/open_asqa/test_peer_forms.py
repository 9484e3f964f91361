"""Other projects' forms: what their files say comes in, ours goes out and comes in again alike."""

import json

import numpy as np
import pytest
import soundfile

from data_pipelines.manifests.official_rows import rows_or_errors
from data_pipelines.manifests.peer_forms import FORMS
from data_pipelines.open_asqa import __main__ as command
from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.conversion import ConversionOrder
from data_pipelines.open_asqa.export_step import export_rows
from data_pipelines.open_asqa.import_step import ImportChoices, import_rows
from ltu_jax.core.errors import UserError
from tests.support.built_folder import lines

OPEN = "open-ended question"
ROWS = [
    {"instruction": "Which sounds?", "input": "", "audio_id": "a/1.wav", "dataset": "fsd50k_tr",
     "task": "cla_label", "output": "Labels: Dog; Gurgling, bubbling"},
    {"instruction": "What\nis said?", "input": "Hi \u2028 there “you”.", "audio_id": "/b/2.flac",
     "dataset": "iemocap_tr", "task": "ASR", "output": "Spoken text: Hi there."},
    {"instruction": "Why <so>?", "input": "Hi", "audio_id": "/b/2.flac", "dataset": "IEMOCAP",
     "task": OPEN, "output": "Because.", "split": "val", "tags": ["Speech"]},
]  # fmt: skip


def imported(tmp_path, form, content, *, name="peer.json", dataset="mine", most=0.0, **choices):
    """Import a file of this text; return its official rows and reasons of those left out."""
    file, out = tmp_path / name, tmp_path / "rows.jsonl"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    order = ConversionOrder(step="import", file=file, form=form, out=out, max_bad_rows=most)
    import_rows(order, ImportChoices(dataset=dataset, **choices))
    bad = [line["reason"] for line in lines(tmp_path / "rows.jsonl.bad_rows.jsonl")]
    return lines(out), bad


def row(question, answer, *, audio="a.wav", task=OPEN, dataset="mine", text=""):
    return {"instruction": question, "input": text, "audio_id": audio, "dataset": dataset,
            "task": task, "output": answer}  # fmt: skip


def test_salmonn(tmp_path):
    content = {
        "annotation": [
            {"path": "a.wav", "text": "two dogs", "task": "audiocaption", "Q": "Describe."},
            {"path": "a.wav", "text": "hello", "task": "asr"},
            {"path": "b.wav", "text": "yes", "task": "QA", "Q": "Is it?"},
            {"path": "c.wav", "text": "t", "task": "translation_ec"},
        ],
        "version": 2,
    }
    prompts = {"translation_ec": ("Translate to Chinese.",)}
    rows, bad = imported(tmp_path, "salmonn", content, prompts=prompts, open_tasks=("QA",))
    assert not bad
    assert rows[0] == row("Describe.", "two dogs", task="audiocaption")
    assert rows[1]["instruction"] in draw.wordings()["ASR"] and rows[1]["output"] == "hello"
    assert rows[2:] == [
        row("Is it?", "yes", audio="b.wav"),
        row("Translate to Chinese.", "t", audio="c.wav", task="translation_ec"),
    ]


def test_llava(tmp_path):
    def entry(sound, *turns):
        speakers = ("human", "gpt") * len(turns)
        said = [{"from": s, "value": t} for s, t in zip(speakers, turns, strict=False)]
        return {"id": "1", "sound": sound, "duration": 3.2, "conversations": said}

    rows, _ = imported(
        tmp_path, "llava", [entry("a.wav", "<sound>\nWhat?", "A dog."), entry(["b.wav"], "Q", "A")]
    )
    assert rows == [row("What?", "A dog."), row("Q", "A", audio="b.wav")]
    several = [entry("a.wav", "<sound>\nWhat?", "A dog.", "And?", "A cat.")]
    rows, _ = imported(tmp_path, "llava", several, turns="all")
    assert rows == [row("What?", "A dog."), row("And?", "A cat.")]
    rows, _ = imported(tmp_path, "llava", several, turns="first")
    assert rows == [row("What?", "A dog.")]
    with pytest.raises(UserError, match="2 questions"):
        imported(tmp_path, "llava", several)


def test_slam(tmp_path):
    content = (
        '{"key": "Santa Motor", "prompt": "<AAC>", "source": "a.wav", "target": "A motor.", '
        '"source_len": 10, "task-type": "<AAC>"}\n'
        '{"key": "1", "source": "a.wav", "target": "HELLO"}\n'
        '{"key": "2", "task": "EN2ZH", "target": "t", "path": "a.wav"}\n'
    )
    prompts = {"EN2ZH": ("Translate.",)}
    rows, bad = imported(tmp_path, "slam", content, name="train.jsonl", prompts=prompts)
    assert not bad and rows[0] == row("<AAC>", "A motor.", task="<AAC>")
    assert (rows[1]["task"], rows[1]["output"]) == ("ASR", "HELLO")
    assert rows[2] == row("Translate.", "t", task="EN2ZH")


def test_nemo_manifests_are_lines_whatever_their_name(tmp_path):
    content = (
        '{"audio_filepath": "a.wav", "duration": 3.4, "text": "hello there", "offset": 0.0}\n'
        '{"audio_filepath": "a.wav", "duration": null, "context": "Who?", "answer": "A dog."}\n'
        '{"audio_filepath": "a.wav", "duration": 2, "question": "Who?", "text": "A cat."}\n'
    )
    rows, bad = imported(tmp_path, "nemo", content, name="manifest.json")
    assert not bad
    assert rows[0] == row(
        rows[0]["instruction"], "Spoken text: hello there", task="ASR"
    ) and rows[0]["instruction"] in draw.wordings()["ASR"]  # fmt: skip
    assert rows[1:] == [row("Who?", "A dog."), row("Who?", "A cat.")]


def test_gama(tmp_path):
    content = [{"audio_id": "a.wav", "instruction": "Q", "output": "A"}]
    rows, _ = imported(tmp_path, "gama", content)
    assert rows == [row("Q", "A")]


@pytest.mark.parametrize("form", FORMS)
def test_ours_goes_out_and_comes_in_again(tmp_path, form):
    given, out = tmp_path / "given.json", tmp_path / "peer.json"
    given.write_text(json.dumps(ROWS))
    export_rows(ConversionOrder(step="export", file=given, form=form, out=out))
    rows, bad = imported(tmp_path, form, out.read_text(encoding="utf-8"), name="again.json")
    expected = [dict(one) for one in ROWS]
    if form == "gama":
        expected = [one | {"input": ""} for one in expected]
    assert rows == expected and not bad


def test_what_goes_out_has_the_names_that_others_read(tmp_path):
    given = tmp_path / "given.json"
    given.write_text(json.dumps(ROWS))

    def exported(form):
        out = tmp_path / f"{form}.json"
        export_rows(ConversionOrder(step="export", file=given, form=form, out=out))
        return out.read_text(encoding="utf-8")

    annotation = json.loads(exported("salmonn"))["annotation"]
    assert [(one["path"], one["text"], one["task"], one["Q"]) for one in annotation] == [
        (one["audio_id"], one["output"], one["task"], one["instruction"]) for one in ROWS
    ]
    turns = json.loads(exported("llava"))[0]["conversations"]
    assert turns == [
        {"from": "human", "value": "<sound>\nWhich sounds?"},
        {"from": "gpt", "value": ROWS[0]["output"]},
    ]
    manifest = [json.loads(line) for line in exported("nemo").split("\n") if line]
    assert (manifest[1]["text"], manifest[1]["duration"]) == ("Hi there.", None)
    slam = [json.loads(line) for line in exported("slam").split("\n") if line]
    assert len({one["key"] for one in slam}) == 3
    assert all("input" not in one for one in json.loads(exported("gama")))


def test_audio_is_found_and_measured(tmp_path):
    root = tmp_path / "audio" / "deep"
    root.mkdir(parents=True)
    soundfile.write(root / "2.flac", np.zeros(12_000, np.float32), 16_000)
    given, out = tmp_path / "given.json", tmp_path / "out.json"
    given.write_text(json.dumps(ROWS))
    order = ConversionOrder(step="export", file=given, form="llava", out=out, max_bad_rows=0.4)
    export_rows(order, audio_root=tmp_path / "audio")
    entries = json.loads(out.read_text())
    assert [(e["sound"], e["duration"]) for e in entries] == [(str(root / "2.flac"), 0.75)] * 2
    reasons = [line["reason"] for line in lines(tmp_path / "out.json.bad_rows.jsonl")]
    assert len(reasons) == 1 and "row 1" in reasons[0] and "a/1.wav" in reasons[0]


BROKEN = [
    ("salmonn", {"annotation": [{"path": "a.wav", "task": "asr"}]}, "row 1: field 'text'"),
    ("salmonn", {"annotation": [{"path": "a", "text": "t", "expand_wav": ["b"]}]}, "expand_wav"),
    ("salmonn", {"annotation": [{"path": "a", "text": "t", "task": "st"}]}, "'st' has none"),
    ("salmonn", '{"annotation": [{"path": ', "not valid JSON"),
    ("salmonn", {"version": 1, "annotation": []}, "begins with"),
    ("llava", [{"sound": ["a", "b"], "conversations": []}], "names 2 files"),
    ("llava", [{"sound": "a", "conversations": [{"from": "human", "value": "x"}]}], "in turn"),
    ("llava", [{"sound": "a", "conversations": [{"from": "gpt", "value": "x"}] * 2}], "'human'"),
    ("slam", '{"source": "a.wav", "target": " "}\n', "row 1: field 'target'"),
    ("slam", '{"source": "a.wav", \n', "row 1: not valid JSON"),
    ("nemo", '{"audio_filepath": "a", "text": "t", "offset": 3.5}\n', "offset"),
    ("nemo", '7\n{"text": "t"}\n', "audio_filepath"),
    ("gama", [{"audio_id": "a.wav", "instruction": "Q"}], "field 'output' is empty"),
    ("open_asqa", [ROWS[0] | {"input": None}, 7], "row 2"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "content", "named"), BROKEN)
def test_a_bad_entry_is_named_by_file_and_row(tmp_path, form, content, named):
    with pytest.raises(UserError, match="was not written|no entries") as error:
        imported(tmp_path, form, content)
    reasons = (tmp_path / "rows.jsonl.bad_rows.jsonl").read_text()
    assert named in reasons and str(tmp_path / "peer.json") in reasons
    assert str(tmp_path / "peer.json") in str(error.value)
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_few_bad_entries_are_left_out(tmp_path):
    content = "".join(
        json.dumps({"source": "a.wav", "target": "x" if number != 3 else ""}) + "\n"
        for number in range(40)
    )
    rows, bad = imported(tmp_path, "slam", content, most=0.05)
    assert len(rows) == 39 and len(bad) == 1 and "row 4" in bad[0]


def test_the_command_reads_both_forms_of_prompts(tmp_path, capsys):
    peer = tmp_path / "my_set.json"
    peer.write_text(json.dumps({"annotation": [{"path": "a", "text": "t", "task": "st"}]}))
    prompts = {
        "p.json": json.dumps({"st": ["<Speech><SpeechHere></Speech> Translate."], "QA": ["{}"]}),
        "p.jsonl": '{"task": "st", "prompt": "Translate."}\n',
    }
    for name, text in prompts.items():
        (tmp_path / name).write_text(text)
        out = tmp_path / f"{name}.out.json"
        given = ["import", str(peer), "--form", "salmonn", "--out", str(out)]
        assert command.command([*given, "--prompts", str(tmp_path / name)]) == 0
        assert json.loads(out.read_text()) == [
            row("Translate.", "t", audio="a", task="st", dataset="my_set")
        ]
        assert "my_set 1" in capsys.readouterr().out
        assert command.command(["export", str(out), "--form", "nemo", "--out", f"{out}l"]) == 0
    assert len(list(rows_or_errors(tmp_path / "p.json.out.json"))) == 1
    (tmp_path / "p.jsonl").write_text('{"task": "st"}\n')
    with pytest.raises(UserError, match="row 1"):
        command.command([*given, "--prompts", str(tmp_path / "p.jsonl")])


def test_a_converted_file_is_replaced_and_no_other(tmp_path):
    imported(tmp_path, "open_asqa", ROWS)
    imported(tmp_path, "open_asqa", ROWS[:1])
    (tmp_path / "rows.jsonl.converted.json").unlink()
    with pytest.raises(UserError, match="was not written by"):
        imported(tmp_path, "open_asqa", ROWS)
