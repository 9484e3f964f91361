"""The engine against answers alone: any order, slot, company and tier; and how answers end."""

import asyncio
import dataclasses
import functools
import json
import os
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltu_jax
from ltu_jax.core import memory
from ltu_jax.core.errors import UserError
from ltu_jax.generation.request import AnswerMode, EncodedClip, drain
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.generation.text_loading import load_language_model
from ltu_jax.preprocessing.text import prompt_ids
from ltu_jax.serving.assembly import store_of
from ltu_jax.serving.engine import Engine, EngineSettings
from ltu_jax.serving.engine_types import (
    EngineClosed,
    EngineRequest,
    Failed,
    Finished,
    FinishReason,
    JsonGrammar,
    NewToken,
    QueueFull,
)
from ltu_jax.serving.json_grammar import JsonMatcher
from ltu_jax.serving.slot_sizes import SlotSizes
from ltu_jax.weights.store import load_weights, save_weights
from tests.support import tiny_ltu_as

# The long form: LTU_JAX_ENGINE_REQUESTS=1000 python -m pytest tests/serving/test_engine.py -k alone
REQUESTS = int(os.environ.get("LTU_JAX_ENGINE_REQUESTS", "32"))
SIZES = SlotSizes(
    tiers=(1, 4, 16),
    slot_tokens=160,
    clips=2,
    steps=3,
    prompts=(112,),
    rests=(16, 32, 64),
    rooms=(96,),
)
PATIENCE = 300  # seconds after which a test that waits fails


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory):
    made = tiny_ltu_as.save(
        tmp_path_factory.mktemp("tiny"), tokenizer=golden / "text_cases" / "spm320.model"
    )
    return ltu_jax.load(made["ltu-as"])


@pytest.fixture(scope="module")
def engine(model):
    made = Engine(model, EngineSettings(sizes=SIZES))
    made.warm()
    yield made
    made.close()


@functools.cache  # as the clip cache: the same clip is the same features
def clip(number, *, audio=True):
    rng = np.random.default_rng(number)
    return EncodedClip(
        features=rng.normal(size=(2, 25, 32)).astype(np.float32) if audio else None,
        spoken_text="hi all" if audio else "",
        seconds=None,
        seconds_dropped=0.0,
        mode=AnswerMode.JOINT if audio else AnswerMode.TEXT,
    )


def request(model, number, **options):
    """One of many: with audio or without, greedy or drawn, of several lengths."""
    heard = clip(number % 7, audio=number % 3 != 0)
    question = ("What?", "Where?")[number % 2]
    drawn = SamplingConfig.official(seed=number) if number % 4 < 2 else None
    if number % 8 == 0:
        drawn = SamplingConfig(seed=number)
    ids = prompt_ids(model.tokenizer, instruction=question, spoken_text=heard.spoken_text)
    options = {"max_new_tokens": 9 + number % 8, "sampling": drawn, **options}
    return EngineRequest(prompt=tuple(ids), clips=(heard,), **options), question


def alone(model, asked, question):
    """The oracle: what the Python API answers."""
    return drain(
        model.stream(
            asked.clips[0],
            question,
            max_new_tokens=asked.max_new_tokens,
            sampling=asked.sampling,
        )
    )


def unknown(asked):
    """The same request about clips that no slot has: they are equal, and not the same."""
    clips = [dataclasses.replace(one, features=one.features.copy()) for one in asked.clips]
    return dataclasses.replace(asked, clips=tuple(clips))


def read(ticket):
    """All events, and the text that they make."""
    events = list(ticket.events(PATIENCE))
    if isinstance(events[-1], Failed):
        raise events[-1].error
    return events, "".join(event.text for event in events)


def likeliest(llama, x):
    """The likeliest token behind each position, by the full forward pass."""
    time = x.shape[1]
    visible = jnp.tril(jnp.ones((1, time, time), bool))
    states = llama.run(x, positions=jnp.arange(time)[None], visible=visible)
    return llama.unembed(llama.norm(states)).argmax(-1)


def idle(engine):
    """Tell whether the engine comes to rest: a slot is free a moment after its last event."""
    with engine._changed:
        engine._changed.wait_for(engine._idle, PATIENCE)
    stats = engine.stats()
    return stats.busy == stats.queued == 0


# --- the same answer ------------------------------------------------------------------------------


def test_answers_are_those_of_each_request_alone(model, engine):
    """From several threads, in random order, with cancelled ones among them; nothing compiles."""
    different = min(REQUESTS, 56)  # then they come again
    asked = {number: request(model, number) for number in range(different)}
    wanted = {number: alone(model, *one) for number, one in asked.items()}
    assert len({one.tokens for one in wanted.values()}) > different // 2
    order = np.random.default_rng(0).permutation(REQUESTS) % different
    wrong, cached = [], []

    def client(numbers):
        rng = np.random.default_rng(int(numbers[0]))
        while len(numbers):
            some, numbers = np.split(numbers, [rng.integers(1, 6)])
            tickets = [engine.submit(asked[int(number)][0]) for number in some]
            leaves = rng.random(len(some)) < 0.1
            for number, ticket, left in zip(some, tickets, leaves, strict=True):
                first = ""
                if left:
                    first = next(ticket.events(PATIENCE)).text
                    ticket.cancel()
                events, text = read(ticket)
                text = first + text
                want, got = wanted[int(number)], events[-1]
                cached.append(got.usage.cached)
                if got.reason == FinishReason.CANCELLED:
                    same = got.tokens == want.tokens[: len(got.tokens)]
                else:
                    same = (got.tokens, text) == (want.tokens, want.text)
                    same &= (got.reason == "stop") == (want.finish_reason == "eos")
                if not same:
                    wrong.append((int(number), got, want))

    before = engine.stats().compiled
    threads = [threading.Thread(target=client, args=(part,)) for part in np.array_split(order, 3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []
    assert sum(count > 25 for count in cached) > REQUESTS // 8  # by other questions too
    assert idle(engine)
    assert engine.stats().compiled == before


def test_tiers_answer_alike(model, engine, monkeypatch):
    """Ten begin together among 16 rows, and the longest ends among one: each as alone."""
    programs, tiers = engine._programs, []
    official = programs._program

    def program(key, args):
        tiers.extend(key[1:2] if key[0] == "advance" else ())
        return official(key, args)

    monkeypatch.setattr(programs, "_program", program)
    limits = (16, 4, 4, 4, 4, 4, 8, 8, 8, 4)
    asked = {n: request(model, n, max_new_tokens=limit) for n, limit in enumerate(limits)}
    with engine._turning:
        tickets = {number: engine.submit(one) for number, (one, _) in asked.items()}
    for number, ticket in tickets.items():
        want = alone(model, *asked[number])
        assert read(ticket)[0][-1].tokens == want.tokens, number
    assert sorted(set(tiers)) == [1, 4, 16]


def test_an_engine_of_kept_programs_compiles_nothing_and_answers_alike(
    model, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sizes = dataclasses.replace(SIZES, tiers=(2,), prompts=(160,), rests=(16,), rooms=(160,))
    told, counts = [], []
    for _ in range(2):
        store = store_of(model, dtype="float32")
        with store.used():
            engine = Engine(model, EngineSettings(sizes=sizes))
            engine.warm()
        asked = [request(model, number)[0] for number in (1, 2, 3)]
        tickets = [engine.submit(one) for one in asked]
        told.append([read(ticket)[0][-1].tokens for ticket in tickets])
        longer = dataclasses.replace(asked[1], prompt=(*asked[1].prompt, *range(9, 29)))
        read(engine.submit(asked[1]))
        in_parts, whole = (read(engine.submit(one))[0][-1] for one in (longer, unknown(longer)))
        assert in_parts.tokens == whole.tokens
        assert in_parts.usage.cached == 25 + len(asked[1].prompt)
        assert engine.stats().compiled == 0
        engine.close()
        counts.append(dict(store.counts))
    assert told[0] == told[1]
    assert counts == [{"compiled": 8}, {"kept": 8}]


def test_a_first_token_is_told_before_steps_begin(model, engine, monkeypatch):
    """Alone, and in company: on a CPU steps would take the cores from its reader."""
    assert engine._programs.on_cpu
    official, early = engine._programs.advance, []

    def advance(*args, **kwargs):
        early.extend(heard.wait(5) for heard in told.values())
        return official(*args, **kwargs)

    monkeypatch.setattr(engine._programs, "advance", advance)
    told, tickets = {}, {}
    for number in (1, 2):
        asked = unknown(request(model, number, max_new_tokens=60)[0])
        with engine._turning:
            told[number] = threading.Event()
            tickets[number] = engine.submit(asked).events(PATIENCE)
        assert isinstance(next(tickets[number]), NewToken)
        told[number].set()
    for events in tickets.values():
        assert isinstance(list(events)[-1], Finished)
    assert len(early) > 20 and all(early)


@pytest.mark.parametrize(
    ("tokens", "sizes"),
    [(1, (16,)), (16, (16,)), (17, (24,)), (25, (32,)), (40, (48,)), (80, (64, 16))],
)
def test_the_rest_of_a_prompt_is_read_in_places_little_more_than_it_has(tokens, sizes):
    parts = SlotSizes().rest(100, length=100 + tokens)
    assert tuple(one.size for one in parts) == sizes
    assert sum(sizes) >= tokens


def test_prompt_lookup_makes_the_same_tokens_in_fewer_steps(model):
    sizes = dataclasses.replace(SIZES, tiers=(2,), rooms=(160,), drafts=2)
    engine = Engine(model, EngineSettings(sizes=sizes))
    made, dispatches = [], []
    for lookup in (False, True):
        before = engine.stats().dispatches
        asked = [
            request(model, number, max_new_tokens=40, prompt_lookup=lookup)[0]
            for number in (2, 3, 6, 7)  # greedy ones
        ]
        made.append([read(engine.submit(one))[0][-1].tokens for one in asked])
        dispatches.append(engine.stats().dispatches - before)
    check_further_turns(engine, most=160 - 16, prompt_lookup=True)
    engine.close()
    assert made[1] == made[0]
    assert dispatches[1] < dispatches[0]


# --- beginnings that stand in slots ---------------------------------------------------------------

MOST_FOUND = 96 - 16  # in the smallest room: its last places are read in any case


def found(asked):
    """Of a prompt that stands in a slot all is found but its last place, where there is room."""
    return min(25 + len(asked.prompt) - 1, MOST_FOUND)


def check_further_turns(engine, *, most, **options):
    """Behind answers that ended, or were left by their readers; against clips that no slot has."""
    for number, events in ((7, 30), (2, 4)):
        first = tuple(range(7 * number, 7 * number + 20))
        asked = EngineRequest(prompt=first, clips=(clip(number),), max_new_tokens=30, **options)
        asked = unknown(asked)
        ticket = engine.submit(asked)
        for _ in zip(range(events), ticket.events(PATIENCE), strict=False):
            pass
        ticket.cancel()
        ended = read(ticket)[0][-1]
        prompt = (*first, *ended.tokens, 4, 5, 6)
        further = dataclasses.replace(asked, prompt=prompt, max_new_tokens=5)
        told, known = (read(engine.submit(one))[0][-1] for one in (further, unknown(further)))
        assert told.tokens == known.tokens and known.usage.cached == 0
        assert told.usage.cached == min(25 + 20 + len(ended.tokens) - 1, most)


def test_a_further_turn_is_read_from_the_end_of_the_answer_on(engine):
    check_further_turns(engine, most=MOST_FOUND)


@pytest.mark.parametrize(("shared", "rest"), [(40, 1), (30, 50), (110, 20), (128, 6)])
def test_the_rest_of_a_prompt_is_read_up_to_the_end_of_a_slot(engine, shared, rest):
    rng = np.random.default_rng(shared)
    ids = [int(one) for one in rng.integers(3, 320, shared + rest)]
    first = EngineRequest(prompt=(*ids[:shared], 1, 2), clips=(clip(3),), max_new_tokens=1)
    read(engine.submit(first))
    asked = dataclasses.replace(first, prompt=tuple(ids))
    told, known = (read(engine.submit(one))[0][-1] for one in (asked, unknown(asked)))
    assert told.tokens == known.tokens
    assert 25 < told.usage.cached <= 25 + shared


def test_a_beginning_is_found_while_others_are_asked_about(model, engine):
    """Alone in the one slot of the smallest tier, one clip after another, and back."""
    asked = [request(model, number, max_new_tokens=3) for number in (1, 4, 5, 1, 5, 4)]
    ends = [read(engine.submit(one))[0][-1] for one, _ in asked]
    for (one, question), end in zip(asked, ends, strict=True):
        assert end.tokens == alone(model, one, question).tokens
    assert [end.usage.cached for end in ends[3:]] == [found(one) for one, _ in asked[3:]]


def test_of_equal_prompts_that_come_together_one_is_read(model, engine):
    """As the choices of a request are: the others begin in a row that is being answered."""
    drawn = [SamplingConfig(seed=seed) for seed in range(5)]
    asked, question = request(model, 2)
    asked = unknown(asked)
    several = [dataclasses.replace(asked, sampling=one) for one in drawn]
    with engine._turning:
        tickets = [engine.submit(one) for one in several]
    ends = [read(ticket)[0][-1] for ticket in tickets]
    assert [end.tokens for end in ends] == [alone(model, one, question).tokens for one in several]
    assert [end.usage.cached for end in ends] == [0] + [found(asked)] * 4


def test_prompts_without_audio_share_nothing(model, engine):
    asked, _ = request(model, 3)
    for _ in range(2):
        assert read(engine.submit(asked))[0][-1].usage.cached == 0


def test_clips_that_nobody_has_any_more_stand_in_nobodys_way(model, engine):
    asked, _ = request(model, 1, max_new_tokens=1)
    read(engine.submit(asked))
    for _ in range(2 * engine.stats().slots):
        read(engine.submit(unknown(request(model, 2, max_new_tokens=1)[0])))
    assert read(engine.submit(asked))[0][-1].usage.cached == found(asked)


def test_log_probabilities_are_the_models_own(model, engine):
    asked, _ = request(model, 1, logprobs=True, top_logprobs=3)
    events, _ = read(engine.submit(asked))
    finished = events[-1]
    ids = np.asarray([[*asked.prompt, *finished.tokens]])
    logits = model.logits(ids, np.ones_like(ids), asked.clips[0].features[None], layout="inference")
    wanted = np.asarray(jax.nn.log_softmax(logits[0, len(asked.prompt) - 1 : -1], axis=-1))
    for event, row in zip(events[:-1], wanted, strict=True):
        assert event.logprob.id == event.id
        np.testing.assert_allclose(event.logprob.logprob, row[event.id], atol=2e-4)
        assert [one.id for one in event.top] == np.argsort(-row, kind="stable")[:3].tolist()
        np.testing.assert_allclose(
            [one.logprob for one in event.top], np.sort(row)[:-4:-1], atol=2e-4
        )


def test_clips_stand_one_after_another_before_the_text(model, engine):
    """Two clips: against the full forward pass over [clip 1][clip 2][text]."""
    asked, _ = request(model, 2, max_new_tokens=6)
    two = dataclasses.replace(asked, clips=(clip(4), clip(5)))
    events, _ = read(engine.submit(two))

    @jax.jit
    def forward(params, features, ids):
        bound = model.model.bind(params)
        audio = [bound.embed_audio(one[None]) for one in features]
        return likeliest(bound.llama, jnp.concatenate([*audio, bound.embed_text(ids)], axis=1))

    tokens = list(events[-1].tokens)
    ids = jnp.asarray([[*two.prompt, *tokens[:-1]]])
    best = forward(model.params, [one.features for one in two.clips], ids)
    assert best[0, -len(tokens) :].tolist() == tokens
    assert events[-1].usage.audio == 50 and events[-1].usage.prompt == 50 + len(two.prompt)


def test_a_language_model_alone_answers_text(model, golden, tmp_path):
    """Its weights opened without audio: against the full forward pass."""
    weights = load_weights(model.path)
    save_weights(
        tmp_path / "llama",
        kind="llama",
        config=weights.config["llama"],
        params={
            path: np.asarray(leaf)
            for path, leaf in weights.params.items()
            if path.startswith("llama.") and "lora" not in path
        },
        source={"test": "random"},
        files={"tokenizer.model": golden / "text_cases" / "spm320.model"},
    )
    plain = load_language_model(tmp_path / "llama")
    engine = Engine(
        plain, EngineSettings(sizes=dataclasses.replace(SIZES, tiers=(2,), rooms=(160,)))
    )
    ids = list(prompt_ids(plain.tokenizer, instruction="Why?", spoken_text=None))
    ticket = engine.submit(EngineRequest(prompt=tuple(ids), max_new_tokens=5))
    with pytest.raises(UserError, match="clips"):
        engine.submit(EngineRequest(prompt=tuple(ids), clips=(clip(1),)))
    tokens = list(read(ticket)[0][-1].tokens)

    @jax.jit
    def forward(params, ids):
        llama = plain.model.bind(params)
        return likeliest(llama, llama.embed(ids))

    best = forward(plain.params, jnp.asarray([[*ids, *tokens[:-1]]]))
    assert best[0, -len(tokens) :].tolist() == tokens
    engine.close()


# --- how answers end ------------------------------------------------------------------------------


def test_stop_strings_cut_the_answer(model, engine):
    asked, question = request(model, 6, max_new_tokens=16)
    whole = alone(model, asked, question).text
    place = len(whole) // 2
    stop = whole[place : place + 2]
    events, text = read(engine.submit(dataclasses.replace(asked, stop=("never", stop))))
    assert text == whole[: whole.index(stop)].rstrip()
    assert events[-1].reason == FinishReason.STOP and events[-1].stop == stop


def test_json_by_schema_in_company(model, engine):
    """A model of random numbers writes JSON; its neighbours' answers stay theirs."""
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["open", "closed"]},
            "n": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["kind", "n"],
        "additionalProperties": False,
    }
    bound = JsonGrammar(schema=schema)
    tickets = [
        engine.submit(request(model, number, max_new_tokens=60, grammar=bound)[0])
        for number in (1, 2)
    ]
    beside, question = request(model, 7)
    neighbour = engine.submit(beside)
    for ticket in tickets:
        events, text = read(ticket)
        assert events[-1].reason == FinishReason.STOP
        assert set(json.loads(text)) == {"kind", "n"}
    assert read(neighbour)[0][-1].tokens == alone(model, beside, question).tokens


@pytest.mark.parametrize("steps", [0, 2])
def test_a_grammar_that_gives_up_fails_its_answer_alone(model, engine, monkeypatch, steps):
    """Before the first token, and on the way."""
    allowed, left = JsonMatcher.allowed, iter(range(steps))

    def limited(matcher):
        if next(left, None) is None:
            raise UserError("grammar: its limits are reached")
        return allowed(matcher)

    monkeypatch.setattr(JsonMatcher, "allowed", limited)
    bound = engine.submit(request(model, 1, grammar=JsonGrammar(schema=None))[0])
    beside, question = request(model, 7)
    neighbour = engine.submit(beside)
    *tokens, last = bound.events(PATIENCE)
    assert len(tokens) == steps and "limits are reached" in str(last.error)
    assert read(neighbour)[0][-1].tokens == alone(model, beside, question).tokens
    assert idle(engine)


def test_a_short_request_behind_eight_long_ones_ends_first(model):
    engine = Engine(model, EngineSettings(sizes=dataclasses.replace(SIZES, tiers=(9,))))
    ended = []

    def submit(name, new):
        ticket = engine.submit(request(model, 2 + len(name), max_new_tokens=new)[0])
        put = ticket.put

        def noted(*events):
            ended.extend(name for event in events if isinstance(event, Finished))
            put(*events)

        ticket.put = noted
        return ticket

    with engine._turning:  # the engine stands still
        tickets = [submit(name, 60) for name in ["long"] * 8] + [submit("short", 2)]
    made = [len(read(ticket)[0][-1].tokens) for ticket in tickets]
    engine.close()
    assert made == [60] * 8 + [2]
    assert ended == ["short"] + ["long"] * 8


def test_cancelling_frees_slot_and_queue(model, engine):
    long = [
        engine.submit(request(model, number, max_new_tokens=60)[0]) for number in (2, 3, 6, 7, 2, 3)
    ]
    next(long[0].events(PATIENCE))
    for ticket in long:
        ticket.cancel()
    reasons = [read(ticket)[0][-1].reason for ticket in long]
    assert FinishReason.CANCELLED in reasons
    asked, question = request(model, 11)
    assert read(engine.submit(asked))[1] == alone(model, asked, question).text
    assert idle(engine)


def test_a_deadline_ends_an_answer_that_waits(model, engine):
    with engine._turning:  # the engine stands still
        ticket = engine.submit(request(model, 3, deadline=1e-9)[0])
    events, text = read(ticket)
    assert events[-1].reason == FinishReason.DEADLINE and text == ""


def test_a_full_queue_refuses(model):
    engine = Engine(model, EngineSettings(sizes=SIZES, queue=2))
    with engine._turning:
        tickets = [engine.submit(request(model, 2, max_new_tokens=1)[0]) for _ in range(2)]
        with pytest.raises(QueueFull):
            engine.submit(request(model, 2)[0])
        for ticket in tickets:
            ticket.cancel()
    assert engine.drain(PATIENCE)
    with pytest.raises(EngineClosed):
        engine.submit(request(model, 2)[0])
    engine.close()


def test_a_failed_program_fails_its_requests_and_closes_the_engine(model, monkeypatch):
    engine = Engine(model, EngineSettings(sizes=SIZES))

    def broken(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._programs, "enter", broken)
    events = list(engine.submit(request(model, 2)[0]).events(PATIENCE))
    assert [type(event) for event in events] == [Failed]
    engine._thread.join()
    with pytest.raises(EngineClosed, match="out of memory"):
        engine.submit(request(model, 2)[0])
    assert idle(engine) and engine.stats().failed == 1
    engine.close()


def test_whoever_drains_learns_of_a_failure(model, monkeypatch):
    engine = Engine(model, EngineSettings(sizes=SIZES))

    def broken(*_, **__):
        while engine._taking:  # until it is drained
            time.sleep(0.001)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._programs, "advance", broken)
    ticket = engine.submit(request(model, 2)[0])
    draining = threading.Thread(target=engine.drain, daemon=True)
    draining.start()
    *_, last = ticket.events(PATIENCE)
    assert isinstance(last, Failed)
    draining.join(PATIENCE)
    assert not draining.is_alive()
    engine.close()


def test_events_reach_an_asyncio_loop(model, engine):
    asked, question = request(model, 10)

    async def collect():
        return [event async for event in engine.submit(asked).stream()]

    events = asyncio.run(collect())
    assert events[-1].tokens == tuple(one.id for one in events if isinstance(one, NewToken))
    assert "".join(one.text for one in events) == alone(model, asked, question).text


# --- refusals before work -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"prompt": ()}, "prompt"),
        ({"prompt": (1, 320)}, "prompt"),
        ({"prompt": (1,) * 160}, "prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 160}, "max_new_tokens"),
        ({"clips": (clip(0),) * 3}, "clips"),
        ({"clips": ("clip.wav",)}, "clip"),
        ({"stop": "one string"}, "stop"),
        ({"stop": ("",)}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"deadline": 0}, "deadline"),
        ({"deadline": 10**400}, "deadline"),
        ({"grammar": {"type": "object"}}, "grammar"),
        ({"end_ids": tuple(range(9))}, "end_ids"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(model, engine, options, name):
    before = engine.stats().submitted
    with pytest.raises(UserError, match=name):
        engine.submit(dataclasses.replace(request(model, 1)[0], **options))
    assert engine.stats().submitted == before


def test_slots_that_do_not_fit_are_refused_with_a_number_that_does(model, monkeypatch):
    monkeypatch.setattr(memory, "at_hand", lambda: 80 << 20)
    with pytest.raises(UserError) as refused:
        Engine(model, EngineSettings(sizes=SlotSizes(tiers=(64,), slot_tokens=512)))
    slots = int(str(refused.value).split("at most ")[1].split()[0])
    fits = Engine(model, EngineSettings(sizes=SlotSizes(tiers=(slots,), slot_tokens=512)))
    fits.close()
