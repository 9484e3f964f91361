"""Merging: official rows in a fixed order, their origins beside them, after any kill the same."""

import argparse
import json

import pytest

from data_pipelines.manifests.official_rows import OfficialRow, rows_or_errors
from data_pipelines.open_asqa import build_folder, explain_step, merge_step, sorted_lines
from data_pipelines.open_asqa.merge_step import MergeOrder, merge
from data_pipelines.open_asqa.merged_rows import SourceRows
from data_pipelines.open_asqa.open_ended.gate_scores import GateScores
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer
from data_pipelines.records.schema import OFFICIAL_FIELDS
from ltu_jax.clients.call_ledger import open_ledger
from ltu_jax.clients.chat import ChatReply, CompletionRequest
from ltu_jax.core.errors import UserError
from tests.support import built_folder
from tests.support.built_folder import lines


@pytest.fixture
def folder(tmp_path):
    return built_folder.made(tmp_path / "build")


def merged(folder, out, **options):
    return merge(MergeOrder(folder=folder, out=out, **options))


def outputs_of(out):
    names = (out.name, f"{out.name}.provenance.jsonl", f"{out.name}.licences.json")
    return [out.with_name(name).read_bytes() for name in names]


def test_rows_are_official_and_in_order(folder, tmp_path):
    out = tmp_path / "open_asqa.json"
    counts = merged(folder, out)
    rows = list(rows_or_errors(out))
    assert all(isinstance(row, OfficialRow) for row in rows)
    assert json.loads(out.read_text()) == [dict(row.values) for row in rows]
    assert tuple(rows[0].values) == OFFICIAL_FIELDS
    told = [(row.values["audio_id"], row.values["task"], row.values["dataset"]) for row in rows]
    one = "/open_asqa/iemocap/iemocap-0001"
    assert told[16:20] == [
        ("/open_asqa/iemocap/iemocap-0000", "gender_cla", "iemocap_tr"),
        ("/open_asqa/iemocap/iemocap-0000", "ASR", "iemocap_tr"),
        (one, "gender_cla", "iemocap_tr"),
        (one, "ASR", "iemocap_tr"),
    ]
    assert told[20:22] == [(one, "open-ended question", "IEMOCAP")] * 2
    assert rows[16].values["input"] == "Words of iemocap-0000\t\u2028 “so”."
    assert {row.values["input"] for row in rows if "fma-0000" in row.values["audio_id"]} == {""}
    assert counts["fma"] == {"clips": 5, "closed": 10, "open": 6, "silent": 3}
    origins = lines(merge_step.provenance_file(out))
    assert len(origins) == len(rows) == 48
    assert origins[20] == {
        "source": "iemocap", "clip_id": "iemocap-0001", "kind": "open", "where": "t.csv:3",
        "licence": "CC BY 4.0", "prompt": "fma-1", "request": f"{1:064d}",
    }  # fmt: skip
    licences = json.loads(out.with_name("open_asqa.json.licences.json").read_text())
    assert licences["fsd50k_tr"] == {"CC BY 4.0": 5} and licences["IEMOCAP"] == {"CC BY 4.0": 3}


def test_closed_ended_rows_alone_and_some_sources(tmp_path):
    folder = built_folder.made(tmp_path / "build", opened=False)
    out = tmp_path / "some.jsonl"
    merged(folder, out, only=("fma", "fsd50k"))
    assert [row["dataset"] for row in lines(out)] == ["fsd50k_tr"] * 10 + ["fma"] * 10


def test_accepted_pairs_take_the_place_of_all(folder, tmp_path):
    path = folder.file("fma", build_folder.ACCEPTED)
    path.write_text(json.dumps({"clip_id": "fma-0004", "question": "Q?", "answer": "A."}) + "\n")
    merged(folder, tmp_path / "rows.jsonl", only=("fma",))
    opened = [r for r in lines(tmp_path / "rows.jsonl") if r["task"] == "open-ended question"]
    assert [(row["instruction"], row["dataset"]) for row in opened] == [("Q?", "FMA")]


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_a_merging_killed_anywhere_goes_on_to_the_same_bytes(tmp_path, monkeypatch, seed, name):
    folder = built_folder.made(tmp_path / "build")
    merged(folder, tmp_path / name, shuffle_seed=seed)
    whole = outputs_of(tmp_path / name)
    monkeypatch.setattr(merge_step, "_OFTEN", 3)
    for calls in (0, 1, 4, 9, 13):
        place = tmp_path / f"{calls}" / name
        place.parent.mkdir()
        left = calls

        def killed(self, row, *, done=merge_step._Merging._write):
            nonlocal left
            if left == 0:
                self._rows.write(b"half a row")
                self._rows.flush()
                raise KeyboardInterrupt
            left -= 1
            done(self, row)

        for _ in range(2):
            left = calls
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(merge_step._Merging, "_write", killed)
                merged(folder, place, shuffle_seed=seed)
            assert not place.exists()
        merged(folder, place, shuffle_seed=seed)
        assert outputs_of(place) == whole
        assert sorted(path.name for path in place.parent.iterdir()) == sorted(
            (name, f"{name}.provenance.jsonl", f"{name}.licences.json")
        )


def test_a_killed_merging_begins_anew_where_the_build_has_changed(tmp_path, monkeypatch):
    folder, out = built_folder.made(tmp_path / "build"), tmp_path / "rows.jsonl"
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(merge_step, "_shuffled", lambda *_: 1 / 0)
        merged(folder, out, shuffle_seed=1)
    path = folder.file("fsd50k", build_folder.CLOSED_ENDED)
    path.write_text(path.read_text().replace("What of", "Which of"))
    merged(folder, out, shuffle_seed=1)
    assert "Which of" in out.read_text() and "What of fsd50k" not in out.read_text()


def test_a_shuffle_keeps_rows_and_origins_together(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sorted_lines, "_RUN", 1000)
    plain, mixed = tmp_path / "plain.jsonl", tmp_path / "mixed.jsonl"
    merged(folder, plain)
    merged(folder, mixed, shuffle_seed=1)

    def pairs(out):
        both = zip(lines(out), lines(merge_step.provenance_file(out)), strict=True)
        return [json.dumps(pair) for pair in both]

    assert sorted(pairs(plain)) == sorted(pairs(mixed))
    places = [pairs(plain).index(pair) for pair in dict.fromkeys(pairs(mixed))]
    assert sum(abs(a - b) > 5 for a, b in zip(places, places[1:], strict=False)) > 20


def test_a_merged_file_is_replaced_and_no_other(folder, tmp_path):
    out = tmp_path / "rows.json"
    merged(folder, out)
    merged(folder, out, only=("fma",))
    assert len(json.loads(out.read_text())) == 16
    other = tmp_path / "openasqa_9.6M.json"
    other.write_text("[]")
    with pytest.raises(UserError, match="was not written by"):
        merged(folder, other)


@pytest.mark.parametrize(
    ("name", "line", "named"),
    [
        (build_folder.CLOSED_ENDED, '{"clip_id": "fma-0004", "task": "t"}', "question"),
        (build_folder.SPOKEN_TEXT, "{", "no JSON"),
        (build_folder.OPEN_ENDED, '{"clip_id": "fma-0000", "question": "", "answer": ""}',
         "belongs before"),
        (build_folder.CLIPS, '{"clip_id": "fma-0004"}', "twice"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named(folder, tmp_path, name, line, named):
    path = folder.file("fma", name)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=named) as error:
        merged(folder, tmp_path / "rows.json")
    assert str(path) in str(error.value)


def test_lines_about_clips_that_are_gone_are_passed_over(folder, tmp_path):
    path = folder.file("fma", build_folder.CLIPS)
    kept = path.read_text().splitlines(keepends=True)
    path.write_text(kept[0] + kept[2])
    counts = merged(folder, tmp_path / "rows.json", only=("fma",))
    assert counts["fma"]["left over"] == 2 + 6 + 4 and counts["fma"]["clips"] == 2


def test_unknown_or_unbuilt_sources_and_builds_without_rows(folder, tmp_path):
    for only, named in ((("esc50",), "no source"), (("clotho",), "has no clips of it")):
        with pytest.raises(UserError, match=named):
            merged(folder, tmp_path / "rows.json", only=only)
    for name in (build_folder.CLOSED_ENDED, build_folder.OPEN_ENDED):
        folder.file("fma", name).unlink()
    with pytest.raises(UserError, match="no question and answer"):
        merged(folder, tmp_path / "rows.json", only=("fma",))
    assert list(tmp_path.iterdir()) == [folder.root]


def test_rows_of_a_source_can_be_read_from_any_clip_on(folder):
    with SourceRows(folder, "iemocap") as source:
        whole = []
        for clip, made in source.clips():
            whole.append((clip, made, list(source.places)))
    for number, (_, _, places) in enumerate(whole):
        with SourceRows(folder, "iemocap", places=places) as source:
            assert list(source.clips()) == [(clip, made) for clip, made, _ in whole[number + 1 :]]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_every_row_is_explained(folder, tmp_path, name):
    out = tmp_path / name
    merged(folder, out, shuffle_seed=3)
    rows = json.loads(out.read_text()) if name == "rows.json" else lines(out)
    for number, row in enumerate(rows, start=1):
        sections = list(explain_step.explain_row(folder, number))
        facts = dict(sections)
        assert facts[f"row {number} of {out}"] == row
        origin = facts["origin"]
        clip = facts[f"clip {origin['clip_id']} of {origin['source']}"]
        assert row["audio_id"].endswith(clip["files"][0])
        assert (origin["kind"] == "open") == (row["task"] == "open-ended question")
    for number in (0, len(rows) + 1, len(rows) + 2):
        with pytest.raises(UserError, match="not in"):
            list(explain_step.explain_row(folder, number))


def test_an_open_ended_row_is_explained_down_to_the_reply_of_the_model(folder, tmp_path):
    request = CompletionRequest(
        prompt="fma-1", model="m", messages=(("system", "Ask."), ("user", "Genre: Folk")),
        parameters={}, most_tokens=9,
    )  # fmt: skip
    with open_ledger(folder.root / build_folder.REPLIES, send=True) as ledger:
        call = ledger.reserve(request, 5)
        ledger.settle(call, state="answered", cost=4, reply=ChatReply(content='{"q": "Why?"}'))
    line = {"clip_id": "fma-0004", "question": "Why?", "answer": "So.", "request": request.key}
    folder.file("fma", build_folder.ACCEPTED).write_text(json.dumps(line) + "\n")
    folder.file("fma", build_folder.FILTER).write_text('{"unanswerable": "drop"}')
    pair = ("fma", "fma-0004", QuestionAnswer(question="Why?", answer="So."))
    GateScores(folder.root).put("agreement", {pair: 0.75}, by="m")
    merged(folder, tmp_path / "rows.json", only=("fma",))
    facts = dict(explain_step.explain_row(folder, 11))
    assert facts["origin"]["request"] == request.key
    assert facts["request"] == {
        "subject": "", "prompt": "fma-1", "model": "m", "asked": "Genre: Folk", "calls": 1
    }  # fmt: skip
    assert facts["reply"]["content"] == '{"q": "Why?"}'
    assert facts["scores"] == {"agreement": 0.75}
    assert facts[build_folder.FILTER] == {"unanswerable": "drop"}


def test_a_clip_is_explained_with_its_questions(folder, capsys):
    given = argparse.Namespace(folder=folder.root, row="iemocap:iemocap-0001", rows=None)
    assert explain_step.run(given) == 0
    printed = capsys.readouterr().out
    assert "t.csv:3" in printed and f"{1:064d}" in printed and "gender_cla" in printed
    for row, named in (("iemocap:none", "has no clip"), ("seven", "SOURCE:CLIP")):
        with pytest.raises(UserError, match=named):
            explain_step.run(argparse.Namespace(folder=folder.root, row=row, rows=None))
