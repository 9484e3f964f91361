"""What is compared with a caption, and the strict cut of lead-ins."""

import pytest

from ltu_jax.evaluation.scoring.caption_scores import audiocaps_reference, without_lead_in


def test_references_go_through_the_official_cut_too():
    assert audiocaps_reference("A dog's bark, twice.") == "a dogs bark twice"
    assert audiocaps_reference("At 10:30, a bell") == "0 a bell"


@pytest.mark.parametrize(
    "answer",
    [
        "Audio caption: A dog barks at 10:30.",
        "audio caption:A dog barks at 10:30.",
        "**Audio Caption:** A dog barks at 10:30.",
        " Caption: A dog barks at 10:30. ",
        "The audio caption is: A dog barks at 10:30.",
        "Here is a short audio caption describing the sound: A dog barks at 10:30.",
        "Sound description: A dog barks at 10:30.",
        "Caption in AudioCaps style: A dog barks at 10:30.",
        "A dog barks at 10:30.",
    ],
)
def test_strict_takes_the_whole_lead_in_and_nothing_else(answer):
    assert without_lead_in(answer) == "A dog barks at 10:30."


@pytest.mark.parametrize(
    "answer",
    [
        "No colon here",
        "A man says: hello",
        "A man reads the caption: hello",
        "Rain: heavy, on a roof",
        "It's 10:30",
    ],
)
def test_strict_keeps_captions_that_have_a_colon(answer):
    assert without_lead_in(answer) == answer


def test_an_answer_that_is_only_a_lead_in_is_empty():
    assert without_lead_in("Audio caption: ") == ""
