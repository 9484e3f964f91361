"""Text against the official script's prompts, ids, labels and batches, and live transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from ltu_jax.preprocessing import text
from tests.support.collator import collate

CUTOFFS = (108, 32)


@pytest.fixture(scope="module")
def cases(golden: Path) -> Path:
    return golden / "text_cases"


@pytest.fixture(scope="module")
def spm(cases: Path) -> text.Tokenizer:
    return text.load_tokenizer(cases / "spm320.model")


def read(cases: Path, name: str) -> Any:
    return json.loads((cases / name).read_text(encoding="utf-8"))


def pair_of(
    spm: text.Tokenizer, row: dict, *, cutoff: int, train_on: str = "all"
) -> text.TokenizedPair:
    return text.tokenize_pair(
        spm,
        instruction=row["instruction"],
        spoken_text=row["input"],
        output=row["output"],
        cutoff=cutoff,
        train_on=train_on,
    )


# --- prompt ---------------------------------------------------------------------------------------


def test_golden_prompts(cases: Path):
    for case in read(cases, "prompts.json"):
        prompt = text.prompt(case["instruction"], case["input"])
        assert prompt == case["prompt_user"]
        assert prompt + (case["output"] or "") == case["prompt_full"]
        assert text.prompt(case["instruction"], None) == case["prompt_user_input_None"]


# --- sentencepiece --------------------------------------------------------------------------------


def test_golden_ids(cases: Path, spm: text.Tokenizer):
    assert (spm.bos_id, spm.eos_id, spm.pad_id, spm.vocab_size) == (1, 2, 0, 320)
    for case in read(cases, "encode_320.json"):
        assert [spm.bos_id, *spm.encode(case["text"])] == case["ids"]


def test_golden_decoding(cases: Path, spm: text.Tokenizer):
    for case in read(cases, "encode_320.json"):
        assert " " + spm.decode(case["ids"]) == case["decode_skip_special"]
        assert " " + spm.decode(case["ids"], skip_special=False) == case["decode"]


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_golden_ids_with_plain_string_special_tokens(cases: Path, tmp_path: Path, file: str):
    (tmp_path / "tokenizer.model").write_bytes((cases / "spm320.model").read_bytes())
    plain = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    (tmp_path / file).write_text(json.dumps(plain))
    spm = text.load_tokenizer(tmp_path)
    stripped = 0
    for case in read(cases, "encode_320.json"):
        expected = case["ids_plain_str_special_tokens"]
        stripped += expected != "same"
        expected = case["ids"] if expected == "same" else expected
        assert [spm.bos_id, *spm.encode(case["text"])] == expected
    assert stripped


def test_an_added_token_wins_over_the_same_token_as_a_plain_string(cases: Path, tmp_path: Path):
    # Vicuna v1.1: unk is an AddedToken, pad the plain string "<unk>".
    (tmp_path / "tokenizer.model").write_bytes((cases / "spm320.model").read_bytes())
    added = {"lstrip": False, "rstrip": False, "normalized": True}
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    named = {key: {"content": token, **added} for key, token in names.items()}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(named | {"pad_token": "<unk>"}))
    spm = text.load_tokenizer(tmp_path)
    for case in read(cases, "encode_320.json"):
        assert [spm.bos_id, *spm.encode(case["text"])] == case["ids"]


def test_answers_are_whole_however_the_sequence_ends(cases: Path, spm: text.Tokenizer):
    """The official crop is right after EOS only; ours decodes the generated ids alone."""
    whole = {}
    for case in read(cases, "decode_crop.json"):
        if case["vocab"] != spm.vocab_size:
            continue
        asked = [spm.bos_id, *spm.encode(case["prompt"])]
        assert case["sequence"][: len(asked)] == asked
        answer = spm.decode(case["sequence"][len(asked) :])
        if case["ends_with"] == "eos":
            assert " " + answer == case["batch_pred"]
            whole[case["prompt"]] = answer
        assert answer == whole[case["prompt"]]
        assert " " + spm.decode(case["sequence"], skip_special=False) == case["decode"]
    assert len(whole) == 10


# --- labels and cut-off ---------------------------------------------------------------------------


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize(("train_on", "suffix"), [("all", ""), ("answer", "_masked")])
def test_golden_pairs(cases: Path, spm: text.Tokenizer, cutoff: int, train_on: str, suffix: str):
    for row in read(cases, f"tokenize_v320_cut{cutoff}{suffix}.json")["rows"]:
        pair = pair_of(spm, row, cutoff=cutoff, train_on=train_on)
        assert pair.input_ids == row["input_ids"]
        assert pair.labels == row["labels"]


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_golden_pairs_with_add_eos_but_for_the_unmasked_prompt_token(
    cases: Path, spm: text.Tokenizer, cutoff: int
):
    """With add_eos_token=True the official code unmasks the last token of a prompt that was cut."""
    official_bugs = 0
    for row in read(cases, f"tokenize_v320_cut{cutoff}_masked_addeos.json")["rows"]:
        pair = pair_of(spm, row, cutoff=cutoff, train_on="answer")
        assert pair.input_ids == row["input_ids"]
        expected = list(row["labels"])
        asked = text.prompt_ids(spm, instruction=row["instruction"], spoken_text=row["input"])
        if len(asked) >= cutoff:
            assert expected[-1] == row["input_ids"][-1]
            expected[-1] = text.IGNORE
            official_bugs += 1
        assert pair.labels == expected
    assert official_bugs == {108: 3, 32: 35}[cutoff]


@pytest.mark.parametrize("cutoff", [2, 31, 33, 45, 46, 64, 107, 160, 1000])
def test_other_cutoffs(cases: Path, spm: text.Tokenizer, cutoff: int):
    """From the golden uncut ids and golden prompt lengths, by the rule of the facts."""
    whole = {case["text"]: case["ids"] for case in read(cases, "encode_320.json")}
    for row in read(cases, "tokenize_v320_cut108_masked.json")["rows"]:
        full = text.prompt(row["instruction"], row["input"]) + row["output"]
        if full not in whole or row["labels"][-1] == text.IGNORE:
            continue
        ids = whole[full][:cutoff]
        ids += [2] if len(ids) < cutoff and ids[-1] != 2 else []
        assert pair_of(spm, row, cutoff=cutoff).input_ids == ids
        pair = pair_of(spm, row, cutoff=cutoff, train_on="answer")
        asked = row["labels"].count(text.IGNORE)
        assert pair.labels == ([text.IGNORE] * asked)[:cutoff] + ids[asked:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff": 1}, "cutoff is 1; it must leave room for BOS and one token"),
        ({"train_on": "answers"}, r"train_on is 'answers'; it is one of \['all', 'answer'\]"),
    ],
)
def test_bad_settings(spm: text.Tokenizer, change: dict, message: str):
    settings = {"instruction": "a", "spoken_text": "", "output": "b", "cutoff": 108} | change
    with pytest.raises(ValueError, match=message):
        text.tokenize_pair(spm, **settings)


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_golden_batches(cases: Path, spm: text.Tokenizer, cutoff: int):
    rows = read(cases, f"tokenize_v320_cut{cutoff}.json")["rows"]
    stored = np.load(cases / f"collator_v320_cut{cutoff}.npz")
    for group in read(cases, f"collator_v320_cut{cutoff}.json"):
        pairs = [pair_of(spm, rows[index], cutoff=cutoff) for index in group["rows"]]
        batch = collate(pairs, pad_id=spm.pad_id)
        for key in ("input_ids", "labels", "attention_mask"):
            np.testing.assert_array_equal(getattr(batch, key), stored[f"g{group['group']}.{key}"])
        assert batch.attention_mask.dtype == np.float32


# --- cleaning ---------------------------------------------------------------------------


def test_golden_thanks(cases: Path):
    for case in read(cases, "remove_thanks.json"):
        assert text.remove_thanks(case["in"]) == case["out"]


# --- fast tokenizers ------------------------------------------------------------------------------

SENTENCES = (
    "### Instruction:\nWhat is it?\n\n### Response:\n",
    "  two  spaces 12 345",
    "犬 é 🎵",
    "",
)


@pytest.fixture(scope="module")
def bpe_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level BPE in the manner of SmolLM2, with truncation left on in the file."""
    folder = tmp_path_factory.mktemp("bpe")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(SENTENCES, trainer)
    model.enable_truncation(4)
    model.enable_padding()
    model.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def check_against_transformers(folder: Path, *, bos: str, eos: str) -> None:
    ours = text.load_tokenizer(folder)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    for sentence in SENTENCES + (f"a {eos} b{bos}",):
        expected = theirs(sentence, add_special_tokens=False, truncation=False)["input_ids"]
        assert ours.encode(sentence) == expected
        assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=True)
        assert ours.decode(expected, skip_special=False) == sentence
    assert ours.bos_id == theirs.convert_tokens_to_ids(bos) == ours.token_id(bos)
    assert ours.eos_id == theirs.convert_tokens_to_ids(eos) == ours.token_id(eos)
    assert ours.vocab_size == theirs.vocab_size


def test_fast_tokenizer_is_transformers(bpe_dir: Path):
    check_against_transformers(bpe_dir, bos="<|im_start|>", eos="<|im_end|>")


def test_smollm2_tokenizer(smollm2_files: Path):
    check_against_transformers(smollm2_files, bos="<|im_start|>", eos="<|im_end|>")


def test_without_bos_the_pad_token_starts_a_sequence(bpe_dir: Path, tmp_path: Path):
    # Qwen2: bos_token null, pad_token <|endoftext|>, which its model config calls bos_token_id.
    names = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    (tmp_path / "tokenizer.json").write_bytes((bpe_dir / "tokenizer.json").read_bytes())
    tokenizer = text.load_tokenizer(tmp_path)
    assert tokenizer.bos_id == tokenizer.pad_id == tokenizer.token_id("<|endoftext|>")


def test_a_fast_pair_is_prompt_answer_and_eos(bpe_dir: Path):
    tokenizer = text.load_tokenizer(bpe_dir)
    asked = text.prompt_ids(tokenizer, instruction="What is it?", spoken_text="")
    pair = text.tokenize_pair(
        tokenizer,
        instruction="What is it?",
        spoken_text="",
        output="two",
        cutoff=108,
        train_on="answer",
    )
    answer = [*tokenizer.encode("two"), tokenizer.eos_id]
    assert pair.input_ids == asked + answer
    assert pair.labels == [text.IGNORE] * len(asked) + answer
    assert asked[0] == tokenizer.bos_id


# --- tokenizers that cannot be used ---------------------------------------------------------------


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)


EOS = '{"eos_token": "<|im_end|>"}'


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no tokenizer.model or tokenizer.json here; convert the language model again"),
        ({"tokenizer.model": "text"}, "tokenizer.model: not a sentencepiece model; copy the file"),
        ({"tokenizer.json": "text", "tokenizer_config.json": EOS}, "tokenizer.json is not valid"),
        ({"tokenizer.json": "{}", "tokenizer_config.json": EOS}, "not a tokenizers file"),
        ({"tokenizer.json": '{"model": 1}'}, "no tokenizer_config.json or .* naming eos_token"),
    ],
)
def test_tokenizers_that_cannot_be_loaded(tmp_path: Path, files: dict, message: str):
    write(tmp_path, files)
    with pytest.raises(ValueError, match=message):
        text.load_tokenizer(tmp_path)


def test_files_of_two_models(cases: Path, bpe_dir: Path, tmp_path: Path):
    message = "lacks the .*'<nope>' that the config beside it names; take all tokenizer files from"
    for name, source in (
        ("tokenizer.json", bpe_dir / "tokenizer.json"),
        ("tokenizer.model", cases / "spm320.model"),
    ):
        write(
            tmp_path, {name: source.read_bytes(), "tokenizer_config.json": '{"eos_token":"<nope>"}'}
        )
        with pytest.raises(ValueError, match=message):
            text.load_tokenizer(tmp_path)


def test_a_token_that_is_not_there(spm: text.Tokenizer, bpe_dir: Path):
    for tokenizer in (spm, text.load_tokenizer(bpe_dir)):
        with pytest.raises(ValueError, match=r"no token '<\|nope\|>'"):
            tokenizer.token_id("<|nope|>")
