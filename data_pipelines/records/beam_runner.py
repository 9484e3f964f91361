"""Where Beam writes the shards: this process, several of them, a Dask cluster, any other runner.

The pipeline has one step and no shuffle of data: its elements are the work items of `shard_writer`,
each a few hundred bytes. What an item writes does not depend on where it runs.
"""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from data_pipelines.records import shard_writer
from data_pipelines.records.shard_writer import ShardItem
from ltu_jax.core.errors import UserError

logging.disable(logging.WARNING)  # Beam warns at import that it found no Google Cloud client
try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise UserError(f"writing records needs apache-beam ({error}); run `make env`") from error
finally:
    logging.disable(logging.NOTSET)

# Beam's "DirectRunner" may first try to download and start another runner (Prism); this is the
# in-process one itself.
_IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_ON_DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"  # which Beam knows by this name only
_DIRECT, _DASK = "DirectRunner", "DaskRunner"
_LOOK = 0.5  # seconds between looks at the sealed shards


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamRunner:
    """Where Beam runs a pipeline.

    Attributes:
        name: of a runner of Beam; "DirectRunner" is this machine.
        flags: options of the runner.
        workers: processes; None for what the runner does by itself (DirectRunner: this process).
    """

    name: str = _DIRECT
    flags: tuple[str, ...] = ()
    workers: int | None = None

    @contextlib.contextmanager
    def pipeline(self, *, items: int) -> Iterator[beam.Pipeline]:
        """Yield a pipeline that has run, for `items` work items, when the block ends.

        Raises:
            UserError: `workers` for a runner that has an option of its own for it, or none at all.
        """
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers is {self.workers}; use at least 1")
        if self.workers is not None and self.name not in (_DIRECT, _DASK):
            raise UserError(
                f"--workers is {self.workers}, but {self.name} has its own option for that; "
                "give it after a lone --"
            )
        flags, target = list(self.flags), self.name
        with contextlib.ExitStack() as stack:
            if self.name == _DIRECT:
                target = _IN_PROCESS
                if (self.workers or 1) > 1:
                    flags += ["--direct_running_mode=multi_processing"]
                    flags += [f"--direct_num_workers={self.workers}"]
            elif self.name == _DASK:
                target = _ON_DASK
                flags += [f"--dask_npartitions={items}"]
                if self.workers is not None:
                    flags += [
                        f"--dask_client_address={stack.enter_context(_cluster(self.workers))}"
                    ]
            options = PipelineOptions(flags)
            yield stack.enter_context(beam.Pipeline(runner=target, options=options))


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[str]:
    """Start a Dask cluster of processes on this machine; yield its address."""
    try:
        from distributed import LocalCluster, default_client
    except ImportError as error:
        raise UserError(
            f"DaskRunner needs dask and distributed ({error}); pip install dask distributed"
        ) from error
    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options, processes=True, memory_limit=None) as cluster:
        yield cluster.scheduler_address
        with contextlib.suppress(ValueError):  # Beam leaves its client open
            default_client().close()


def write_shards(items: Sequence[ShardItem], *, runner: BeamRunner) -> None:
    """Write every shard that is not sealed yet.

    Raises:
        UserError: what stopped a shard.
    """
    with (
        _progress([item.seal for item in items]),
        runner.pipeline(items=len(items)) as pipeline,
    ):
        _ = (
            pipeline
            | "items" >> beam.Create(items)
            | "spread" >> beam.Reshuffle()  # of items: one worker would take all of them otherwise
            | "write" >> beam.Map(shard_writer.write_shard)
        )
    failed = sorted((items[0].work / shard_writer.FAILED).iterdir())
    if failed:
        raise UserError(failed[0].read_text(encoding="utf-8"))


@contextlib.contextmanager
def _progress(seals: Sequence[Path]) -> Iterator[None]:
    """Show how many shards are sealed, whichever processes do it."""
    done = threading.Event()
    with tqdm(total=len(seals), desc="records", unit="shard", disable=None) as bar:

        def look() -> None:
            while not done.wait(_LOOK):
                bar.update(sum(path.exists() for path in seals) - bar.n)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            bar.update(sum(path.exists() for path in seals) - bar.n)
