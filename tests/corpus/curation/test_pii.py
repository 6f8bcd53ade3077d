import pytest

from maquette.corpus.curation.pii import is_card, replace_pii
from maquette.corpus.document import Document


def replaced(text: str) -> str:
    return replace_pii(Document("a", text))[0].text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("write to maria.lopez+x@mail-box.co.uk.", "write to <email>."),
        ("call +49 30 9018 2000 today", "call <phone> today"),
        ("call (212) 555-0147 or 212-555-0147", "call <phone> or <phone>"),
        ("from 93.184.216.34 and 2606:2800:220:1:248:1893:25c8:1946", "from <ip> and <ip>"),
        ("card 4111 1111 1111 1111 expires", "card <card> expires"),
        ("key AKIAIOSFODNN7EXAMPLE here", "key <secret> here"),
        ("token ghp_" + "a1B2" * 9, "token <secret>"),
        ('api_key = "9f8a7b6c5d4e3f2a1b0c"', 'api_key = "<secret>"'),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75\n-----END RSA PRIVATE KEY-----", "<secret>"),
    ],
)
def test_private_data_becomes_a_placeholder(text: str, clean: str) -> None:
    assert replaced(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "write to user@example.com, or @decorator and a@b",
        "see RFC 2606, section 3.2.1.4 and version 8.4.2.1 of it",
        "bind to 127.0.0.1, 192.168.0.1 or 0.0.0.0",
        "card 4111 1111 1111 1112 is none",
        "on 2026-11-25 at 12:30:45, numbers 1234567890123456 and 3.14159265358979",
        "x[1:2] and std::vector and ::1 and a::b::c",
        "password = get_password_from_keyring",
        "https://site.example/a@2.0/file and git@2.1",
        "the array 1 2 3 4 5 6 7 8 9 10 11 12 13 14",
    ],
)
def test_what_only_looks_private_stays(text: str) -> None:
    assert replaced(text) == text


def test_kinds_are_counted() -> None:
    document, counts = replace_pii(Document("a", "a@mail.io b@mail.io 93.184.216.34"))
    assert counts == {"email": 2, "ip": 1}
    assert document.text == "<email> <email> <ip>"


def test_luhn() -> None:
    assert is_card("5500-0000-0000-0004")
    assert not is_card("5500-0000-0000-0005")
    assert not is_card("0000 0000 0000 0000")
