"""Objects of a bucket that are written only where they are as the writer believes.

An object store has no lock, no append and no rename. It has generations: a write or a deletion may
demand that an object is still of one generation, or is not there. TensorStore sends that demand.
"""

import dataclasses
import os
from typing import Any

from ltu_jax.core.errors import UserError

_PATIENCE = 60.0  # seconds until a request, with its repetitions, counts as failed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Read:
    """The content of an object, and the generation that a later write may demand."""

    content: bytes
    generation: bytes


class Objects:
    """The objects below one gs:// address."""

    def __init__(self, folder: str | os.PathLike) -> None:
        """Open the address; nothing is asked of the bucket yet."""
        import tensorstore

        self.folder = os.fspath(folder).rstrip("/")
        bucket, _, path = self.folder.removeprefix("gs://").partition("/")
        self._store = self._done(
            tensorstore.KvStore.open(
                {"driver": "gcs", "bucket": bucket, "path": f"{path}/" if path else ""}
            )
        )

    def names(self) -> list[str]:
        """List the names of all objects, relative to the address; of folders in it too."""
        return sorted(name.decode() for name in self._done(self._store.list()))

    def read(self, name: str) -> Read | None:
        """Read an object; None where there is none."""
        result = self._done(self._store.read(name))
        if result.state != "value":
            return None
        return Read(content=result.value, generation=result.stamp.generation)

    def create(self, name: str, content: bytes) -> bytes | None:
        """Write an object that is not there yet.

        Returns:
            Its generation; None where another was first.
        """
        there = self._done(self._store.read(name))
        if there.state == "value":
            return None
        return self.replace(name, content, generation=there.stamp.generation)

    def replace(self, name: str, content: bytes, *, generation: bytes) -> bytes | None:
        """Write an object that is still of a generation.

        Returns:
            Its new generation; None where another has written or deleted it since.
        """
        written = self._done(self._store.write(name, content, if_equal=generation)).generation
        if written:
            return written
        # A request is repeated where its answer was lost: then it was this write itself.
        there = self.read(name)
        return there.generation if there is not None and there.content == content else None

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there is no error."""
        self._done(self._store.write(name, None))

    def _done(self, future: Any) -> Any:
        """Wait for a request.

        Raises:
            OSError: it failed; says why and names the address.
        """
        try:
            return future.result(timeout=_PATIENCE)
        except TimeoutError:
            raise OSError(None, f"no answer in {_PATIENCE:.0f} s", self.folder) from None
        except UserError:
            raise
        except ValueError as error:  # TensorStore's error of every kind
            raise OSError(None, " ".join(str(error).split())[:300], self.folder) from error
