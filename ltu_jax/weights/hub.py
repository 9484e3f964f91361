"""Weights by the name they have on the Hugging Face Hub: hf:OWNER/NAME[@REVISION][::FILE].

`huggingface_hub` fetches them once into its own cache (HF_HOME), and knows tokens (HF_TOKEN) and
mirrors (HF_ENDPOINT). Settings, tokenizers and one form of the weights are fetched: safetensors
where there are any.
"""

import dataclasses
import re
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import local_only

PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+?))?(::(?P<file>[^\s@:]+))?")
_SETTINGS = ("*.json", "*.txt", "*.model", "*.tiktoken")
_SAFE, _TORCH = ("*.safetensors",), ("*.bin", "*.pt", "*.pth")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubName:
    """A repository of the Hub at a revision, or one file of it."""

    repo: str
    revision: str | None
    file: str | None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.repo}{revision}" + (f"::{self.file}" if self.file else "")


def parse(text: str, *, option: str) -> HubName:
    """Read hf:OWNER/NAME[@REVISION][::FILE].

    Raises:
        UserError: it is not of this form.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise UserError(
            f"{option} {text} is no name on the Hugging Face Hub: give hf:OWNER/NAME, "
            "hf:OWNER/NAME@REVISION, or hf:OWNER/NAME@REVISION::FILE"
        )
    return HubName(repo=match["repo"], revision=match["revision"], file=match["file"])


def local_path(path: str | Path, *, option: str) -> Path:
    """Return a local path as it is, and of a name on the Hub the folder or file it is fetched to.

    Raises:
        UserError: no such repository, revision or file, no access to it, or no network; says which.
    """
    text = str(path)
    if not text.startswith(PREFIX):
        return local_only(path, option=option)
    name = parse(text, option=option)
    # Here: a name is rare, and the library takes its settings from the environment when imported.
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        if name.file is not None:
            return Path(hub.hf_hub_download(name.repo, name.file, revision=name.revision))
        for weights in (_SAFE, _TORCH):
            wanted = [*_SETTINGS, *weights]
            folder = hub.snapshot_download(name.repo, revision=name.revision, allow_patterns=wanted)
            if any(next(Path(folder).glob(pattern), None) for pattern in weights):
                break
        return Path(folder)
    except errors.GatedRepoError as error:
        raise _refused(name, option, "needs its licence accepted, and HF_TOKEN set") from error
    except errors.RepositoryNotFoundError as error:
        raise _refused(name, option, "does not exist, or is private: set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise _refused(name, option, "has no such revision: give a branch, tag or hash") from error
    except errors.EntryNotFoundError as error:
        raise _refused(name, option, "has no such file: look on its page") from error
    except (OSError, errors.HTTPError) as error:
        why = " ".join(str(error).split())[:200]
        remedy = "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local path"
        raise _refused(name, option, f"could not be fetched ({why}): {remedy}") from error


def source_name(path: str | Path) -> dict[str, str]:
    """Return the name of weights that came from the Hub; a folder of its cache says nothing."""
    return {"name": str(path)} if str(path).startswith(PREFIX) else {}


def _refused(name: HubName, option: str, why: str) -> UserError:
    return UserError(f"{option} {name} {why}")
