"""English sentences from templates and word lists, for the voices to read; none is in two splits.

The words say nothing about sounds, music or the speaker, so a sentence does not give away what is
heard with it. Homophones, rare names and digits are left out because Whisper would spell them
differently from the script.
"""

import random

_LISTS = {
    name: tuple(words.strip() for words in text.replace("\n", " ").split(","))
    for name, text in {
        "number": "two, three, four, five, six, seven, eight, nine, ten, twelve",
        "color": "green, yellow, brown, white, black, purple, orange, gray",
        "thing": """boxes, chairs, letters, tickets, books, bottles, blankets, lamps, apples,
            lemons, potatoes, pencils, windows, shirts, baskets, towels""",
        "food": """soup, rice, bread, cheese, salad, pancakes, noodles, coffee, chocolate,
            breakfast, lunch, dinner, cookies, butter""",
        "place": """kitchen, library, garden, office, market, hospital, school, museum, hotel,
            village, station, bank, bakery, city, park, basement""",
        "person": """my sister, my brother, the teacher, our neighbor, the doctor, my uncle,
            the student, her cousin, the manager, the lawyer, his friend, the driver""",
        "time": """tomorrow, tonight, next week, on Monday, on Friday, in the morning, after lunch,
            this evening, before noon, in September, next summer, every weekend""",
        "past": "bought, painted, moved, found, carried, counted, cleaned, borrowed, sold, packed",
        "subject": """history, science, the weather, the election, the budget, the contract,
            football, the project, the schedule, geography, the new law, the holiday""",
        "adjective": """small, heavy, cheap, beautiful, broken, old, modern, wooden, expensive,
            simple""",
    }.items()
}
_TEMPLATES = (
    "{person} {past} {number} {color} {thing}.",
    "please bring the {adjective} {thing} to the {place}.",
    "we will meet at the {place} {time}.",
    "{person} wants to talk about {subject} {time}.",
    "there are {number} {adjective} {thing} in the {place}.",
    "do you want {food} or {food2} {time}?",
    "{person} is cooking {food} {time}.",
    "I forgot the {color} {thing} at the {place}.",
    "the {place} is closed {time}.",
    "{person} left the {place} and {past} some {food}.",
    "can you explain {subject} to {person}?",
    "we need {number} more {thing} {time}.",
    "the {thing} in the {place} are very {adjective}.",
    "{person} read a book about {subject}.",
    "they {past} the {thing} near the {place}.",
    "I would like some {food} with {food2}, please.",
)


def sentence(rng: random.Random) -> str:
    """Draw one sentence, capitalised and punctuated."""
    words = {name: rng.choice(values) for name, values in _LISTS.items()}
    words["food2"] = rng.choice([food for food in _LISTS["food"] if food != words["food"]])
    text = rng.choice(_TEMPLATES).format(**words)
    return text[0].upper() + text[1:]


def split_sentences(counts: dict[str, int], *, seed: int) -> dict[str, tuple[str, ...]]:
    """Return `counts[split]` different sentences for every split; no sentence occurs twice, in or
    across splits.
    """
    rng = random.Random(f"sentences-{seed}")
    seen: set[str] = set()
    result = {}
    for split, count in counts.items():
        chosen: list[str] = []
        while len(chosen) < count:
            candidate = sentence(rng)
            if candidate not in seen:
                seen.add(candidate)
                chosen.append(candidate)
        result[split] = tuple(chosen)
    return result
