"""What is promised, how it is tried, and how often in the suite and in the long form."""

import dataclasses
from collections.abc import Callable

from tests.faults.accounting import account_for_time
from tests.faults.bad_numbers import spoil_batches
from tests.faults.buckets import kill_in_saves
from tests.faults.buckets import two_at_once as two_on_a_bucket
from tests.faults.builds import kill_builds
from tests.faults.count import Count
from tests.faults.damage import damage_checkpoints
from tests.faults.devices import change_devices
from tests.faults.disks import lose_the_disk
from tests.faults.fuzz import mutate_samples
from tests.faults.generate_kills import kill_generation
from tests.faults.hosts import disagree
from tests.faults.kills import kill_at_random
from tests.faults.merges import kill_merges
from tests.faults.rivals import two_at_once
from tests.faults.runs import Lab
from tests.faults.shards import damage_records
from tests.faults.stalls import stand_still
from tests.faults.stops import stop_at_random


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarantee:
    """A promise, and what tries it: `attempt(lab, trials)`."""

    promise: str
    attempt: Callable[[Lab, int], Count]
    short: int
    long: int


GUARANTEES = {
    "merge_kill": Guarantee(
        promise="kill -9 at any instant of a merging of Open-ASQA, again: the same bytes",
        attempt=lambda lab, trials: kill_merges(lab, kills=trials),
        short=2,
        long=50,
    ),
    "kill": Guarantee(
        promise="kill -9 at any instant, the same command again: the same bits",
        attempt=lambda lab, trials: kill_at_random(lab, kills=trials),
        short=3,
        long=100,
    ),
    "stop": Guarantee(
        promise="SIGTERM at any instant: saved, no step lost",
        attempt=lambda lab, trials: stop_at_random(lab, stops=trials),
        short=2,
        long=50,
    ),
    "two_trainers": Guarantee(
        promise="two trainers in one folder: one trains, the other stops by name",
        attempt=lambda lab, trials: two_at_once(lab, trials=trials),
        short=2,
        long=40,
    ),
    "bucket_kill": Guarantee(
        promise="kill -9 in a save to a bucket, the same command again: the same bits",
        attempt=lambda lab, trials: kill_in_saves(lab, kills=trials),
        short=1,
        long=20,
    ),
    "bucket_two_trainers": Guarantee(
        promise="two trainers on one folder of a bucket: one trains, the other stops by name",
        attempt=lambda lab, trials: two_on_a_bucket(lab, trials=trials),
        short=1,
        long=20,
    ),
    "build_kill": Guarantee(
        promise="kill -9 at any instant of a build of Open-ASQA, again: the same bytes",
        attempt=lambda lab, trials: kill_builds(lab, kills=trials),
        short=2,
        long=50,
    ),
    "checkpoint_damage": Guarantee(
        promise="damage to any file of a checkpoint is found; the step before goes on",
        attempt=lambda lab, trials: damage_checkpoints(lab, trials=trials),
        short=12,
        long=240,
    ),
    "disk": Guarantee(
        promise="full or read-only disk: an error at once, the last checkpoint kept",
        attempt=lambda lab, trials: lose_the_disk(lab, trials=trials),
        short=2,
        long=20,
    ),
    "bad_records": Guarantee(
        promise="a damaged record costs itself, counted, and no more",
        attempt=lambda lab, trials: damage_records(lab, trials=trials),
        short=15,
        long=100,
    ),
    "bad_samples": Guarantee(
        promise="mutated rows, audio and records: valid, or refused by name; no zeros invented",
        attempt=lambda lab, trials: mutate_samples(lab, trials=trials),
        short=1000,
        long=1000,
    ),
    "bad_numbers": Guarantee(
        promise="a step that is not finite changes no bit and is counted",
        attempt=lambda lab, trials: spoil_batches(lab, trials=trials),
        short=100,
        long=500,
    ),
    "generate_kill": Guarantee(
        promise="kill -9 while a model writes pairs: the same pairs, no reply paid for twice",
        attempt=lambda lab, trials: kill_generation(lab.make_folder("generate"), kills=trials),
        short=4,
        long=50,
    ),
    "other_devices": Guarantee(
        promise="on 1, 2, 4 or 8 devices a run goes on with the same rows and losses",
        attempt=lambda lab, trials: change_devices(lab, trials=trials),
        short=2,
        long=16,
    ),
    "hosts": Guarantee(
        promise="two processes that differ are stopped before the next step",
        attempt=lambda lab, trials: disagree(lab, trials=trials),
        short=5,
        long=24,
    ),
    "goodput": Guarantee(
        promise="where the time went is told; a killed run is at work within a minute",
        attempt=lambda lab, trials: account_for_time(lab, trials=trials),
        short=1,
        long=20,
    ),
    "stall": Guarantee(
        promise="no step in ten times the usual time: stacks, exit status 70; no false alarm",
        attempt=lambda lab, trials: stand_still(lab, trials=trials),
        short=2,
        long=40,
    ),
}
