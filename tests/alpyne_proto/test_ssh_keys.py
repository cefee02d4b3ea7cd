"""OpenSSH's formats for an account's key, against files that ssh-keygen wrote."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ecdsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto.errors import KeyFileError
from alpyne_proto.keys import SigningKey
from alpyne_proto.ssh_keys import (
    account_fingerprint,
    read_private_key,
    read_public_line,
    write_private_key,
    write_public_line,
)

# Made for these tests: ssh-keygen -t ed25519 -C "a comment"
PLAIN = b"""\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACBy5sT7f/ePIKmljto1d2AD4Nbp2ZFOsO8aDMoPJXvRagAAAJDkY6v+5GOr
/gAAAAtzc2gtZWQyNTUxOQAAACBy5sT7f/ePIKmljto1d2AD4Nbp2ZFOsO8aDMoPJXvRag
AAAEBpxbBrqD0Wlj6dJtr4aEi+YbjWB4bUyQiMn1zNaOcsyXLmxPt/948gqaWO2jV3YAPg
1unZkU6w7xoMyg8le9FqAAAACWEgY29tbWVudAECAwQ=
-----END OPENSSH PRIVATE KEY-----
"""
PLAIN_LINE = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHLmxPt/948gqaWO2jV3YAPg1unZkU6w7xoMyg8le9Fq a comment\n"
)
PLAIN_FINGERPRINT = "SHA256:4bQHKdPRgzwUL+AbPCYgF3ExtEtmWnxWORWLeR84Qkk"

# ... -N secret
PROTECTED = b"""\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABDZI4AeCJ
XPhARzs45QqAQJAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIJd9DdhL+/bJWNdr
yLQm+gWVxTCUIxYL1Zx5aT9uXQqmAAAAkIl5xyXcofLNqGDVKvGwfB+HJxncf2DwnG7Wjc
buUqU0jVgwxOXVZ+6I3cNzVu1PPhvejmyI6wRzPIrFDbx3OUpj00zSHhIdR7TggOy1ytV3
Mm+FlZjdq3/UeSALFRNltdzqWi4atk5mWmJyTgbZDs5JSHIOXobviPk46coyg0gRXLeUxk
tFF+ZUTX/JoWP11Q==
-----END OPENSSH PRIVATE KEY-----
"""
PROTECTED_LINE = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd9DdhL+/bJWNdryLQm+gWVxTCUIxYL1Zx5aT9uXQqm a comment"
)


def never_asked() -> bytes:
    raise AssertionError("asked for a passphrase that the file does not need")


def test_reader_takes_plain_file_of_ssh_keygen_without_asking() -> None:
    key = read_private_key(PLAIN, never_asked, "id_ed25519")
    assert (key.public, "a comment") == read_public_line(PLAIN_LINE, "id_ed25519.pub")


def test_reader_asks_once_when_the_file_is_protected() -> None:
    asked = []

    def passphrase() -> bytes:
        asked.append(True)
        return b"secret"

    key = read_private_key(PROTECTED, passphrase, "id_ed25519")
    assert key.public == read_public_line(PROTECTED_LINE, "id_ed25519.pub")[0]
    assert asked == [True]


@pytest.mark.parametrize(
    ("passphrase", "text"), [(b"wrong", "passphrase is wrong"), (b"", "passphrase is empty")]
)
def test_reader_says_so_when_the_passphrase_does_not_fit(passphrase: bytes, text: str) -> None:
    with pytest.raises(KeyFileError, match=f"^id_ed25519: .*{text}"):
        read_private_key(PROTECTED, lambda: passphrase, "id_ed25519")


def test_reader_says_so_when_nobody_can_be_asked_for_the_passphrase() -> None:
    with pytest.raises(KeyFileError, match="protected; give its passphrase"):
        read_private_key(PROTECTED, None, "id_ed25519")


def test_reader_lets_the_askers_own_error_through() -> None:
    def interrupted() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_private_key(PROTECTED, interrupted, "id_ed25519")


def test_reader_names_the_remedy_when_the_key_is_of_another_kind() -> None:
    other = generate_ecdsa(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    with pytest.raises(KeyFileError, match=r"expected an Ed25519 key.*ssh-keygen -t ed25519"):
        read_private_key(other, None, "id_ecdsa")


@pytest.mark.parametrize("data", [b"", b"-----BEGIN PRIVATE KEY-----\n", PLAIN + bytes(20_000)])
def test_reader_refuses_other_formats_and_sizes(data: bytes) -> None:
    with pytest.raises(KeyFileError, match="expected an OpenSSH private key"):
        read_private_key(data, None, "file")


def test_reader_raises_only_key_file_error_when_any_byte_is_changed_or_missing() -> None:
    key = read_private_key(PLAIN, None, "file")
    for at in range(len(PLAIN)):
        for new in (b"", b"A", b"\n", b"\xff"):
            try:
                read = read_private_key(PLAIN[:at] + new + PLAIN[at + 1 :], None, "file")
                assert read == key
            except KeyFileError:
                pass


@pytest.mark.parametrize("passphrase", [b"", b"a secret"])
def test_private_file_survives_writing_and_reading(passphrase: bytes) -> None:
    key = SigningKey(b"\7" * 32)
    written = write_private_key(key, passphrase)
    assert read_private_key(written, lambda: passphrase, "file") == key
    in_clear = key.private in base64.b64decode(b"".join(written.split(b"\n")[1:-2]))
    assert in_clear == (passphrase == b"")


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["", "a comment", "ä@host (x)"]))
def test_public_line_survives_writing_and_reading(key: bytes, comment: str) -> None:
    line = write_public_line(key, comment)
    assert read_public_line(line, "file") == (key, comment)
    assert read_public_line(f"  {line}\r\n", "file") == (key, comment)


def test_public_line_is_the_one_of_ssh_keygen() -> None:
    key, comment = read_public_line(PLAIN_LINE, "file")
    assert write_public_line(key, comment) + "\n" == PLAIN_LINE


@pytest.mark.parametrize("comment", ["two\nlines", "\x1b[2J", "a\0b"])
def test_public_line_refuses_control_characters(comment: str) -> None:
    with pytest.raises(KeyFileError, match="control characters"):
        write_public_line(bytes(32), comment)
    with pytest.raises(KeyFileError):
        read_public_line(f"{write_public_line(bytes(32))} {comment}", "file")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        PLAIN_LINE[12:],
        PLAIN_LINE.replace("ssh-ed25519", "ssh-rsa"),
        PLAIN_LINE.replace("9Fq", "9F"),
        PLAIN_LINE.replace("AAAAC3", "AAAAC2"),
        PLAIN_LINE.replace("AAAAI", "AAAAJ"),
        PLAIN_LINE + PLAIN_LINE,
        "# " + PLAIN_LINE,
        PLAIN_LINE + "x" * 5_000,
        PLAIN.decode(),
    ],
)
def test_public_line_is_refused_with_the_expected_form(text: str) -> None:
    with pytest.raises(KeyFileError, match=r"^file: expected one line `ssh-ed25519 AAAA"):
        read_public_line(text, "file")


@given(st.text(max_size=120))
def test_public_line_raises_only_key_file_error_for_any_text(text: str) -> None:
    with pytest.raises(KeyFileError):
        read_public_line(text, "file")
    with pytest.raises(KeyFileError):
        read_public_line(f"ssh-ed25519 {text}", "file")


def test_fingerprint_is_the_one_of_ssh_keygen() -> None:
    key, _ = read_public_line(PLAIN_LINE, "file")
    assert account_fingerprint(key) == PLAIN_FINGERPRINT
