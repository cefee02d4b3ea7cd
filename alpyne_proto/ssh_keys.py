"""An account's key in OpenSSH's formats: private files, public lines, fingerprints.

Source: RFC 4253 section 6.6 and RFC 8709 (public keys), OpenSSH's PROTOCOL.key (private files),
ssh-keygen(1), option -l (fingerprints).
"""

import base64
import hashlib
import re
from collections.abc import Callable
from struct import Struct

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    SSHPrivateKeyTypes,
    load_ssh_private_key,
)

from alpyne_proto.errors import KeyFileError
from alpyne_proto.keys import KEY_SIZE, SigningKey

KEY_TYPE = "ssh-ed25519"
PRIVATE_FILE_MAX = 16_384  # bytes; an Ed25519 file has about 400
PUBLIC_LINE_MAX = 4_096  # characters; about 100 with a short comment

_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_BLOB_HEAD = Struct(">I11sI").pack(len(KEY_TYPE), KEY_TYPE.encode(), KEY_SIZE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_REMEDY = "make an account key with `alpyne keygen` or `ssh-keygen -t ed25519`"


def read_private_key(data: bytes, passphrase: Callable[[], bytes] | None, where: str) -> SigningKey:
    """Read an account's private key.

    data: the content of an OpenSSH private key file. passphrase: called once, and only if the file
    is protected; None where nobody can be asked. where: the file's name, for the error message.
    Raises KeyFileError for another format or kind of key, and a wrong or missing passphrase.
    """
    if len(data) > PRIVATE_FILE_MAX or not data.lstrip().startswith(_BEGIN):
        raise KeyFileError(
            f"{where}: expected an OpenSSH private key, which begins {_BEGIN.decode()}; {_REMEDY}"
        )
    key = _load(data, None, where)
    if key is None:
        if passphrase is None:
            raise KeyFileError(f"{where}: the key is protected; give its passphrase")
        key = _load(data, passphrase(), where)
    if key is None:
        raise KeyFileError(f"{where}: the passphrase is empty; give the one it was made with")
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{where}: expected an Ed25519 key, got another kind; {_REMEDY}")
    read = SigningKey(key.private_bytes_raw())
    # The public key stands in clear beside it: one that does not fit shows a damaged private key,
    # which would otherwise be another account.
    if _blob(read.public) not in base64.b64decode(data.split(b"-----")[2]):
        raise KeyFileError(f"{where}: the key cannot be read: it is damaged")
    return read


def _load(data: bytes, passphrase: bytes | None, where: str) -> SSHPrivateKeyTypes | None:
    """Return the key in an OpenSSH file, None where it wants a passphrase and got none."""
    try:
        return load_ssh_private_key(data, passphrase)
    except TypeError:
        return None
    except UnsupportedAlgorithm as error:
        raise KeyFileError(f"{where}: {error}; {_REMEDY}") from None
    except ValueError:
        cause = "it is damaged" if passphrase is None else "the passphrase is wrong"
        raise KeyFileError(f"{where}: the key cannot be read: {cause}") from None


def write_private_key(key: SigningKey, passphrase: bytes = b"") -> bytes:
    """Return the content of an OpenSSH private key file, to be readable by its owner only.

    passphrase: protects the file; empty = unprotected. The library draws the file's check number
    and salt itself; they are no part of the protocol.
    """
    private = Ed25519PrivateKey.from_private_bytes(key.private)
    protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, protection)


def write_public_line(key: bytes, comment: str = "") -> str:
    """Return `ssh-ed25519 AAAA... comment`, without a line end, for a public key of 32 bytes.

    Raises KeyFileError for a comment that holds control characters.
    """
    if _CONTROL.search(comment):
        raise KeyFileError("public key: expected a comment without control characters")
    return f"{KEY_TYPE} {base64.b64encode(_blob(key)).decode()} {comment}".rstrip()


def read_public_line(text: str, where: str) -> tuple[bytes, str]:
    """Read the content of a `.pub` file: one line of write_public_line.

    Returns the public key, 32 bytes, and the comment. where: the file's name, for the message.
    Raises KeyFileError for anything else.
    """
    line = text.strip() if len(text) <= PUBLIC_LINE_MAX else ""
    kind, encoded, comment = (*line.split(maxsplit=2), "", "", "")[:3]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except ValueError:
        blob = b""
    key = blob[len(_BLOB_HEAD) :]
    if kind != KEY_TYPE or len(key) != KEY_SIZE or blob != _blob(key) or _CONTROL.search(line):
        raise KeyFileError(
            f"{where}: expected one line `{KEY_TYPE} AAAA... comment`, as in a .pub file; {_REMEDY}"
        )
    return key, comment


def account_fingerprint(key: bytes) -> str:
    """Return `SHA256:...` of an account's public key, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(_blob(key)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _blob(key: bytes) -> bytes:
    return _BLOB_HEAD + key
