"""A secret key for machines where nobody has set one."""

import os
import secrets
from pathlib import Path


def development_secret_key(var_dir: Path) -> str:
    """Return this installation's own key, made on first use and readable by its owner alone.

    A key written into the source would be everybody's key. Production never comes here.
    """
    path = var_dir / "secret_key"
    try:
        return path.read_text()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may start at once: the first to link its file in place decides for all.
    draft = path.with_name(f"secret_key.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_urlsafe(50))
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text()
