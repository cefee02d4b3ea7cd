"""Addresses of nodes: what is read, what is refused, and the way back to text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpyne_proto.address import Address, key_from_text, key_to_text
from alpyne_proto.errors import AddressError

KEY = bytes(range(32))
TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

hosts = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)
routes = st.lists(st.tuples(hosts, st.integers(1, 65_535)), min_size=1, max_size=8).map(tuple)


@given(routes, st.binary(min_size=32, max_size=32))
def test_address_survives_its_text(routes: tuple[tuple[str, int], ...], key: bytes) -> None:
    address = Address(routes, key)
    assert Address.parse(str(address)) == address
    assert Address.parse(f" {address}\n") == address


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("localhost:1", (("localhost", 1),)),
        (
            "10.0.0.7:7301,node_1.example.org:65535",
            (("10.0.0.7", 7301), ("node_1.example.org", 65535)),
        ),
        ("[::1]:7301", (("::1", 7301),)),
        ("[fe80::1%eth0]:7301", (("fe80::1%eth0", 7301),)),
    ],
)
def test_address_holds_each_route(route: str, expected: tuple[tuple[str, int], ...]) -> None:
    assert Address.parse(f"alpyne://{route}#{TEXT}") == Address(expected, KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host:1",
        f"host:1#{TEXT}",
        f"http://host:1#{TEXT}",
        f"ALPYNE://host:1#{TEXT}",
        "alpyne://host:1",
        f"alpyne://#{TEXT}",
        f"alpyne://host#{TEXT}",
        f"alpyne://host:#{TEXT}",
        f"alpyne://:1#{TEXT}",
        f"alpyne://host:1,#{TEXT}",
        f"alpyne://host:1/#{TEXT}",
        f"alpyne://::1:1#{TEXT}",
        f"alpyne://[host]:1#{TEXT}",
        f"alpyne://host:123456#{TEXT}",
        f"alpyne://host:1٣#{TEXT}",
        "alpyne://" + ",".join(["host:1"] * 9) + f"#{TEXT}",
        "alpyne://" + "h" * 1_024 + f":1#{TEXT}",
    ],
)
def test_address_is_refused_with_the_expected_form(text: str) -> None:
    with pytest.raises(AddressError, match="expected alpyne://host:port#key"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"alpyne://host:0#{TEXT}", "port: expected 1 to 65535, got 0"),
        (f"alpyne://host:65536#{TEXT}", "port: expected 1 to 65535, got 65536"),
        (f"alpyne://h ost:1#{TEXT}", "host: expected a name"),
        (f"alpyne://-host:1#{TEXT}", "host: expected a name"),
        (f"alpyne://user@host:1#{TEXT}", "host: expected a name"),
        (f"alpyne://höst:1#{TEXT}", "host: expected a name of ASCII"),
        (f"alpyne://[::g]:1#{TEXT}", "host: expected an IPv6 address"),
        (f"alpyne://[fe80::1%]:1#{TEXT}", "host: expected an"),
        (f"alpyne://[fe80::1%a,b]:1#{TEXT}", "expected alpyne|host: expected an"),
        (f"alpyne://host:1#{TEXT[:-1]}", "node key: expected 43 characters"),
        ("alpyne://host:1#", "node key: expected 43 characters"),
    ],
)
def test_address_names_the_part_that_is_wrong(text: str, message: str) -> None:
    with pytest.raises(AddressError, match=message):
        Address.parse(text)


@pytest.mark.parametrize(
    ("routes", "key"),
    [
        ((), KEY),
        ((("host", 1),), KEY[:-1]),
        ((("host", 0),), KEY),
        ((("ho,st", 1),), KEY),
        ((("", 1),), KEY),
        ((("host", 1),) * 9, KEY),
        ((("h" * 250, 1),) * 5, KEY),
    ],
)
def test_address_cannot_be_made_that_its_text_would_not_give_back(
    routes: tuple[tuple[str, int], ...], key: bytes
) -> None:
    with pytest.raises(AddressError):
        Address(routes, key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT + "A",
        TEXT + "=",
        TEXT[:-1] + "=",
        TEXT[:-2] + "==",
        TEXT[:-1] + "9",  # the same 32 bytes, with a spare bit set
        "+" + TEXT[1:],
        "/" + TEXT[1:],
        "é" + TEXT[1:],
        " " + TEXT[1:],
    ],
)
def test_key_has_one_text_only(text: str) -> None:
    assert key_from_text(TEXT) == KEY
    assert key_to_text(KEY) == TEXT
    with pytest.raises(AddressError, match="copy the whole address"):
        key_from_text(text)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_key_text_is_refused_for_other_sizes(size: int) -> None:
    with pytest.raises(AddressError):
        key_to_text(bytes(size))


@given(st.text(max_size=150))
def test_parser_raises_only_address_error_for_any_text(text: str) -> None:
    for whole in (text, f"alpyne://{text}", f"alpyne://{text}#{TEXT}", f"alpyne://host:1#{text}"):
        try:
            address = Address.parse(whole)
        except AddressError:
            continue
        assert Address.parse(str(address)) == address
