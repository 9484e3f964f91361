"""Package metadata; versions that are known to work together are pinned in constraints.txt."""

from setuptools import find_packages, setup

setup(
    name="ltu_jax",
    version="0.1.0",
    description="LTU-AS, joint audio and speech understanding, in JAX",
    python_requires=">=3.11",
    packages=find_packages(include=["ltu_jax*", "configs*", "data_pipelines*"]),
    install_requires=[
        "jax>=0.10.2,<0.11",
        "flax>=0.12.8,<0.13",
        "optax",
        "orbax-checkpoint>=0.12,<0.13",
        "transformers>=5,<6",
        "tokenizers",
        "tensorflow-cpu>=2.21,<2.22; platform_machine == 'x86_64'",
        "tensorflow>=2.21,<2.22; platform_machine != 'x86_64'",
        "tensorflow-datasets",
        "apache-beam",
        "importlib_resources",
        "librosa",
        "soundfile",
        "soxr",
        "sentencepiece",
        "safetensors",
        "gguf",
        "ml_collections",
        "tensorboard",
        "jaxtyping",
        "jiwer",
        "matplotlib",
        "tqdm",
    ],
    extras_require={
        # The voices, instruments and models that build the mini corpus of `make demo`.
        "demo": ["onnxruntime", "pretty_midi"],
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda13]"],
        "test": ["pytest", "ruff", "scikit-learn", "typeguard"],
    },
)
