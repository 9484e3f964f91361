"""Which pairs are accepted and which refused, by name of the rule."""

import dataclasses

import pytest

from data_pipelines.open_asqa.open_ended.material import KnownClip
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer
from data_pipelines.open_asqa.open_ended.pair_rules import ClassNames, PairRules, is_unanswerable
from data_pipelines.open_asqa.open_ended.prompt_files import prompt_of
from data_pipelines.open_asqa.source_clip import SoundEvent, SourceClip

CLASSES = ClassNames(
    {
        "Dog", "Bark", "Siren", "Cat", "Police car (siren)", "Music", "Speech", "Church bell",
        "Bird vocalization, bird call, bird song", "Rain", "Car", "Engine", "Animal",
    }
)  # fmt: skip
SOUND = KnownClip(
    clip=SourceClip(
        source="as_strong",
        clip_id="a",
        dataset="as_strong_train",
        files=("a",),
        where="t:1",
        licence="CC0",
        labels=("Dog", "Siren"),
        events=(
            SoundEvent(start=0.32, end=1.58, label="Dog"),
            SoundEvent(start=4.0, end=6.5, label="Dog"),
            SoundEvent(start=2.0, end=10.0, label="Siren"),
        ),
        captions=("A dog barks at 3 passing cars.",),
    )
)
VOICE = KnownClip(
    clip=SourceClip(
        source="iemocap",
        clip_id="b",
        dataset="iemocap_tr",
        files=("b",),
        where="t:1",
        licence="CC0",
        gold_text="I have told you the label 12 times.",
        gender="female",
        emotion="angry",
    ),
    style={"f0_hz": 231.4, "pitch_among_all": "high", "speed": "fast"},
)
MUSIC = KnownClip(
    clip=SourceClip(
        source="fma", clip_id="c", dataset="fma", files=("c",), where="t:1", licence="CC0",
        genres=("Folk", "Pop"), title="Winter Road",
    )
)  # fmt: skip
KNOWN = {"as_strong": SOUND, "iemocap": VOICE, "fma": MUSIC}
LONG = "since the voice is loud and fast and the words are hard"

TABLE = [
    ("as_strong", "What does the dog react to?", "It barks since cars pass by the house.", ""),
    ("as_strong", "Which sound goes on to the end?", "The siren is heard to the end.", ""),
    ("as_strong", "What is heard first?", "A puppy is heard before the ambulance.", ""),
    ("as_strong", "Is a cat heard?", "No, there is no cat, only a dog and a siren.", ""),
    ("as_strong", "What may follow?", "Perhaps a cat runs away from the noise.", ""),
    ("as_strong", "What is it like?", "It sounds as if a church bell rang far away.", ""),
    ("as_strong", "What else is heard?", "A cat answers the dog.", "sound that is not known"),
    ("as_strong", "Why does the cat run?", "The dog scared it away.", "sound that is not known"),
    ("as_strong", "What else is heard?", "Church bells ring over it.", "sound that is not known"),
    ("as_strong", "What goes on?", "A bird call is heard in a tree.", "sound that is not known"),
    ("as_strong", "How often does the dog bark?", "The dog barks 2 times in all.", ""),
    ("as_strong", "How long does the siren last?", "It lasts for 8 seconds, to the end.", ""),
    ("as_strong", "How many cars are passing by?", "It seems that 3 cars are passing by.", ""),
    ("as_strong", "How long is it?", "It lasts for 17 seconds in all.", "number that is not known"),
    ("as_strong", "What of the 5 dogs?", "They all bark at the cars.", "number that is not known"),
    ("as_strong", "What does the dog do?", "It barks at cars, and then it,.", "answer is cut off"),
    ("as_strong", "What does the dog do?", "It barks at all the cars and a .", "answer is cut off"),
    ("as_strong", "What does the dog do?", "It barks at the cars (and -", "answer is cut off"),
    ("as_strong", "What does the dog do?", "It barks at cars. They hear a.", "answer is cut off"),
    ("as_strong", "What does the dog do?", "It barks at cars because of the", "answer is cut off"),
    ("as_strong", "What does the dog do?", "It barks all night, from high E to A.", ""),
    ("as_strong", "What does the dog do?", "It barks at what it is afraid of.", ""),
    ("as_strong", "What does the dog say?", "It may say: is this a car ?", ""),
    ("as_strong", "What does the dog do?", "It barks at a passing car (the first).", ""),
    ("as_strong", "What does the dog do?", "It barks - a lot - at the 'big' cars.", ""),
    ("as_strong", "What does the dog do?", 'It barks at the cars"}]', "markup"),
    ("as_strong", "What does the dog do?", "It barks at https://a.bc and cars.", "markup"),
    ("as_strong", "What does the dog do?", "It barks at [name of the car] and cars.", "markup"),
    ("as_strong", "What does the dog do?", "It barks at passing cars. Finally [.", "markup"),
    ("as_strong", "What does the **dog** do?", "It barks at the passing cars.", "markup"),
    ("as_strong", "Which label fits best?", "The siren fits to what is heard.",
     "mentions metadata: label"),
    ("as_strong", "What is heard in the clip?", "According to the description it is a dog.",
     "mentions metadata: description"),
    ("as_strong", "What is heard in the clip?", "The provided information says that a dog barks.",
     "mentions metadata: given"),
    ("as_strong", "What is at the timestamps?", "A dog is heard and a siren.",
     "mentions metadata: timestamp"),
    ("as_strong", "Heard what?", "A dog barks there.", "question too short"),
    ("as_strong", "What is heard there?", "A dog.", "answer too short"),
    ("as_strong", "What is heard there?", "a dog barks " * 50, "answer too long"),
    ("as_strong", "What " + "is heard " * 40, "A dog barks at the cars.", "question too long"),
    ("as_strong", "A dog barks at a car.", "A dog barks at a car", "answer is the question"),
    ("as_strong", "Why does the dog bark at passing cars?", "The dog barks at passing cars.",
     "question holds the answer"),
    ("as_strong", "What is heard there?", "Una perra ladra cuando pasan coches rojos muy "
     "deprisa cerca.", "not English"),
    ("as_strong", "这是什么声音 在 哪里?", "A dog barks at the cars.", "not English"),
    ("as_strong", "What is said there?", "Somebody says “это собака” to a dog.", ""),
    ("as_strong", "What is heard there?", "A dog barks and then a dog barks and then a dog barks "
     "and then a dog barks.", "repeats itself"),
    ("iemocap", "How does the speaker feel?", f"She feels angry, {LONG}.", ""),
    ("iemocap", "Why is the angry woman loud?", f"She feels angry, {LONG}.",
     "question says a known fact"),
    ("iemocap", "What was told before?", f"She says that it was told 12 times, {LONG}.", ""),
    ("iemocap", "What does she say?", "She says “I have told you the label” and she does not "
     "seem to be patient.", ""),
    ("iemocap", "What does she say?", f"The transcript says it, {LONG}.",
     "mentions metadata: transcript"),
    ("iemocap", "How high is the voice?", f"It is at 231 Hz, {LONG}.", "mentions metadata: hertz"),
    ("iemocap", "How high is it in hertz?", f"It is at about 231 hertz, {LONG}.", ""),
    ("iemocap", "How high is it in hertz?", f"It is at about 250 hertz, {LONG}.",
     "number that is not known"),
    ("iemocap", "What can be heard beside it?", f"A cat is heard, {LONG}.", ""),  # no sounds known
    ("fma", "Who may have published it?", "A small record label for acoustic music may have done "
     "it, as it sounds home made.", ""),
    ("fma", "What would be a fitting title?", "A fitting title could be Winter Road, as it sounds "
     "cold and slow to listeners.", ""),
    ("fma", "Which genre is this folk music?", "It is folk with some pop in it, as the song is "
     "simple and warm.", "question says a known fact"),
]  # fmt: skip


@pytest.mark.parametrize("source, question, answer, problem", TABLE)
def test_a_pair_is_judged(source, question, answer, problem):
    rules = PairRules(KNOWN[source], prompt_of(source).file, CLASSES)
    assert rules.problem(QuestionAnswer(question, " ".join(answer.split()))) == problem


@pytest.mark.parametrize(
    "said, other, problem",
    [
        ("I have told you the {label}.", "I have told you the **label**.", "markup"),
        ("I have told you and then I -", "I have told you and so we -", "answer is cut off"),
    ],
)
def test_what_is_said_in_the_clip_is_no_fault_of_its_quote(said, other, problem):
    clip = dataclasses.replace(VOICE.clip, gold_text=said)
    rules = PairRules(dataclasses.replace(VOICE, clip=clip), prompt_of("iemocap").file, CLASSES)
    for quote, found in ((said, ""), (other, problem)):
        answer = f"The woman seems to be out of patience, since she says: '{quote}'"
        assert rules.problem(QuestionAnswer("What does she say?", answer)) == found


@pytest.mark.parametrize(
    "answer",
    [
        "It cannot be determined from the audio.",
        "It is not possible to tell who speaks.",
        "One can't say which of them was first.",
        "The place is unclear, as nothing points to one.",
        "There is no indication of a second speaker.",
        "There is not enough information about that.",
        "It is unclear what happens next.",
        "The recording does not say who she is.",
        "The audio doesn't reveal where this happens.",
        "I'm sorry, that is not known.",
        "Without more context this remains unknown.",
        "No specific information is there about it.",
        "It’s difficult to determine the exact place.",
    ],
)
def test_answers_without_an_answer_are_recognised(answer):
    assert is_unanswerable(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "It is loud enough to be heard far away.",
        "The bark cannot be ignored by the neighbours.",
        "The speaker is sorry about what happened.",
        "He finds it impossible to stay calm.",
        "The voice is clear, and enough is said to know why.",
        "She cannot tell him the truth because she is afraid.",
        "It is not clear water, but mud, that splashes.",
        "The dog does not stop barking.",
        "No specific breed matters here; any dog would bark.",
        "The man says that nobody knows enough.",
    ],
)
def test_answers_with_such_words_are_answers(answer):
    assert not is_unanswerable(answer)
