"""Calls to a language model, killed at any instant: none is lost, none is paid for twice."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from data_pipelines.open_asqa.build_folder import REPLIES, BuildFolder
from data_pipelines.open_asqa.generate_step import BATCHES
from data_pipelines.open_asqa.open_ended.build_conversations import SourceConversations
from data_pipelines.open_asqa.open_ended.clip_conversation import WriterSettings
from ltu_jax.clients.batch_requests import RESULTS
from ltu_jax.clients.call_ledger import CallLedger, open_ledger
from ltu_jax.clients.conversations import standings
from ltu_jax.clients.token_prices import DOLLAR
from tests.faults.count import Count
from tests.support.openai_server import servers
from tests.support.small_build import make_build
from tests.support.stub_writer import FaultyWriter, request_name

ROOT = Path(__file__).resolve().parents[2]
# Kills of one build after which it is let go on to its end.
_PATIENCE = 5
_SOURCES, _CLIPS = ("as_strong", "clotho", "iemocap", "joint_audioset"), 12
_PRICES = '[models."m"]\ninput = 0.15\noutput = 0.6\nbatch = 0.5\n'
_BUDGETS = (0.02, 0.05, 5.0)  # dollars: the last one is enough
_LONGEST = 300  # seconds that one start may take


def kill_generation(folder: Path, *, kills: int, seed: int = 0) -> Count:
    """SIGKILL at random instants of `generate`, the same command again, to its end.

    Every third build is made by batch files. A chain of kills passes when its pairs are those of a
    build that nobody disturbed, no request was sent that the ledger had an answer to or that it had
    not noted before, and what the server charged is within what the ledger counts and the budget.
    """
    os.environ["no_proxy"] = "127.0.0.1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prices.toml").write_text(_PRICES)
    count, generator, chain = Count(), random.Random(seed), 0
    with servers() as start:
        trial = _Trial(make_build(folder / "calm", sources=_SOURCES, clips=_CLIPS), start)
        seconds = trial.run_to_end()
        truth = trial.contents()
        while count.tried < kills:
            build = make_build(folder / f"killed{chain}", sources=_SOURCES, clips=_CLIPS)
            trial = _Trial(build, start, faults=0.4, batches=chain % 3 == 2)
            done = 0
            most = min(_PATIENCE, kills - count.tried)
            while done < most and trial.kill_after(generator.uniform(0, seconds)):
                done += 1
            trial.run_to_end()
            wrong = trial.problems or ([] if trial.contents() == truth else ["other pairs"])
            where = f"build {chain} of {done} kills (seed {seed})"
            count.add(done, failed=f"{where}: {'; '.join(wrong[:3])}" if wrong else None)
            shutil.rmtree(build.root)
            chain += 1
    return count


class _Trial:
    """One build, the server that it asks, and what is checked after every start."""

    def __init__(self, build: BuildFolder, start, *, faults: float = 0.0, batches: bool = False):
        self.build, self.batches = build, batches
        self.writer = FaultyWriter(passing=faults)
        self.server = start(self.writer)
        self.problems: list[str] = []
        self._answered: set[str] = set()
        self._received: dict[str, int] = {}

    def kill_after(self, seconds: float) -> bool:
        """Start the command and kill it; False if it had ended before."""
        run = self._start(_BUDGETS[-1] if self.batches else _BUDGETS[0])
        try:
            run.wait(seconds)
        except subprocess.TimeoutExpired:
            run.kill()
        killed = run.wait() < 0
        self._check(_BUDGETS[-1] if self.batches else _BUDGETS[0])
        return killed

    def run_to_end(self) -> float:
        """Let the command end, with higher and higher budgets; return the seconds of a start."""
        begun = time.monotonic()
        if not self.batches:
            for budget in _BUDGETS:
                self._start(budget).wait(_LONGEST)
                self._check(budget)
            return (time.monotonic() - begun) / len(_BUDGETS)
        for _ in range(20):
            self._start(_BUDGETS[-1]).wait(_LONGEST)
            self._check(_BUDGETS[-1])
            if not self._answer_batches():
                break
        return time.monotonic() - begun

    def contents(self) -> dict[str, bytes]:
        """Return the bytes of the results."""
        paths = sorted(self.build.root.glob("*/open_ended.json*"))
        return {str(path.relative_to(self.build.root)): path.read_bytes() for path in paths}

    def _start(self, budget: float) -> subprocess.Popen:
        command = [
            *(sys.executable, "-m", "data_pipelines.open_asqa", "generate", str(self.build.root)),
            *("--model", "m", "--prices", str(self.build.root.parent / "prices.toml")),
            *(
                "--calls",
                "both",
                "--budget",
                str(budget),
                "--wait",
                "0.01",
                "--timeout",
                "60",
                "--workers",
                "4",
            ),
            *(("--batch-files",) if self.batches else ("--endpoint", self.server.url)),
        ]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet)

    def _answer_batches(self) -> bool:
        """Write results for batch files that have none, out of order; tell if there were any."""
        folder, found = self.build.root / BATCHES, False
        for path in sorted(folder.glob("*.jsonl")):
            out = folder / RESULTS / path.name
            if out.exists():
                continue
            found = True
            lines = []
            for line in map(json.loads, path.read_text().splitlines()):
                body = json.loads(self.writer.written(line["body"])[2])
                response = {"status_code": 200, "body": body}
                lines.append({"custom_id": line["custom_id"], "response": response, "error": None})
            out.write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
        return found

    def _check(self, budget: float) -> None:
        """Compare the ledger with what the server received since the last start."""
        received = dict(self.writer.received)
        new = {name for name, times in received.items() if times > self._received.get(name, 0)}
        self._received = received
        path = self.build.root / REPLIES
        if not path.exists():
            self.problems += ["requests before there was a ledger"] if new else []
            return
        with open_ledger(path, send=False) as ledger:
            keys = dict(self._requests(ledger))
            again = [name for name in new if keys.get(name) in self._answered]
            self.problems += [f"{len(again)} answered requests were sent again"] if again else []
            hidden = [n for n, key in keys.items() if received.get(n, 0) > ledger.calls_of(key)]
            self.problems += [f"{len(hidden)} calls are not in the ledger"] if hidden else []
            records = ledger.look_up(list(keys.values()))
            self._answered = {key for key, record in records.items() if record.answer is not None}
            if ledger.committed > budget * DOLLAR:
                self.problems.append(f"{ledger.committed} is more than the budget of {budget}")
            if self.writer.charged * DOLLAR > ledger.committed + 1:
                self.problems.append(f"{self.writer.charged} charged, {ledger.committed} counted")

    def _requests(self, ledger: CallLedger):
        """Yield the requests that the ledger's replies lead to: name at the server, and key."""
        settings = WriterSettings(model="m")
        for source in _SOURCES:
            asked = SourceConversations(
                folder=self.build, source=source, settings=settings, calls="both"
            )
            for standing in standings(asked.all(), ledger, tries=2):
                for part in range(len(standing.replies) + 1):
                    request = standing.conversation.next_request(standing.replies[:part])
                    if request is not None:
                        yield request_name(request.body), request.key
