"""How many tokens each pair has, counted once per tokenizer and kept beside the records.

    python -m data_pipelines.token_lengths --records DIR --tokenizer LLAMA_WEIGHTS_DIR [--workers N]

    DIR/tokens/<tokenizer>/<shard>.npz    "counts" int32 [P, 2], pairs in the order of the shard;
                                          "shard" the SHA-256 of what was counted

With them rows are packed to the token, and every host knows the padded length of a global batch
without asking the others. `write_records --tokenizer` counts too; training counts up to 200,000
pairs itself and refuses more.
"""

import argparse
import concurrent.futures
import contextlib
import multiprocessing
from pathlib import Path

from tqdm import tqdm

from data_pipelines.input.token_counts import FOLDER, count_shard
from data_pipelines.records import record_files
from ltu_jax.core import errors
from ltu_jax.core.paths import argument, local_arguments
from ltu_jax.preprocessing.text import load_tokenizer
from ltu_jax.weights import places

FEW = 2000  # pairs that are counted sooner than a process starts


def command(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.token_lengths",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--records", type=Path, required=True, help="records directory")
    parser.add_argument("--tokenizer", type=argument, required=True, help="folder with a tokenizer")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    flags = local_arguments(parser.parse_args(arguments))
    tokenizer = places.find(flags.tokenizer, option="--tokenizer", numbers=False).path
    count(flags.records, tokenizer=tokenizer, workers=flags.workers)
    return 0


def count(records: Path, *, tokenizer: Path, workers: int) -> None:
    """Count what is not counted yet and print how many pairs there are.

    Args:
        records: records directory.
        tokenizer: folder with a tokenizer.
        workers: processes that count; no more than `FEW` pairs are counted in this one.
    """
    load_tokenizer(tokenizer)  # a wrong folder fails here, not in every worker
    splits = record_files.read_manifest(records)["splits"].values()
    jobs = [(records, shard, tokenizer) for split in splits for shard in split["shards"]]
    with contextlib.ExitStack() as stack:
        if sum(split["pairs"] for split in splits) <= FEW:
            done = map(count_shard, jobs)
        else:
            context = multiprocessing.get_context("spawn")
            pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)
            done = stack.enter_context(pool).map(count_shard, jobs)
        pairs = sum(tqdm(done, total=len(jobs), desc="shards", unit="shard", disable=None))
    print(f"{records}: tokens of {pairs} pairs are in {records / FOLDER}")


if __name__ == "__main__":
    errors.main(command)
