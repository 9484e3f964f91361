"""Both readings of every caption metric: against pycocoevalcap, and what becomes of bad answers."""

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from ltu_jax.evaluation.datasets.item import Item
from ltu_jax.evaluation.metrics import java, spice
from ltu_jax.evaluation.scoring.caption_scores import METRICS
from ltu_jax.evaluation.scoring.interface import Answered, NotComputedError, Status, Tools
from ltu_jax.evaluation.scoring.paper import audiocaps_clean, audiocaps_normal

BY_NAME = {metric.name: metric for metric in METRICS}
REFERENCES = (
    ("A dog barks loudly.", "The dog's barking, twice", "loud barks of a dog"),
    ("Rain falls on a roof", "Heavy rain is falling"),
    ("A man speaks, then music plays.", "a man talks over well-known music"),
    ("Wind blows and a car passes by",),
)
OUTPUTS = (
    "Audio caption: A dog barks loudly, twice.",
    "Rain: it falls on a roof",
    "A man speaks over music.",
    "Audio caption: A car passes by in the wind!",
)
NO_TOOLS = Tools()


def answers(outputs=OUTPUTS):
    return [
        Answered(
            item=Item(item_id=f"{i}", clip_id=f"{i}", row="captions", references=references),
            output=output,
            spoken_text="",
        )
        for i, (references, output) in enumerate(zip(REFERENCES, outputs, strict=True))
    ]


class WordCounts:
    """An embedder whose cosines can be worked out by hand: one dimension a word, unit length."""

    name = "word counts"

    def __call__(self, texts):
        assert all(texts), "an empty text has no vector"
        words = sorted({word for text in texts for word in text.split()})
        vectors = np.array([[text.split().count(word) for word in words] for text in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def total(rule, outputs=OUTPUTS, tools=NO_TOOLS):
    counts = [one.counts for one in rule.grade(answers(outputs), tools) if one.counts]
    return float(rule.statistic(np.sum(counts, axis=0)))


@pytest.fixture(scope="module", params=["paper", "strict"])
def coco(request):
    """(reading, figures of coco-caption on its captions and references, tokenized there)."""
    if request.param == "paper":
        own = [audiocaps_clean(text) for text in OUTPUTS]
        others = [list(map(audiocaps_normal, group)) for group in REFERENCES]
    else:
        own = ["A dog barks loudly, twice.", OUTPUTS[1], OUTPUTS[2], "A car passes by in the wind!"]
        others = REFERENCES
    texts = {i: [{"caption": text}] for i, text in enumerate(own)}
    groups = {i: [{"caption": text} for text in group] for i, group in enumerate(others)}
    candidates, references = PTBTokenizer().tokenize(texts), PTBTokenizer().tokenize(groups)
    bleu, _ = Bleu(4).compute_score(references, candidates, verbose=0)
    rouge, _ = Rouge().compute_score(references, candidates)
    cider, _ = Cider().compute_score(references, candidates)
    figures = {f"BLEU-{n}": value for n, value in enumerate(bleu, start=1)}
    return request.param, {**figures, "ROUGE-L": rouge, "CIDEr-D": cider}


def test_figures_equal_coco_caption_on_the_captions_of_each_reading(coco):
    reading, expected = coco
    found = {name: total(getattr(BY_NAME[name], reading)) for name in expected}
    assert found == pytest.approx(expected, rel=1e-9)


def test_paper_cuts_after_the_last_colon_and_strict_only_a_lead_in():
    parsed = {
        reading: [
            score.parsed
            for score in getattr(BY_NAME["ROUGE-L"], reading).grade(answers(), NO_TOOLS)
        ]
        for reading in ("paper", "strict")
    }
    assert parsed["paper"][:3] == [
        "a dog barks loudly twice",
        "it falls on a roof",
        " man speaks over music",
    ]
    assert parsed["strict"][:3] == [
        "A dog barks loudly, twice.",
        "Rain: it falls on a roof",
        "A man speaks over music.",
    ]


@pytest.mark.parametrize("name", ["ROUGE-L", "CIDEr-D", "BLEU-4", "METEOR"])
def test_a_missing_answer_drops_out_of_paper_and_counts_as_nothing_in_strict(name):
    gap, empty = (*OUTPUTS[:3], None), (*OUTPUTS[:3], "")
    metric = BY_NAME[name]
    strict = metric.strict.grade(answers(gap), NO_TOOLS)
    assert strict[3].status is Status.MISSING
    assert strict[3].value == 0
    assert total(metric.strict, gap) == total(metric.strict, empty)
    if name != "METEOR":  # another start of Java, for the same code
        paper = metric.paper.grade(answers(gap), NO_TOOLS)
        assert (paper[3].status, paper[3].counts, paper[3].value) == (Status.MISSING, (), None)
        assert all(one.counts for one in paper[:3])
        assert total(metric.paper, gap) > total(metric.paper, empty)


def test_an_empty_answer_is_unparsed_and_scores_nothing():
    score = BY_NAME["ROUGE-L"].strict.grade(answers((*OUTPUTS[:3], "Audio caption:")), NO_TOOLS)
    assert (score[3].parsed, score[3].status, score[3].value) == (None, Status.UNPARSED, 0)
    assert score[3].counts == (0, 1)


def test_nothing_given_is_nothing_graded():
    outputs = (None,) * 4
    assert [v.counts for v in BY_NAME["CIDEr-D"].paper.grade(answers(outputs), NO_TOOLS)] == [
        ()
    ] * 4


def test_all_metrics_of_a_reading_tokenize_once(monkeypatch):
    started = []
    run_java = java.run_java

    def counting(arguments, **options):
        started.append(options["program"])
        return run_java(arguments, **options)

    monkeypatch.setattr(java, "run_java", counting)
    outputs = tuple(f"{text} once more" for text in OUTPUTS)
    for name in ("CIDEr-D", "ROUGE-L", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"):
        BY_NAME[name].strict.grade(answers(outputs), NO_TOOLS)
    assert started == ["the Penn Treebank tokenizer"]


@pytest.mark.parametrize("name", ["SPICE", "SPIDEr"])
def test_where_spice_is_not_computed_spider_is_not_either(name, tmp_path):
    tools = Tools(spice_jars=tmp_path)
    with pytest.raises(NotComputedError, match="^SPICE"):
        BY_NAME[name].paper.grade(answers(), tools)


def test_spider_is_the_mean_of_spice_and_cider_d(monkeypatch):
    # Invented SPICE scores: what is tested is the mean.
    invented = [0.2, 0.1, 0.0, 0.4]
    monkeypatch.setattr(spice, "spice_scores", lambda pairs, *, jars: invented)
    cider = BY_NAME["CIDEr-D"].strict.grade(answers(), NO_TOOLS)
    spider = BY_NAME["SPIDEr"].strict.grade(answers(), NO_TOOLS)
    assert [one.value for one in spider] == pytest.approx(
        [(first + second.value) / 2 for first, second in zip(invented, cider, strict=True)]
    )
    assert total(BY_NAME["SPICE"].strict) == pytest.approx(0.175)


def test_embedding_similarity_is_the_mean_cosine_with_the_references():
    tools = Tools(embedder=WordCounts())
    metric = BY_NAME["embedding similarity"]
    outputs = ("Audio caption: loud dog", "Audio caption: Rain falls on a roof", None, "")
    scores = metric.strict.grade(answers(outputs), tools)
    # "dog" is in the first reference, nothing in the second ("dog's"), both words in the third.
    expected = (1 / np.sqrt(2 * 4) + 0 + 2 / np.sqrt(2 * 5)) / 3
    assert scores[0].value == pytest.approx(expected)
    assert scores[1].value == pytest.approx((1 + 0) / 2)
    assert [one.value for one in scores[2:]] == [0, 0]
    assert metric.strict.describe(tools) == "embedding similarity (word counts)"


def test_without_an_embedder_the_similarity_is_not_computed():
    metric = BY_NAME["embedding similarity"]
    assert metric.paper.describe(NO_TOOLS) == "embedding similarity"
    with pytest.raises(NotComputedError, match="python -m ltu_jax.fetch all-minilm-l6-v2"):
        metric.paper.grade(answers(), NO_TOOLS)


def test_the_suite_has_every_figure_that_captions_are_reported_by():
    assert [metric.name for metric in METRICS] == [
        *("SPICE", "CIDEr-D", "SPIDEr", "METEOR", "ROUGE-L"),
        *("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "embedding similarity"),
    ]
    assert all(metric.higher for metric in METRICS)
