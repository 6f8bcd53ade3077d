"""Addresses: normalised, so that one page has one; and checked against block lists before anything is parsed."""

import functools
import re
from importlib import resources
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import listed
from maquette.corpus.config import UrlConfig

_TRACKING = re.compile(
    r"(utm_\w+|mtm_\w+|pk_\w+|hsa_\w+|_hs\w+|gclid|gclsrc|dclid|fbclid|msclkid|yclid|twclid|igshid|mc_[ce]id|ref_src|"
    r"ref_url|spm|_ga|_gl|sessionid|session_id|phpsessid|jsessionid|aspsessionid\w*)",
    re.IGNORECASE,
)
_PATH_SESSION = re.compile(r";jsessionid=[^/?#]*", re.IGNORECASE)
_INDEX = re.compile(r"/(?:index|default)\.(?:html?|php|aspx?)$", re.IGNORECASE)
_SAFE = "/:@!$&'()*+,;=~-._%"
_PORTS = {"http": 80, "https": 443}


def normalize_url(url: str) -> str:
    """The key by which equal addresses are found: `host/path?query`, without scheme, `www.`, default port, fragment,
    session and tracking parameters, index page and final slash; parameters sorted. Empty where it is no address."""
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return ""
    if not host:
        return ""
    host = host.removeprefix("www.")
    where = host if port is None or port == _PORTS.get(parts.scheme.lower()) else f"{host}:{port}"
    path = _INDEX.sub("/", _PATH_SESSION.sub("", quote(parts.path, safe=_SAFE))).rstrip("/")
    query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not _TRACKING.fullmatch(k)]
    return f"{where}{path}" + (f"?{urlencode(sorted(query))}" if query else "")


def host_of(url: str | None) -> str:
    """The host in lower case; empty where there is none."""
    try:
        return (urlsplit(url or "").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_below(host: str, domain: str) -> bool:
    """Whether a host is a domain or one of its subdomains."""
    return host == domain or host.endswith("." + domain)


class BlockList:
    """Which addresses to leave out, and under which heading.

    A list is a text file. `example.org` blocks a domain and all below it, `=www.example.org` one host,
    `example.org/path/` what begins so, `/forum/` a piece of any path, `~casino` hosts with a label that has this
    word. `[name]` begins a category; `#` a comment. Public category lists (one domain a line, or in hosts-file form
    `0.0.0.0 example.org`) can be read as they are: the folder's or file's name is then the category.
    """

    def __init__(self) -> None:
        self._domains: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._prefixes: dict[str, list[tuple[str, str]]] = {}
        self._paths: list[tuple[str, str]] = []
        self._words: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    def add(self, text: str, category: str) -> None:
        """Adds the rules of a list."""
        for raw in text.splitlines():
            line = raw.partition("#")[0].strip()
            if not line:
                continue
            if line.startswith("[") and line.endswith("]"):
                category = line[1:-1].strip()
                continue
            line = line.split()[-1].lower()
            if line.startswith("~"):
                self._words[line[1:]] = category
            elif line.startswith("="):
                self._hosts[line[1:]] = category
            elif line.startswith("/"):
                self._paths.append((line, category))
            elif "/" in line:
                host, _, path = line.partition("/")
                self._prefixes.setdefault(host, []).append(("/" + path, category))
            elif line not in ("localhost", "0.0.0.0", "127.0.0.1"):
                self._domains[line.removeprefix("*.").removeprefix("www.")] = category
        # A word counts where it is a label, or a part of one between hyphens: `casino` blocks best-casino.example
        self._pattern = re.compile(rf"(?:^|[.-])({'|'.join(map(re.escape, self._words))})(?=[.\-\d]|$)")

    def category(self, url: str) -> str | None:
        """The heading under which an address is blocked, or None."""
        host = host_of(url)
        if not host:
            return None
        if host in self._hosts:
            return self._hosts[host]
        path, labels = urlsplit(url).path.lower(), host.split(".")
        for name in (".".join(labels[first:]) for first in range(len(labels))):
            if name in self._domains:
                return self._domains[name]
            for prefix, category in self._prefixes.get(name, ()):
                if path.startswith(prefix):
                    return category
        if self._words and self._pattern is not None and (match := self._pattern.search(host)):
            return self._words[match[1]]
        return next((category for piece, category in self._paths if piece in f"{path}/"), None)


@functools.lru_cache(maxsize=8)
def _load(files: tuple[str, ...], shipped: bool) -> BlockList:
    archive = BlockList()
    if shipped:
        text = resources.files("maquette.corpus.curation").joinpath("blocked.txt").read_text(encoding="utf-8")
        archive.add(text, "blocked")
    for name in files:
        path = Path(name).expanduser()
        for file in [one for one in listed(path, "**/*") if one.is_file()] if path.is_dir() else [path]:
            try:
                text = file.read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                raise StageError(
                    f"The block list {file} can't be read: {error.strerror}.", "Check curation.url.block_lists."
                ) from None
            archive.add(text, file.parent.name if file.stem in ("domains", "urls") else file.stem)
    return archive


def block_list(config: UrlConfig) -> BlockList:
    """The list that a config describes. Raises `StageError` where a file can't be read."""
    return _load(tuple(config.block_lists), config.shipped_list)
