"""Private data replaced by typed placeholders: e-mail addresses, phone numbers, IP addresses, card numbers, secrets.

Wide patterns find candidates, checks weed them: card numbers must pass Luhn's sum, IPv4 addresses must be public and
no version numbers, phone numbers must be written like ones. What is meant to be public (`127.0.0.1`,
`user@example.com`) stays.
"""

import dataclasses
import ipaddress
import math
import re
from collections import Counter

from maquette.corpus.document import Document

KINDS = ("email", "phone", "ip", "card", "secret")

_EMAIL = re.compile(r"(?<![\w.+%/:@-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w@])")
_PUBLIC_MAIL = re.compile(r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|example|test|invalid|localhost)$", re.IGNORECASE)
_IP = re.compile(
    r"(?<![\w.:/-])(?:\d{1,3}\.){3}\d{1,3}(?![\w.-]*[\w-])|(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4}){1,6}(?![\w:.])"
)
_VERSION = re.compile(r"(?:version|release|ver\.?|\bv|section|rev\.?|==|>=|<=|~=)\s*$", re.IGNORECASE)
_CARD = re.compile(r"(?<![\d.,-])(?:\d[ -]?){12,18}\d(?![\d.,-]*\d)")
_PHONE = re.compile(
    r"(?<![\w.+/=-])(?:\+\d{1,3}[ .-]?(?:\(0\)[ ]?)?(?:\(\d{1,4}\)[ .-]?|\d{1,4}[ .-]?)(?:\d{2,4}[ .-]?){1,3}\d{2,4}"
    r"|\(\d{3}\)[ ]?\d{3}[ .-]\d{4}|\d{3}[-.]\d{3}[-.]\d{4})(?![\w.-]*\w)"
)
_SECRET = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{40,}|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|\bAIza[0-9A-Za-z_-]{35}|\bglpat-[A-Za-z0-9_-]{20,}|\bnpm_[A-Za-z0-9]{36}"
    r"|\bhf_[A-Za-z0-9]{30,}|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]{20,8000}?-----END [A-Z ]*PRIVATE KEY-----"
)
_ASSIGNED = re.compile(
    r"""(?i)\b(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?token|auth[_-]?token|password|passwd)["']?\s*[:=]\s*["']?"""
    r"""([A-Za-z0-9_\-+/=]{16,128})(?=["'\s,;]|$)"""
)
_SECRET_MARKS = (
    "AKIA", "ASIA", "AIza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xox", "sk-", "glpat-", "npm_",
    "hf_", "eyJ", "PRIVATE KEY",
)  # fmt: skip
_ASSIGNED_WORDS = ("secret", "api_key", "api-key", "apikey", "token", "passw")

# What a pattern can't match without, found many times faster than the pattern: most pages have none of it.
_MAY_BE_MAIL = re.compile(r"[\w.+%-]@[A-Za-z0-9-]+\.")
_MAY_BE_CARD = re.compile(r"\d[\d -]{11}")
_MAY_BE_PHONE = tuple(map(re.compile, (r"\+\d", r"\(\d\d\d\)", r"\d\d\d[-.]\d\d\d[-.]\d")))
_MAY_BE_IP = tuple(map(re.compile, (r"\d\.\d{1,3}\.\d{1,3}\.\d", r":[0-9a-fA-F]{1,4}:")))


def replace_pii(document: Document) -> tuple[Document, dict[str, int]]:
    """The document with placeholders such as `<email>`, and how many of each kind there are."""
    text, counts = document.text, Counter[str]()

    def put(kind: str) -> str:
        counts[kind] += 1
        return f"<{kind}>"

    if any(mark in text for mark in _SECRET_MARKS):
        text = _SECRET.sub(lambda match: put("secret"), text)
    lowered = text.lower()
    if any(word in lowered for word in _ASSIGNED_WORDS):
        text = _ASSIGNED.sub(
            lambda match: match[0].replace(match[1], put("secret")) if _is_random(match[1]) else match[0], text
        )
    if _MAY_BE_MAIL.search(text):
        text = _EMAIL.sub(lambda match: match[0] if _PUBLIC_MAIL.search(match[0]) else put("email"), text)
    if _MAY_BE_CARD.search(text):
        text = _CARD.sub(lambda match: put("card") if is_card(match[0]) else match[0], text)
    if any(pattern.search(text) for pattern in _MAY_BE_PHONE):
        text = _PHONE.sub(lambda match: put("phone") if _is_phone(match[0]) else match[0], text)
    if any(pattern.search(text) for pattern in _MAY_BE_IP):
        text = _IP.sub(lambda match: put("ip") if _is_ip(match) else match[0], text)
    return (dataclasses.replace(document, text=text) if counts else document), dict(counts)


def is_card(text: str) -> bool:
    """Whether 13 to 19 digits (with spaces or hyphens) begin like a card number and pass Luhn's check sum."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6) or len(set(digits)) < 2:
        return False
    doubled = [2 * d - 9 if 2 * d > 9 else 2 * d for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_phone(text: str) -> bool:
    digits = sum(c.isdigit() for c in text)
    return 8 <= digits <= 15 if text.startswith("+") else digits == 10


def _is_ip(match: re.Match[str]) -> bool:
    text = match[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.version == 4 and _VERSION.search(match.string[max(0, match.start() - 12) : match.start()]):
        return False
    if address.version == 6 and len(text) < 12:
        return False  # a time or a slice more likely than an address
    return address.is_global and not (address.version == 4 and (text.endswith(".0.0") or int(text.split(".")[0]) < 5))


def _is_random(text: str) -> bool:
    """Whether a value looks drawn at random: letters and digits, no words, many different characters."""
    if not (any(c.isdigit() for c in text) and any(c.isalpha() for c in text)):
        return False
    counts = Counter(text)
    entropy = -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
    return entropy > 3.3
