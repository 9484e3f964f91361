"""The short form of the rehearsal: the whole road by its commands, two layers of true widths."""

from benchmarks.rehearsal import SHORT, SHORT_PARTS, Rehearsal, rehearse
from tests.support import records_corpus


def test_the_whole_road_is_walked_and_comes_back_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as the commands find them here
    it = Rehearsal(folder=tmp_path, tokenizer=records_corpus.TOKENIZER, **SHORT)
    walked = rehearse(it, SHORT_PARTS)
    assert tuple(walked) == SHORT_PARTS
    assert all(step["ok"] for step in walked.values())
    assert walked["stage_3_killed"]["killed"] and walked["stage_3_killed"]["identical"]
    assert walked["exports"]["identical"]
