"""Make the model that the package ships out of a finished run.

    python -m ltu_jax.ship --run runs/real/stage3 --out ltu_jax/pretrained \\
        --corpus data/real --scores "real, held-out packages=runs/real/summary.json" \\
        --command "python -m ltu_jax.train --config=configs/curriculum.py:real"

Writes adapter, TLTR and projection as safetensors in bfloat16, the run's metadata with each base by
the packages that hold it, a parity certificate against the run, and a model card. At most 20 MB in
all. The card has what the options give; what nobody measured it says so.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax import checkpoint
from ltu_jax.core import errors, outputs
from ltu_jax.core.compilation import keep_compiled
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.core.outputs import Maker
from ltu_jax.core.paths import local_arguments
from ltu_jax.core.text_files import read_text
from ltu_jax.shipping import held_out_answers, model_card, run_parity, training_data
from ltu_jax.shipping.model_card import CardFacts
from ltu_jax.shipping.pinned_bases import pinned_bases
from ltu_jax.weights import adapter_folder
from ltu_jax.weights.fingerprint import KEY
from ltu_jax.weights.open import open_adapter
from ltu_jax.weights.parity import certificate
from ltu_jax.weights.tensors import DTYPES, Tensors, cast

MAKER = Maker(name="`python -m ltu_jax.ship`")
MOST_BYTES = 20_000_000
_RECORDINGS = Path("assets/recordings")
# What of a checkpoint's metadata a shipped model keeps; hashes of local inputs mean nothing there.
_KEPT = ("kind", "stage", "step", "model", "whisper_config", "labels", "transcription", "config",
         "feature_fingerprint", KEY)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    it = argparse.ArgumentParser(
        prog="python -m ltu_jax.ship",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument("--run", type=Path, required=True, metavar="DIR", help="run or checkpoint")
    it.add_argument(
        "--out", type=Path, default=adapter_folder.SHIPPED, metavar="DIR",
        help="folder to write; default: that of the package, ltu_jax/pretrained",
    )  # fmt: skip
    card = it.add_argument_group("what the card says")
    card.add_argument("--corpus", type=Path, metavar="DIR", help="corpus of the run's records")
    card.add_argument(
        "--scores", nargs="+", default=[], metavar="TITLE=FILE",
        help="summaries that `evaluate --summary` wrote",
    )  # fmt: skip
    card.add_argument(
        "--recordings", type=Path, default=_RECORDINGS, metavar="DIR",
        help=f"fetched recordings, of which six are asked about; default: {_RECORDINGS}",
    )  # fmt: skip
    card.add_argument("--command", metavar="TEXT", help="the command that trained it, from nothing")
    card.add_argument("--limits", type=Path, metavar="FILE", help="Markdown on what it cannot do")
    return it


def run(options: argparse.Namespace) -> None:
    """Write the shipped model.

    Raises:
        UserError: no run of a language model there, bases that no pinned package holds, data that
            may not be given away, more than `MOST_BYTES`, or numbers that are not the run's.
    """
    scores = {}
    for given in options.scores:
        title, separator, file = given.rpartition("=")
        if not separator or not title:
            raise UserError(f"--scores {given}: give TITLE=FILE")
        scores[title] = model_card.read_scores(Path(file))
    limits = None if options.limits is None else read_text(options.limits, expected="Markdown")
    data = None if options.corpus is None else training_data.read(options.corpus)
    outputs.claim(options.out, MAKER, inputs=[options.run, options.corpus])
    place, saved = checkpoint.read_metadata(options.run)
    if saved["kind"] != checkpoint.KINDS[0]:
        raise UserError(f"--run {options.run} is a {saved['kind']}: give a run of stage 2 or 3")
    adapter = cast(open_adapter(place).tensors, DTYPES["bfloat16"])
    sizes = part_sizes(adapter)
    _require_small(sizes)
    metadata = {key: _without_places(saved[key]) for key in _KEPT if key in saved}
    metadata["base"] = pinned_bases(saved, run=options.run)
    keep_compiled()
    print("what the run computes ...", file=sys.stderr, flush=True)
    of_run = run_parity.compute(place)

    def finish(folder: Path) -> None:
        print("what the shipped form computes ...", file=sys.stderr, flush=True)
        parity = run_parity.certify(folder, ours=run_parity.compute(folder), run=of_run)
        write_json(folder / certificate.FILE, parity)
        certificate.require_passed(parity, folder=options.out)
        learnt = () if data is None else [use.name for use in data.uses]
        answers = held_out_answers.ask(folder, options.recordings, learnt=learnt)
        facts = CardFacts(
            metadata=metadata, parity=parity, sizes=sizes, data=data, scores=scores,
            answers=answers, command=options.command, limits=limits,
        )  # fmt: skip
        (folder / model_card.FILE).write_text(model_card.card(facts), encoding="utf-8")
        files = {file.name: file.stat().st_size for file in folder.iterdir()}
        _require_small(sizes, files=files)
        print(certificate.table(parity))
        for name, size in sorted(files.items()):
            print(f"{name:<22}{size / 1e6:>9.3f} MB")

    adapter_folder.write(
        options.out, adapter=adapter, metadata=metadata, maker=MAKER, finish=finish
    )
    print(f"written {options.out}; read {options.out / model_card.FILE} before you give it away")


def part_sizes(adapter: Tensors) -> dict[str, int]:
    """Return the bytes of TLTR, projection and LoRA as they are stored."""
    parts = {"tltr": "TLTR", "audio_proj": "projection", "llama": "LoRA"}
    sizes = dict.fromkeys(parts.values(), 0)
    for path, tensor in adapter.items():
        sizes[parts[path.partition(".")[0]]] += tensor.nbytes
    return sizes


def _require_small(sizes: Mapping[str, int], *, files: Mapping[str, int] | None = None) -> None:
    total = sum((files or sizes).values())
    if total > MOST_BYTES:
        told = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in (files or sizes).items())
        raise UserError(
            f"the shipped model would have {total / 1e6:.1f} MB ({told}), at most "
            f"{MOST_BYTES / 1e6:.0f} are let into the package: train one with a smaller Whisper "
            "(its width is the TLTR's) or a lower LoRA rank"
        )


def _without_places(value: Any) -> Any:
    """Return metadata in which absolute paths of this machine are their last names."""
    if isinstance(value, Mapping):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input is one line on stderr and exit status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    errors.main(lambda: run(local_arguments(parser().parse_args(errors.arguments(given)))))


if __name__ == "__main__":
    main()
