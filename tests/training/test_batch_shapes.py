"""The batch that a plan compiles is the one that the input pipeline makes, on all hosts."""

import dataclasses

import pytest

from ltu_jax.core.distributed import Share
from ltu_jax.models.text_batch import TARGET_IDS
from ltu_jax.train import parse_config, resolve
from ltu_jax.training import program
from ltu_jax.training.stage import open_bases, open_pipeline
from ltu_jax.training.stage_config import stage_settings
from tests.support.tiny_stage import ROOT, arguments, make_place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


def settings_of(place, *flags):
    usual = ("--config.data.lengths=()", "--config.data.train_on=all")
    given = arguments(place, place / "run", *usual, *flags)
    return stage_settings(resolve(parse_config(given))[0])


def batches(settings, *, hosts, steps=2):
    """For each step: the padded text length, and the batch of every host."""
    bases = open_bases(settings)
    streams = []
    for host in range(hosts):
        share = Share(index=host, count=hosts)
        pipeline = open_pipeline(settings, bases, share=share)
        streams.append(pipeline.batches(steps=steps))
    for step, of_hosts in enumerate(zip(*streams, strict=True)):
        length = 0 if settings.stage == "tagging" else pipeline.text_length(step)
        yield length, len(pipeline.labels), of_hosts


def assert_planned(settings, *, hosts):
    for length, labels, of_hosts in batches(settings, hosts=hosts):
        planned = program.batch_shapes(settings, text_length=length, labels=labels)
        for batch in of_hosts:
            found = {n: ((hosts * len(x), *x.shape[1:]), x.dtype) for n, x in batch.items()}
            assert found == {n: (x.shape, x.dtype) for n, x in planned.items()}


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize(
    "flags",
    [
        ("--config.data.layout=grouped", "--config.data.row_tokens=216"),
        ("--config.data.layout=grouped", "--config.data.clips_per_row=1"),
        ("--config.data.layout=single", "--config.data.features=on_the_fly"),
        ("--config.data.layout=reference", "--config.data.group_by_length=0"),
    ],
)
def test_planned_shapes_are_those_of_the_input_pipeline(place, flags, hosts):
    assert_planned(settings_of(place, *flags), hosts=hosts)


def test_so_they_are_in_tagging(place):
    found = settings_of(place)
    model = dataclasses.replace(found.model, llama=None, lora=None)
    data = dataclasses.replace(found.data, layout="tags")
    found = dataclasses.replace(found, stage="tagging", model=model, data=data)
    assert_planned(found, hosts=2)


def test_targets_of_answers_alone_need_no_more_places(place):
    flags = ("--config.data.layout=single", "--config.data.train_on=answer")
    settings = settings_of(place, *flags)
    for length, _, of_hosts in batches(settings, hosts=2):
        planned = program.batch_shapes(settings, text_length=length, labels=0)
        places = {batch[TARGET_IDS].shape[1] for batch in of_hosts}
        assert len(places) == 1 and places.pop() <= planned[TARGET_IDS].shape[1]
