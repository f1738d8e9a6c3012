"""Finding the files of the system before, wherever its folder lies now, and never outside of it."""

from pathlib import Path, PurePosixPath

from imagehub.errors import ImageHubError

MOST_FOLDERS = 64


class FileRefused(ImageHubError):
    """A file that is not read. ``code`` says why."""

    title = "The file of the row is not read"

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail)
        self.code = code


class LegacyFiles:
    """The folder in which the files lie now. Rows name them by paths of the machine that they were on."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def find(self, written: str) -> Path:
        """Return the file that a row means: its path itself, or the longest end of it that is found in the folder.

        Raises:
            FileRefused: ``unsafe_path``: it leads out of the folder. ``outside_media``: it is here, but somewhere else.
                ``missing_file``: there is none.
        """
        path = PurePosixPath(written.replace("\\", "/"))
        parts = [part for part in path.parts if part != "/"]
        if ".." in parts or len(parts) > MOST_FOLDERS:
            raise FileRefused("Its path climbs out of its folder.", code="unsafe_path")
        own = Path(written)
        candidates = [own] if own.is_absolute() and own.is_relative_to(self.root) else []
        candidates += [self.root.joinpath(*parts[start:]) for start in range(len(parts))]
        for candidate in candidates:
            if _is_file(candidate):
                return self._contained(candidate)
        if own.is_absolute() and _is_file(own):
            raise FileRefused("Its file lies outside of the media folder.", code="outside_media")
        raise FileRefused("Its file is not in the media folder.", code="missing_file")

    def _contained(self, path: Path) -> Path:
        real = path.resolve()
        if not real.is_relative_to(self.root):
            raise FileRefused("A link leads out of the media folder.", code="unsafe_path")
        return real


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
