"""What to start in place of our trainer, and how to read it."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from training.pipelines.failures import FailureCode, RequestFailed
from training.trainer.assignment import Assignment, RunFolder
from training.trainer.metadata import file_stem

FILE_NAME = "external.json"

_PLACEHOLDER = re.compile(r"\{([a-z_]+(?:\.[a-z_]+)?)\}")


@dataclass(frozen=True)
class Order:
    """As it stands in the configuration under ``training.external``."""

    command: tuple[str, ...]
    """The program and its arguments, with placeholders."""
    progress: str
    """A regular expression with the groups ``step`` and ``total``, and perhaps ``loss``."""
    result: str
    """A pattern of file names in the folder ``{output}``."""

    def write(self, folder: RunFolder) -> None:
        """Write it where the program looks for it."""
        (folder.root / FILE_NAME).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: RunFolder) -> Self:
        """Read what a folder holds.

        Raises:
            RequestFailed: there is none (``bad_request``).
        """
        try:
            said = json.loads((folder.root / FILE_NAME).read_text())
            return cls(tuple(said["command"]), said["progress"], said["result"])
        except (OSError, ValueError, KeyError, TypeError):
            raise RequestFailed(
                FailureCode.BAD_REQUEST, f"The folder holds no readable {FILE_NAME}."
            ) from None

    def arguments(self, assignment: Assignment, *, dataset: Path, output: Path) -> list[str]:
        """Return the command with everything filled in. No shell reads it, so nothing is quoted.

        Raises:
            RequestFailed: it names something that there is not (``bad_request``).
        """
        values = {
            "dataset": str(dataset),
            "output": str(output),
            "model": assignment.model.source,
            "name": file_stem(assignment.name),
            "trigger_word": assignment.trigger_word,
            "threads": str(assignment.threads),
        }
        recipe = assignment.recipe.model_dump(mode="json")
        values |= {f"config.{name}": _spelt(value) for name, value in recipe.items()}

        def fill_in(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise RequestFailed(
                    FailureCode.BAD_REQUEST,
                    f"The command of the external trainer names {match[0]}, which there is not.",
                )
            return values[match[1]]

        return [_PLACEHOLDER.sub(fill_in, argument) for argument in self.command]


def _spelt(value: Any) -> str:
    """Return a value of the recipe as command lines have them."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)
