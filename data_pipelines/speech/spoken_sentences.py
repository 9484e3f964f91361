"""English sentences of many kinds: everyday ones, names, numbers, questions, telephone prompts.

The words say nothing about sounds, music or the speaker, so a sentence does not give away what is
heard with it. Numbers are written as words; `sentence` of a kind is a function of its random state.
"""

import random
import string

from data_pipelines.mini.audio import sentences

_LISTS = {
    name: tuple(words.strip() for words in text.replace("\n", " ").split(","))
    for name, text in {
        "first": """Anna, David, Martha, Peter, Laura, Daniel, Julia, Martin, Helen, Robert, Susan,
            Thomas, Emily, George, Alice, Richard, Sophie, Michael, Diana, Victor""",
        "last": """Johnson, Miller, Taylor, Wilson, Anderson, Parker, Cooper, Bennett, Foster,
            Harrison, Morgan, Edwards, Marshall, Palmer, Fisher, Hudson""",
        "title": "Mister, Miss, Doctor, Professor, Captain",
        "city": """London, Paris, Boston, Chicago, Madrid, Berlin, Toronto, Sydney, Dublin, Denver,
            Vienna, Lisbon, Seattle, Oxford, Melbourne, Athens""",
        "street": "Main Street, Park Avenue, Church Road, Station Road, High Street, Lake Drive",
        "weekday": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
        "month": "January, March, April, May, June, July, August, September, October, November",
        "ordinal": """first, second, third, fifth, eighth, tenth, twelfth, fifteenth, twentieth,
            twenty-first, thirtieth""",
        "small": "two, three, four, five, six, seven, eight, nine, ten, eleven, twelve",
        "teen": "thirteen, fourteen, fifteen, sixteen, seventeen, eighteen, nineteen",
        "tens": "twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety",
        "unit": "one, two, three, four, five, six, seven, eight, nine",
        "hour": "six, seven, eight, nine, ten, eleven",
        "part": "in the morning, in the evening",
        "key": "one, two, three, four, five, six, seven, eight, nine, zero",
        "desk": """billing, sales, technical support, the front desk, new orders, returns,
            the service desk, an operator""",
        "goods": """printer, jacket, wallet, laptop, bicycle, sofa, passport, suitcase, keyboard,
            umbrella, mattress, helmet""",
        "matter": """your order, your account, your appointment, your delivery, the invoice,
            your membership, the repair, your reservation""",
        "reason": """the road is blocked, the office is too small, nobody answered,
            it was too late, the price went up, the key was missing, there was no time,
            the shop had closed""",
        "plan": """visit my parents, learn Spanish, paint the fence, sell the house,
            finish the report, plant tomatoes, move to the coast, write a letter,
            clean the garage""",
        "opinion": """this is a good idea, we should wait, it will work, she is right,
            nothing has changed, the plan is too risky, it costs too much""",
        "short": """Yes please, No thank you, Talk to you tomorrow, Of course not, I have no idea,
            Let me think, That sounds fine, Not right now, Maybe later, Good morning,
            You are welcome, Take your time, I agree with you, It depends, What a surprise,
            Never mind""",
    }.items()
}  # fmt: skip
_TEMPLATES = {
    "name": (
        "My name is {first} {last}.",
        "{first} and {first2} are flying to {city} on {weekday}.",
        "This is {first} {last} from {city}.",
        "Have you met {title} {last}?",
        "{title} {last} will meet you on {weekday} at {hour} {part}.",
        "{first} moved from {city} to {city2} last {month}.",
        "Please tell {first} that {title} {last} is waiting.",
        "{first} lives at {tens}-{unit} {street}.",
        "I got a letter from {first} {last} in {city}.",
    ),
    "number": (
        "The visitors meet at desk {small} at {hour} {part}.",
        "It costs {tens}-{unit} dollars and {teen} cents.",
        "There are {tens}-{unit} people on the list.",
        "The meeting is on the {ordinal} of {month}.",
        "He wrote {tens} pages in under {small} hours.",
        "We have {small} hundred and {tens}-{unit} boxes left.",
        "The answer is {teen}, not {tens}.",
        "Add {small} cups of flour and {teen} grams of salt.",
        "Their house was built {tens}-{unit} years ago.",
        "He is {tens}-{unit} years old and his sister is {teen}.",
    ),
    "question": (
        "Where did you put the {goods}?",
        "Why is the {goods} still in {city}?",
        "How much did {first} pay for the {goods}?",
        "Do you think {opinion}?",
        "When are you going to {plan}?",
        "Could you send the {goods} to {city} by {weekday}?",
        "Who told {first} that {reason}?",
        "Did {title} {last} really want to {plan}?",
        "What would you do if {reason}?",
    ),
    "telephone": (
        "For {desk}, press {key}.",
        "To speak to {desk}, please press {key} now.",
        "Please enter your {small} digit account number.",
        "Thank you for calling. {matter2} is being processed.",
        "All of our agents are busy. Please stay on the line.",
        "Your estimated waiting time is {teen} minutes.",
        "We are open from {hour} {part} until {hour2}, Monday to Friday.",
        "If you are calling about {matter}, press {key}.",
        "You have {small} new messages.",
        "The number you have called is {key}, {key2}, {unit}, {unit2}.",
        "Press {key} to confirm {matter}, or {key2} to cancel.",
        "I am calling about {matter}. Please call me back on {weekday}.",
        "{matter2} will arrive on {weekday}, the {ordinal} of {month}.",
    ),
    "talk": (
        "I wanted to {plan}, but {reason}.",
        "{first} says that {opinion}.",
        "We cannot {plan} because {reason}.",
        "If {reason}, we will {plan} next {month}.",
        "I think {opinion}, don't you?",
        "After the holidays I am going to {plan}.",
        "Somebody left a {goods} in the hall.",
        "The {goods} that {first} bought was too small.",
        "Nobody knew that {first} wanted to {plan}.",
        "I am sorry, {reason}.",
    ),
    "short": ("{short}.", "{short}, {first}.", "{first}, {short2}."),
}
EVERYDAY = "everyday"  # of the mini corpus
# Kind -> how often it is drawn.
KINDS = {EVERYDAY: 4, "name": 3, "number": 3, "question": 3, "telephone": 4, "talk": 4, "short": 1}
_FIELDS = {
    template: tuple(name for _, name, _, _ in string.Formatter().parse(template) if name)
    for templates in _TEMPLATES.values()
    for template in templates
}


def sentence(rng: random.Random) -> str:
    """Draw a sentence, or two short ones, capitalised and punctuated."""
    kind = rng.choices(list(KINDS), weights=list(KINDS.values()))[0]
    if kind == EVERYDAY:
        return sentences.sentence(rng)
    template = rng.choice(_TEMPLATES[kind])
    values: dict[str, str] = {}
    for name in _FIELDS[template]:
        options = _LISTS[name.rstrip("2")]
        values[name] = rng.choice([word for word in options if word not in values.values()])
    for name in ("matter2", "short2"):
        if name in values:
            word = values[name]
            values[name] = word.capitalize() if name == "matter2" else _lower(word)
    text = template.format(**values)
    return text[0].upper() + text[1:]


def _lower(words: str) -> str:
    return words if words.startswith("I ") else words[0].lower() + words[1:]
