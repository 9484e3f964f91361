"""How often a fault was injected, and how often it did no harm."""

import dataclasses


@dataclasses.dataclass
class Count:
    """Trials of one guarantee; `failures` says what went wrong, in words."""

    tried: int = 0
    passed: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)

    def add(self, trials: int = 1, *, failed: str | None = None) -> None:
        """Count `trials` that passed together, or failed together for the given reason."""
        self.tried += trials
        if failed is None:
            self.passed += trials
        elif trials:
            self.failures.append(failed)

    def to_json(self) -> dict[str, int]:
        """As the report has it."""
        return {"tried": self.tried, "passed": self.passed}
