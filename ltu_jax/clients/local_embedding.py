"""Sentence-Transformers models of BERT's kind, from their folders, in JAX: no PyTorch needed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ltu_jax.clients.reply_cache import key
from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, sha256_file
from ltu_jax.models.bert import Bert, BertConfig
from ltu_jax.weights.files import shards
from ltu_jax.weights.files.config_json import read_settings
from ltu_jax.weights.formats import hf_bert as bert_weights

SOURCE_FILE = "source.json"  # {"name": ...} beside weights that were fetched
_SHORTEST = 16  # tokens; buckets double from here
_ROWS = (8, 64)  # of a batch, whichever is enough: few shapes, so few compilations


class LocalEmbedder:
    """A BERT of Sentence-Transformers from its folder: mean over the tokens, length 1, float32.

    A text is cut to `max_seq_length` tokens of sentence_bert_config.json (256 for
    all-MiniLM-L6-v2), [CLS] and [SEP] included, as Sentence-Transformers does. The name is that in
    source.json, else the folder's.
    """

    def __init__(self, path: str | Path):
        """Open a folder.

        Raises:
            UserError: no such folder, another architecture or pooling, files missing or damaged.
        """
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(
                f"{self.path} is not a folder with a sentence-embedding model; get one with "
                "`python -m ltu_jax.fetch all-minilm-l6-v2`"
            )
        _check_modules(self.path)
        imported = bert_weights.from_hf(self.path)
        config = BertConfig.from_dict(imported.config)
        model = Bert.functional(config)
        shapes = {name: leaf.shape for name, leaf in model.shapes.items()}
        tensors = imported.params(shapes, subject=str(self.path))
        self._params = jax.device_put(
            {name: tensor.read().astype(np.float32) for name, tensor in tensors.items()}
        )
        self._sentences = jax.jit(model.pure(Bert.sentences))
        self.size = config.hidden_size
        self.max_tokens = _max_tokens(self.path, positions=config.max_position_embeddings)
        self._tokenizer, files = _load_tokenizer(self.path, max_tokens=self.max_tokens)
        last = max(self._tokenizer.get_vocab().values())
        if last >= config.vocab_size:
            raise UserError(
                f"{self.path}: its tokenizer has ids up to {last}, the model {config.vocab_size} "
                "tokens; take all files from the same model"
            )
        source = self.path / SOURCE_FILE
        self.name = self.path.resolve().name
        if source.is_file():
            self.name = str(read_settings(source)["name"])
        weights = shards.checkpoint_files(self.path).files
        hashes = [sha256_file(file) for file in (self.path / "config.json", *weights, *files)]
        self.identity = key("bert, mean, unit", str(self.max_tokens), *hashes)

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "N E"]:
        """Return a unit vector for each text, in order; [0, E] for none."""
        tokens = self.tokens(texts)
        result = np.zeros((len(texts), self.size), np.float32)
        for places, length, rows in _batches([len(ids) for ids in tokens], longest=self.max_tokens):
            ids = np.zeros((rows, length), np.int32)
            real = np.zeros((rows, length), bool)
            real[:, 0] = True  # rows that only fill the batch
            for row, place in enumerate(places):
                ids[row, : len(tokens[place])] = tokens[place]
                real[row, : len(tokens[place])] = True
            vectors = np.asarray(self._sentences(self._params, ids, real=real))
            result[places] = vectors[: len(places)]
        return result

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, [CLS] and [SEP] included, cut to `max_tokens`."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]


def _batches(lengths: Sequence[int], *, longest: int) -> Iterator[tuple[list[int], int, int]]:
    """Yield (places, padded length, rows) of batches of about equally long texts."""
    buckets: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        padded = _SHORTEST
        while padded < length:
            padded *= 2
        buckets.setdefault(min(padded, longest), []).append(place)
    for length, places in sorted(buckets.items()):
        for start in range(0, len(places), _ROWS[-1]):
            some = places[start : start + _ROWS[-1]]
            yield some, length, next(rows for rows in _ROWS if rows >= len(some))


def _check_modules(folder: Path) -> None:
    """Refuse a Sentence-Transformers model that is more than BERT, mean pooling and length 1."""
    advice = "use all-MiniLM-L6-v2, or serve this model and give URL#model"
    if (file := folder / "modules.json").is_file():
        modules = read_json(file)
        if not isinstance(modules, list) or not all(isinstance(part, dict) for part in modules):
            raise UserError(f"{file} is not a list of modules; copy it again")
        kinds = [str(part.get("type")).rpartition(".")[2] for part in modules]
        if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Normalize"}:
            raise UserError(
                f"{file}: its parts are {', '.join(kinds)}; only Transformer, Pooling, Normalize "
                f"is implemented: {advice}"
            )
    if (file := folder / "1_Pooling" / "config.json").is_file():
        prefix = "pooling_mode_"
        modes = [k for k, on in read_settings(file).items() if k.startswith(prefix) and on]
        if modes != [f"{prefix}mean_tokens"]:
            raise UserError(
                f"{file} asks for {', '.join(modes) or 'no pooling'}; only {prefix}mean_tokens is "
                f"implemented: {advice}"
            )


def _max_tokens(folder: Path, *, positions: int) -> int:
    file = folder / "sentence_bert_config.json"
    if not file.is_file():
        return positions
    settings = read_settings(file)
    if settings.get("do_lower_case"):
        raise UserError(f"{file}: do_lower_case is not implemented; the tokenizer may do it")
    length = settings.get("max_seq_length")
    if type(length) is not int or not 2 < length <= positions:
        raise UserError(
            f"{file}: max_seq_length is {length!r}; give a whole number from 3 to {positions}, the "
            "model's positions"
        )
    return length


def _load_tokenizer(folder: Path, *, max_tokens: int) -> tuple[Any, list[Path]]:
    """Return the WordPiece tokenizer of a folder, and the files that decide what it does."""
    import tokenizers

    file, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if file.is_file():
        if "model" not in read_settings(file):
            raise UserError(f"{file}: not a tokenizers file (no 'model' in it); copy it again")
        tokenizer, files = tokenizers.Tokenizer.from_file(str(file)), [file]
    elif vocabulary.is_file():
        tokenizer, files = _from_vocabulary(vocabulary)
    else:
        raise UserError(
            f"{folder}: no tokenizer.json or vocab.txt here; copy them from the model's folder"
        )
    # MiniLM's file asks for 128 tokens and padding to them; its model card for 256.
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer, files


def _from_vocabulary(file: Path) -> tuple[Any, list[Path]]:
    """Return BERT's tokenizer of a vocab.txt; tokenizer_config.json says whether in lower case."""
    import tokenizers

    settings = file.parent / "tokenizer_config.json"
    lower = read_settings(settings).get("do_lower_case", True) if settings.is_file() else True
    words = file.read_text(encoding="utf-8").splitlines()
    ids = {word: place for place, word in enumerate(words)}
    missing = [word for word in ("[CLS]", "[SEP]", "[UNK]") if word not in ids]
    if missing:
        raise UserError(f"{file}: lacks {', '.join(missing)}; it is no vocabulary of a BERT")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    ends = [(word, ids[word]) for word in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = tokenizers.processors.BertProcessing(*ends)
    tokenizer.add_special_tokens(
        [word for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if word in ids]
    )
    return tokenizer, [file, *([settings] if settings.is_file() else [])]
