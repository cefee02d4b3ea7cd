"""The devices that this account's key has certified, in the file devices.json beside it.

Nodes know an account's devices only when they meet them; the account's own machine keeps the list,
so that a device can be renewed and revoked by its name.

    [{"name": "laptop", "noise_key": "<hex>", "signing_key": "<hex>", "not_after": 1790000000,
      "revoked_at": 0}, ...]
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from alpyne_grid.manager.files import locked

from alpyne_grid.durable import write_durably
from alpyne_proto.certificate import Certificate
from alpyne_proto.errors import AlpyneError, ErrorCode, KeyFileError

FILE = "devices.json"
_FILE_MAX = 1 << 20


class DeviceNotFound(AlpyneError):
    """No device of this account has the name that was typed."""

    code = ErrorCode.NOT_FOUND


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the account; keys in hexadecimal, times in seconds since the epoch."""

    name: str
    noise_key: str
    signing_key: str
    not_after: int
    revoked_at: int = 0


def load(home: Path) -> list[Device]:
    """Return the devices in ``home``, oldest first; KeyFileError for a file that is none."""
    path = home / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        if len(text) > _FILE_MAX:
            raise ValueError(f"more than {_FILE_MAX} characters")
        entries = json.loads(text)
        if not isinstance(entries, list):
            raise ValueError("no list")
        return [Device(**entry) for entry in entries]
    except (ValueError, TypeError) as error:
        raise KeyFileError(
            f"{path}: not a list of devices ({error}); restore it, or remove it (devices that are "
            "not in it can still be revoked by their key)"
        ) from None


def find(devices: list[Device], text: str) -> Device:
    """Return the device named ``text``, or whose key begins so; raises DeviceNotFound."""
    named = [d for d in devices if d.name == text] or [
        d for d in devices if len(text) >= 4 and d.noise_key.startswith(text.lower())
    ]
    if len(named) != 1:
        known = ", ".join(device.name for device in devices) or "none"
        found = f"{len(named)} devices fit" if named else "no such device"
        raise DeviceNotFound(f"device {text!r}: {found}; known are {known} (`alpyne device list`)")
    return named[0]


def keep(home: Path, name: str, certificate: Certificate) -> Device:
    """Note that ``certificate`` was issued to the device ``name``, or renewed for it."""
    device = Device(
        name, certificate.noise_key.hex(), certificate.signing_key.hex(), certificate.not_after
    )
    with locked(home):
        others = [d for d in load(home) if d.noise_key != device.noise_key]
        _write(home, [*others, device])
    return device


def mark_revoked(home: Path, device: Device, now_s: int) -> None:
    """Note that a device was revoked."""
    with locked(home):
        _write(
            home,
            [
                replace(known, revoked_at=now_s) if known.noise_key == device.noise_key else known
                for known in load(home)
            ],
        )


def _write(home: Path, devices: list[Device]) -> None:
    content = json.dumps([asdict(device) for device in devices], indent=1)
    write_durably(home / FILE, f"{content}\n".encode())
