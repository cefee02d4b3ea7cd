"""Removes the folders that jobs leave, which may be made so that they are hard to remove."""

import contextlib
import os

_MOVED = "alpyne-removes"  # in the names of folders that are on their way


def remove_tree(path: str) -> None:
    """Remove a folder, however deep and closed it is, as far as that is allowed; never raises.

    Folders inside are moved up, beside ``path``, before they are looked into: so no path becomes
    too long, and nothing is called recursively.
    """
    number = 0
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
            for entry in _entries(folder):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        number += 1
                        above = f"{path}.{_MOVED}.{number}"
                        os.chmod(entry.path, 0o700)  # to move it is to write to its entry ".."
                        os.rename(entry.path, above)
                        waiting.append(above)
                    else:
                        os.unlink(entry.path)
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _entries(folder: str) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return list(entries)
