"""`convert info`: files of every kind, described in words by their headers alone."""

import hashlib
import json
import math
import os
import shlex
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import gguf_llama, hf_llama
from safetensors.numpy import load_file, save_file

from ltu_jax import convert
from ltu_jax.weights.identify import describe, recognise


def _sparse(path: Path, shapes: dict[str, list[int]], *, dtype: str = "F16", **metadata) -> Path:
    """A safetensors file with true shapes and no numbers: the disk holds the header only."""
    width, end, header = {"F16": 2, "F32": 4}[dtype], 0, {}
    for name, shape in shapes.items():
        size = math.prod(shape) * width
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header | ({"__metadata__": metadata} if metadata else {})).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)
    return path


def _llama_shapes(*, width: int, layers: int, middle: int, vocab: int) -> dict[str, list[int]]:
    shapes = {"model.embed_tokens.weight": [vocab, width], "model.norm.weight": [width]}
    for layer in range(layers):
        stem = f"model.layers.{layer}."
        shapes |= {f"{stem}self_attn.{n}_proj.weight": [width, width] for n in "qkvo"}
        shapes |= {f"{stem}mlp.{n}_proj.weight": [middle, width] for n in ("gate", "up")}
        shapes[f"{stem}mlp.down_proj.weight"] = [width, middle]
        shapes |= {f"{stem}{n}_layernorm.weight": [width] for n in ("input", "post_attention")}
    return shapes | {"lm_head.weight": [vocab, width]}


@pytest.fixture(scope="module")
def official(golden):
    """Official names and shapes at 7B: complete, of stages 2 and 3, of stage 1."""
    found = json.loads((golden / "ltu_as_7b_names.json").read_text())
    every = found["peft_state_dict"]
    trained = {n: s for n, s in every.items() if "lora" in n or "audio" in n}
    return every, trained, {n: s for n, s in trained.items() if "lora" not in n}


def _told(path: Path, **settings) -> describe.Description:
    """The description, after the checks that hold for every one of them."""
    found = describe.describe(path, **({"hash": False} | settings))
    rows = describe.table(found)
    assert [name for name, _ in rows[:2]] == ["path", "format"]
    assert all(value and "\n" not in value for _, value in rows)
    assert found.next is None or not found.problems
    if found.next is not None:
        words = shlex.split(found.next)
        assert words[:3] == ["python", "-m", "ltu_jax.convert"]
        asked = convert.parser().parse_args(words[3:])
        assert asked.source == found.key and asked.weights[0].exists()
    return found


def _problem(found: describe.Description) -> str:
    assert found.problems and found.next is None
    return " ".join(found.problems)


# --- LTU-AS ---------------------------------------------------------------------------------------


def test_official_ltu_as_at_7b(official, tmp_path):
    every, trained, first = official
    assert (len(every), len(trained), len(first)) == (483, 160, 32)
    found = _told(_sparse(tmp_path / "ltuas.safetensors", every))
    assert found.model == "LTU-AS 7B, complete, stage 2/3" and found.stage == "2 or 3"
    assert (found.tensors, found.parameters) == (483, 6_787_209_216)
    assert found.dtypes == ("float16",) and not found.problems
    assert found.sizes["num_hidden_layers"] == 32 and found.sizes["lora_rank"] == 8
    assert found.next.startswith("python -m ltu_jax.convert --from ltu-as --weights ")
    assert "--llama" in found.next
    found = _told(_sparse(tmp_path / "trained.safetensors", trained))
    assert found.model == "LTU-AS 7B, trained part of stage 2/3"
    assert (found.tensors, found.parameters) == (160, 48_793_600)
    plain = {name.replace(".default.", "."): shape for name, shape in trained.items()}
    assert plain != trained
    assert _told(_sparse(tmp_path / "plain.safetensors", plain)).model == found.model
    found = _told(_sparse(tmp_path / "stage1.safetensors", first))
    assert found.model == "LTU-AS 7B, trained part of stage 1" and found.stage == "1 (no LoRA)"
    assert found.parameters == 39_352_320 + 5_246_976


def test_official_ltu_as_at_13b_ltu_and_parts(official, tmp_path):
    _, trained, _ = official
    lora = {n: s for n, s in trained.items() if "lora" in n}
    wide = {n: [5120 if size == 4096 else size for size in s] for n, s in trained.items()}
    for name in lora:
        layer = int(name.split("layers.")[1].split(".")[0])
        if layer < 8:
            wide[name.replace(f"layers.{layer}.", f"layers.{layer + 32}.")] = wide[name]
    found = _told(_sparse(tmp_path / "13b.safetensors", wide))
    assert found.model == "LTU-AS 13B, trained part of stage 2/3"
    assert found.sizes["num_hidden_layers"] == 40
    ltu = {"base_model.model.model.audio_proj.1.weight": [4096, 768]} | lora
    found = _told(_sparse(tmp_path / "ltu.safetensors", ltu))
    assert found.model.startswith("LTU 7B (not LTU-AS") and "audio input 768" in found.model
    assert "LTU, not LTU-AS" in _problem(found)
    short = dict(list(trained.items())[:-3])
    found = _told(_sparse(tmp_path / "short.safetensors", short))
    assert "incomplete: 3 tensors are missing" in _problem(found)
    found = _told(_sparse(tmp_path / "lora.safetensors", lora))
    assert found.model == "LoRA of a LLaMA 7B, without audio weights"
    assert "no audio weights" in _problem(found)


def test_a_checkpoint_of_hugging_faces_trainer(official, tmp_path):
    _, trained, _ = official
    shapes = {name: [2, 2] for name in trained}
    torch.save({n: torch.zeros(s) for n, s in shapes.items()}, tmp_path / "pytorch_model.bin")
    torch.save({"state": {}, "param_groups": []}, tmp_path / "optimizer.pt")
    state = {"global_step": 72000, "max_steps": 73414}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    found = _told(tmp_path)
    assert found.format == "official LTU-AS state dict" and found.key == "ltu-as"
    notes = " ".join(found.notes)
    assert "step 72000 of 73414" in notes and "optimizer.pt, trainer_state.json" in notes
    assert "optimiser state" in _told(tmp_path / "optimizer.pt").format
    assert "holds no weights" in _problem(_told(tmp_path / "trainer_state.json"))


# --- language models ------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes,words", [
    ((4096, 32, 11008, 32000), "LLaMA 7B"), ((5120, 40, 13824, 32000), "LLaMA 13B"),
    ((576, 30, 1536, 49152), "SmolLM2 135M"), ((64, 2, 96, 1000), "LLaMA family, 0.2M parameters"),
])  # fmt: skip
def test_hugging_face_llama_by_its_size(tmp_path, sizes, words):
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
    hf_llama(tmp_path, **dict(zip(names, sizes, strict=True)), num_attention_heads=sizes[0] // 32,
             num_key_value_heads=None)  # fmt: skip
    shapes = _llama_shapes(**dict(zip(("width", "layers", "middle", "vocab"), sizes, strict=True)))
    _sparse(tmp_path / "model.safetensors", shapes)
    (tmp_path / "README.md").write_text("---\ntags:\n- x\nlicense: apache-2.0\n---\n# A model\n")
    found = _told(tmp_path)
    assert found.model.startswith(words) and found.key == "hf-llama"
    assert found.format == "Hugging Face directory, model_type 'llama'"
    assert found.licence == "apache-2.0 (README.md)"
    assert found.parameters == sum(math.prod(shape) for shape in shapes.values())
    file = _told(tmp_path / "model.safetensors")
    assert file.key == "hf-llama" and f"--weights {tmp_path} " in file.next


def test_hugging_face_directories_that_do_not_convert(tmp_path):
    hf_llama(tmp_path)
    _told(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma"}')
    assert "'gemma' is not supported" in _problem(_told(tmp_path))
    (tmp_path / "config.json").unlink()
    assert "no config.json" in _problem(_told(tmp_path))
    assert "config.json" in _problem(_told(tmp_path / "model.safetensors"))
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    assert "without model.safetensors.index.json" in _problem(_told(tmp_path))
    index = {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks 1 of 1 shards" in _problem(_told(tmp_path))
    save_file({"bert.encoder.layer.0.attention.self.query.weight": np.ones((2, 2))},
              tmp_path / "bert.safetensors")  # fmt: skip
    assert "architecture" in _problem(_told(tmp_path / "bert.safetensors"))


def test_gguf(tmp_path):
    found = _told(gguf_llama(tmp_path, **{"general.license": "mit", "general.name": "Tiny"}))
    assert found.format == "GGUF, architecture llama" and found.key == "gguf"
    assert found.licence == "mit" and found.notes == ("its name is Tiny",)
    assert (found.tensors, found.parameters) == (12, 1176)
    part = tmp_path / "big-00002-of-00003.gguf"
    (tmp_path / "model.gguf").rename(part)
    assert "one part" in _problem(_told(part))
    part.write_bytes(part.read_bytes()[:-100])
    assert "is damaged" in _problem(_told(part))


def test_peft_adapters(official, tmp_path):
    _, trained, _ = official
    lora = {n.replace(".default.", "."): s for n, s in trained.items() if "lora" in n}
    settings = {
        "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "lmsys/vicuna-7b-v1.1",
    }  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert "no adapter_model file" in _problem(_told(tmp_path))
    _sparse(tmp_path / "adapter_model.safetensors", lora)
    found = _told(tmp_path)
    assert found.key == "peft" and "no audio weights beside it" in _problem(found)
    audio = {n: s for n, s in trained.items() if "lora" not in n}
    _sparse(tmp_path / "ltu_as_audio.safetensors", audio)
    found = _told(tmp_path)
    assert found.model == "LTU-AS 7B, trained part of stage 2/3" and found.tensors == 160
    assert found.notes == ("it belongs to the base lmsys/vicuna-7b-v1.1",)
    assert found.next.startswith("python -m ltu_jax.convert --from peft")


# --- Whisper and Whisper-AT -----------------------------------------------------------------------


def _openai_shapes(
    *, width: int, layers: int, mels: int, vocab: int, text: int
) -> dict[str, list[int]]:
    shapes = {
        "encoder.conv1.weight": [width, mels, 3], "decoder.token_embedding.weight": [vocab, width],
    }  # fmt: skip
    for side, depth in (("encoder", layers), ("decoder", text)):
        names = (f"{side}.blocks.{layer}.mlp.0.weight" for layer in range(depth))
        shapes |= dict.fromkeys(names, [4 * width, width])
    return shapes


@pytest.mark.parametrize("sizes,name,words", [
    ((384, 4, 80, 51864, 4), "x", "Whisper tiny.en (English only)"),
    ((512, 6, 80, 51865, 6), "x", "Whisper base (multilingual)"),
    ((1280, 32, 80, 51865, 32), "large-v1", "Whisper large-v1 (by its name; "),
    ((1280, 32, 80, 51865, 32), "x", "Whisper large (large-v1 and large-v2 have the same sizes)"),
    ((1280, 32, 128, 51866, 32), "x", "Whisper large-v3"),
    ((1280, 32, 128, 51866, 4), "x", "Whisper large-v3-turbo (multilingual)"),
    ((48, 2, 20, 51865, 2), "x", "Whisper of no published size"),
])  # fmt: skip
def test_whisper_by_its_shapes(sizes, name, words):
    keys = ("width", "layers", "mels", "vocab", "text")
    shapes = _openai_shapes(**dict(zip(keys, sizes, strict=True)))
    model = recognise.recognise(shapes, hint=name)
    assert model.family == "openai-whisper" and model.words.startswith(words)


def test_whisper_files(tmp_path):
    shapes = _openai_shapes(width=384, layers=4, mels=80, vocab=51864, text=4)
    tensors = {name: torch.zeros(shape, dtype=torch.half) for name, shape in shapes.items()}
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": tensors}, tmp_path / "tiny.en.pt")
    found = _told(tmp_path / "tiny.en.pt")
    assert found.format.startswith("OpenAI Whisper checkpoint")
    assert found.model == "Whisper tiny.en (English only)" and found.key == "openai-whisper"
    assert found.dtypes == ("float16",)
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "wrapped.pt")
    assert "inside 'state_dict'" in _problem(_told(tmp_path / "wrapped.pt"))
    head = struct.pack("<IH", 6, 12) + b"WhisperSpec\0" + struct.pack("<II", 3, 1)
    record = struct.pack("<H", 21) + b"encoder/conv1/weight\0"
    record += struct.pack("<BIIIBI", 3, 384, 80, 3, 4, 384 * 80 * 3 * 2) + bytes(384 * 80 * 3 * 2)
    folder = tmp_path / "ct2"
    folder.mkdir()
    (folder / "model.bin").write_bytes(head + record + struct.pack("<I", 0))
    assert _told(folder).format == "CTranslate2 model" and _told(folder).key == "ct2-whisper"
    other = head.replace(b"WhisperSpec", b"BlaBlaBSpec") + record + struct.pack("<I", 0)
    (folder / "model.bin").write_bytes(other)
    assert "no Whisper" in _problem(_told(folder / "model.bin"))


@pytest.mark.parametrize("variant,words", [("full", "full variant"), ("low", "low-compute")])
def test_whisper_at(golden, tmp_path, variant, words):
    state = load_file(golden / f"whisper_at_{variant}" / "weights.safetensors")
    torch.save({n: torch.from_numpy(a) for n, a in state.items()}, tmp_path / "large-v1_ori.pth")
    found = _told(tmp_path / "large-v1_ori.pth")
    assert words in found.model and found.model.startswith("Whisper-AT TL-TR")
    assert found.key == "whisper-at" and "labels" in found.sizes


# --- ours -----------------------------------------------------------------------------------------


def test_our_own_directories(tmp_path):
    (tmp_path / "hf").mkdir()
    convert.import_weights("hf-llama", weights=[hf_llama(tmp_path / "hf")], out=tmp_path / "ours")
    found = _told(tmp_path / "ours")
    assert found.format == "weights directory of ltu_jax, kind llama" and found.key is None
    assert found.parameters == 1176 and "imported from" in found.notes[0]
    assert "only a part" in _problem(_told(tmp_path / "ours" / "params.safetensors"))
    (tmp_path / "ours" / "params.safetensors").unlink()
    assert "lacks params.safetensors" in _problem(_told(tmp_path / "ours"))


def _seal(step, metadata):
    text = json.dumps(metadata)
    (step / "metadata.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (step / "metadata.json.sha256").write_text(f"{digest}  metadata.json\n")


def test_runs_and_checkpoints(tmp_path):
    step = tmp_path / "run" / "checkpoints" / "20"
    (step / "adapter").mkdir(parents=True)
    metadata = {
        "ltu_jax": 2, "kind": "ltu-as-checkpoint", "stage": "stage2", "step": 20, "files": {},
        "parameters": {"audio_proj.kernel": [48, 64]}, "model": {}, "base": {},
    }  # fmt: skip
    _seal(step, metadata)
    for path in (tmp_path / "run", step.parent, step):
        found = _told(path)
        assert found.key == "orbax" and found.stage == "2" and found.parameters == 48 * 64
        assert found.model == "LTU-AS, trained part of stage 2, step 20"
    metadata["base"] = {"llama": {"path": "../nowhere", "absolute_path": "/nowhere"}}
    _seal(step, metadata)
    assert "base weights (llama) are not at /nowhere" in _problem(_told(step))
    metadata |= {"kind": "tagger-checkpoint", "base": {}}
    _seal(step, metadata)
    assert "tagger" in _told(step).format and _told(step).next is None
    (step / "metadata.json").unlink()
    assert "20 is damaged: its file metadata.json is missing" in _problem(_told(tmp_path / "run"))
    step.rename(step.with_name(".tmp-20"))  # as a killed save leaves it
    assert "no finished step" in _problem(_told(tmp_path / "run"))
    step.with_name(".tmp-20").rename(step)
    (step / "_METADATA").write_text("{}")
    assert "did not write" in _told(step).format


def test_records_are_data(tmp_path):
    manifest = {"kind": "records", "ltu_jax": 1, "splits": {"train": {"clips": 3}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert "training data" in _problem(_told(tmp_path))


# --- anything else --------------------------------------------------------------------------------


@pytest.mark.parametrize("name,content,format,says", [
    ("a.bin", b"", "empty file", "0 bytes"),
    ("a.safetensors", b"<!DOCTYPE html><title>Not found</title>", "web page", "'Not found'"),
    ("a.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 13476925163\n",
     "Git LFS pointer", "git lfs pull"),
    ("a.wav", b"RIFF\0\0\0\0WAVEfmt ", "WAV audio", "a sound"),
    ("a.mp3", b"ID3\x04", "MP3 audio", "a sound"),
    ("a.flac", b"fLaC\0", "FLAC audio", "a sound"),
    ("a.txt", "Grüße".encode(), "text", "no weights"),
    ("a.json", b'{"a": 1}', "JSON text", "no weights"),
    ("config.json", b'{"a": 1}', "settings", "give the directory"),
    ("a.safetensors", b"\x10", "safetensors", "is damaged"),
    ("a.xyz", bytes(range(1, 64)), "unknown binary", "01 02 03 04"),
    ("a.gguf", b"GGUF\x07\0\0\0", "GGUF", "version 7"),
    ("a.gz", b"\x1f\x8b\x08", "compressed archive", "unpack"),
    ("a.tfrecord-00000-of-00001", bytes(21), "TFRecord", "training data"),
])  # fmt: skip
def test_files_that_are_something_else(tmp_path, name, content, format, says):
    path = tmp_path / name
    path.write_bytes(content)
    found = _told(path)
    assert found.format.startswith(format) and says in _problem(found)
    assert found.bytes == len(content) and found.key is None


def test_archives_and_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model/config.json", "{}")
    assert "'model/config.json'" in _problem(_told(tmp_path / "a.zip"))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a.zip", "a.zip")
    assert _told(tmp_path / "a.tar").format == "TAR archive"
    np.savez(tmp_path / "a.npz", features=np.ones(3))
    assert "NumPy archive of 1" in _told(tmp_path / "a.npz").format
    np.save(tmp_path / "a.npy", np.ones((2, 3), np.float32))
    assert _told(tmp_path / "a.npy").format == "one NumPy array (2, 3) of <f4"
    np.save(tmp_path / "o.npy", np.asarray([{}]), allow_pickle=True)
    assert "may run code" in _problem(_told(tmp_path / "o.npy"))


def test_places_where_nothing_can_be_read(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "nothing in" in _problem(_told(tmp_path / "empty"))
    assert "does not exist; " in _problem(_told(tmp_path / "none.bin"))
    (tmp_path / "link.bin").symlink_to(tmp_path / "gone.bin")
    assert "symbolic link to" in _problem(_told(tmp_path / "link.bin"))
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in _problem(_told(tmp_path / "pipe"))
    (tmp_path / "deep" / "inner").mkdir(parents=True)
    assert "perhaps one of its folders is meant: inner" in _problem(_told(tmp_path / "deep"))


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"x")

    def denied(self, *arguments, **settings):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)  # as root, chmod denies nothing
    found = describe.describe(path)
    assert found.problems == (f"{path} cannot be read: Permission denied",)


def test_a_mixed_folder_lists_what_lies_there(tmp_path):
    hf_llama(tmp_path)
    gguf_llama(tmp_path)
    (tmp_path / "old.bin").write_bytes(b"<html>")
    found = _told(tmp_path)
    assert found.format.startswith("mixed folder; first Hugging Face directory")
    (note,) = found.notes
    assert "model.gguf: GGUF, architecture llama" in note and "old.bin: web page" in note
    assert "the Hugging Face weights (model.safetensors) is the one read" in note
    assert found.key == "hf-llama"


def test_hashes_and_licences(tmp_path):
    (tmp_path / "a.json").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert describe.describe(tmp_path / "a.json").sha256 == digest
    folder = tmp_path / "hf"
    folder.mkdir()
    hf_llama(folder)
    (folder / "LICENSE").write_text("\n  LLAMA 2 COMMUNITY LICENSE AGREEMENT\nmore\n")
    found = _told(folder, hash=True)
    assert found.licence == "LLAMA 2 COMMUNITY LICENSE AGREEMENT (LICENSE)"
    before = found.sha256
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert len(before) == 64 and _told(folder, hash=True).sha256 != before
    path = _sparse(tmp_path / "x.safetensors", {"a": [2]}, license="mit")
    assert _told(path).licence == "mit"


def test_the_command_prints_the_table(tmp_path, capsys):
    hf_llama(tmp_path)
    with pytest.raises(SystemExit) as end:
        convert.main(["info", str(tmp_path)])
    assert not end.value.code
    out = capsys.readouterr().out
    assert "format" in out and "import it with  python -m ltu_jax.convert --from hf-llama" in out
