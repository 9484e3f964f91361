"""The short form of the rehearsal: the whole road by its commands, two layers of true widths."""

import contextlib
import os
import signal
import sys

from benchmarks.rehearsal import SHORT, Rehearsal, rehearse
from tests.support import compilation, records_corpus
from tests.support.zygote import Zygote

# Answers and scores are asked of smaller models elsewhere.
PARTS = ("sources", "convert", "records", "stages_1_and_2", "stage_3_killed", "exports")


class _Forked(Rehearsal):
    """A rehearsal whose commands are forks of one process that has imported everything."""

    def run(self, *command, kill=None):
        # One device, as the commands find them here.
        env = os.environ | {"XLA_FLAGS": compilation.XLA_FLAGS}
        process = self.zygote.start(
            ["-m", *command], env=env, stdout=sys.__stdout__, stderr=sys.__stderr__
        )
        while (status := process.wait(within=0.05 if kill else None)) is None:
            if kill():
                process.signal(signal.SIGKILL)
                kill = None
        assert status == 0 or status == -signal.SIGKILL, command
        return status


def test_the_whole_road_is_walked_and_comes_back_to_the_same_bits(tmp_path):
    it = _Forked(folder=tmp_path, tokenizer=records_corpus.TOKENIZER, **SHORT)
    # JAX reads this where it is imported, in the zygote: compiled for longer than it runs.
    quickly = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    with contextlib.closing(Zygote(os.environ | quickly)) as it.zygote:
        walked = rehearse(it, PARTS)
    assert tuple(walked) == PARTS
    assert all(step["ok"] for step in walked.values())
    assert walked["stage_3_killed"]["killed"] and walked["stage_3_killed"]["identical"]
    assert walked["exports"]["identical"]
