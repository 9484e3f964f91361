"""Weights by the name they have on the Hugging Face Hub: hf:OWNER/NAME[@REVISION][::FILE].

`huggingface_hub` fetches them once into its own cache (HF_HOME), where they are found again without
a network, and knows tokens (HF_TOKEN, `hf auth login`) and mirrors (HF_ENDPOINT).
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError

PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+?))?(::(?P<file>[^\s@:]+))?")
_LOG_IN = "`hf auth login`, or HF_TOKEN"


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubName:
    """A repository of the Hub at a revision, or one file of it."""

    repo: str
    revision: str | None
    file: str | None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.repo}{revision}" + (f"::{self.file}" if self.file else "")


def is_name(text: str) -> bool:
    """Tell whether a text means the Hub."""
    return text.startswith(PREFIX)


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


def fetch(
    text: str, *, option: str, patterns: Sequence[Sequence[str]], ignored: Sequence[str]
) -> tuple[Path, str]:
    """Return the folder or file that a name is fetched to, and the name at its commit.

    Args:
        text: hf:OWNER/NAME[@REVISION][::FILE].
        option: what messages call it.
        patterns: of the files of a repository, in choices: the next one is fetched where nothing
            that this one has alone is found.
        ignored: patterns of files of a repository that are never fetched.

    Raises:
        UserError: no such repository, revision or file, no access to it, or no network; says which.
    """
    name = parse(text, option=option)
    # Here: a name is rare, and the library takes its settings from the environment when imported.
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        if name.file is not None:
            path = Path(hub.hf_hub_download(name.repo, name.file, revision=name.revision))
        else:
            path = _folder(hub, name, patterns=patterns, ignored=ignored)
    except errors.GatedRepoError as error:
        why = f"is gated: accept its licence on its page, then {_LOG_IN} of that account"
        raise _refused(name, option, why) from error
    except errors.RepositoryNotFoundError as error:
        why = f"does not exist, or is private: check the name, then {_LOG_IN}"
        raise _refused(name, option, why) from error
    except errors.RevisionNotFoundError as error:
        raise _refused(name, option, "has no such revision: give a branch, tag or hash") from error
    except errors.RemoteEntryNotFoundError as error:
        raise _refused(name, option, "has no such file: look on its page") from error
    except (OSError, errors.HTTPError) as error:
        why = " ".join(str(error).split())[:200]
        remedy = "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local path"
        raise _refused(name, option, f"could not be fetched ({why}): {remedy}") from error
    return path, str(dataclasses.replace(name, revision=_commit(path)))


def _folder(
    hub: Any, name: HubName, *, patterns: Sequence[Sequence[str]], ignored: Sequence[str]
) -> Path:
    for choice in patterns:
        folder = hub.snapshot_download(
            name.repo,
            revision=name.revision,
            allow_patterns=list(choice),
            ignore_patterns=list(ignored),
        )
        sought = set(choice).difference(*(other for other in patterns if other is not choice))
        if any(next(Path(folder).glob(pattern), None) for pattern in sought):
            break
    return Path(folder)


def _commit(path: Path) -> str:
    """Return the commit of a folder or file in the cache, .../snapshots/COMMIT/..."""
    return path.as_posix().rpartition("/snapshots/")[2].partition("/")[0]


def _refused(name: HubName, option: str, why: str) -> UserError:
    return UserError(f"{option} {name} {why}")
