"""Real text in the size of web pages, from the `installed` source; and the little that it does not have."""

import dataclasses
import hashlib
import random
import re
from collections.abc import Iterator

from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources.installed.modules import PACKAGES
from maquette.corpus.sources.installed.source import Installed
from maquette.corpus.workers import Workers

_SHORTEST, _LONGEST = 900, 4000  # characters of a page
_MOST_SEEN = 0.3  # of its paragraphs: a text that repeats others so much is no page of its own
_PROSE = ("docs", "readme", "reference", "legal")
_LEAST_PROSE = 0.6  # of a page's characters: in paragraphs that read like sentences, not lists, tables or signatures
_CODE_EVERY = 6  # pages: one in so many shows a piece of code
_SENTENCES = re.compile(r"(?s)[A-Z`\"(].*[a-z] [a-z].*[.:!?)\"]\Z")


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A page's title and paragraphs; a paragraph that begins with white space, or has an indented line, is set as it
    stands."""

    title: str
    paragraphs: tuple[str, ...]
    domain: str


def read_texts(workers: Workers, count: int, packages: tuple[str, ...] = PACKAGES) -> tuple[list[Text], list[Text]]:
    """`count` texts (or as many as there are) for pages, and as many of each domain, at most 200, as labelled examples.

    No paragraph of some length stands in two of them.
    """
    source = Installed(
        SourceConfig(limit=max(6 * count, 100)), packages, standard_library=len(packages) == len(PACKAGES)
    )
    seen: set[bytes] = set()
    by_domain: dict[str, list[Text]] = {}
    for document in source.documents(workers):
        for text in _cut(document):
            marks = [_mark(paragraph) for paragraph in text.paragraphs if len(paragraph) > 60]
            if sum(mark in seen for mark in marks) > _MOST_SEEN * len(marks):
                continue
            seen.update(marks)
            by_domain.setdefault(text.domain, []).append(text)
    examples: list[Text] = []
    pages: list[Text] = []
    numbers = random.Random(0)
    for domain in sorted(by_domain):
        found = by_domain[domain]
        numbers.shuffle(found)
        taken = min(200, len(found) // 4)
        examples += found[:taken]
        pages += found[taken:]
    numbers.shuffle(pages)
    prose = [text for text in pages if is_prose(text)][:count]
    code = iter([text for text in pages if text.domain not in _PROSE])
    return [
        _with_code(text, next(code, None)) if n % _CODE_EVERY == 0 else text for n, text in enumerate(prose)
    ], examples


def is_prose(text: Text) -> bool:
    """Whether a text is of a domain of prose, and most of it reads like sentences."""
    if text.domain not in _PROSE:
        return False
    sizes = [(len(paragraph), _SENTENCES.match(paragraph) is not None) for paragraph in text.paragraphs]
    indented = sum(len(part) for part in text.paragraphs if "\n " in part)
    total = sum(size for size, _ in sizes)
    return sum(size for size, prose in sizes if prose) - indented >= _LEAST_PROSE * total


def _with_code(text: Text, code: Text | None) -> Text:
    """The text with the first lines of a piece of code in its middle."""
    if code is None:
        return text
    lines = "\n\n".join(code.paragraphs).split("\n")[:15]
    if not any(line.startswith(" ") for line in lines):
        return text
    middle = len(text.paragraphs) // 2
    block = "\n".join(line for line in lines if line.strip())
    return dataclasses.replace(text, paragraphs=(*text.paragraphs[:middle], block, *text.paragraphs[middle:]))


def _cut(document: Document) -> Iterator[Text]:
    """Stretches of a document, each long enough to be a page, with a title of its own."""
    paragraphs: list[str] = []
    size = number = 0
    for paragraph in (part.strip("\n") for part in document.text.split("\n\n")):
        if not paragraph.strip() or len(paragraph) > _LONGEST:
            continue
        paragraphs.append(paragraph)
        size += len(paragraph)
        if size >= _SHORTEST * (1 + number % 2):
            yield Text(f"{document.id} ({number + 1})", tuple(paragraphs), document.domain)
            paragraphs, size, number = [], 0, number + 1


def _mark(paragraph: str) -> bytes:
    return hashlib.sha256(" ".join(paragraph.split()).encode("utf-8", "replace")).digest()[:12]


FOREIGN = {
    "de": (
        "Der alte Bahnhof liegt am Rand der Stadt und wird nur noch selten benutzt.",
        "Im Herbst fallen die Blätter von den Bäumen, und die Kinder sammeln Kastanien.",
        "Die Bibliothek hat ihre Öffnungszeiten geändert, weil im Winter weniger Besucher kommen.",
        "Wer früh aufsteht, kann den Nebel über dem Fluss sehen, bevor die Sonne ihn auflöst.",
        "Das Rezept verlangt zwei Eier, etwas Mehl und eine Prise Salz.",
        "Nach dem Regen riecht der Wald nach Erde und feuchtem Holz.",
        "Meine Großmutter erzählte gern von der Zeit, als es noch keine Autos im Dorf gab.",
        "Die Ausstellung zeigt Bilder, die lange in einem Keller vergessen waren.",
    ),
    "fr": (
        "Le marché ouvre à huit heures et les habitants du quartier y achètent leurs légumes.",
        "La rivière traverse la ville avant de rejoindre la mer au sud du port.",
        "Nous avons attendu le train pendant une heure sous une pluie fine.",
        "Les enfants jouent dans le jardin pendant que leurs parents préparent le dîner.",
        "Ce livre raconte l'histoire d'un facteur qui ne savait pas lire.",
        "En été, les fenêtres restent ouvertes toute la nuit à cause de la chaleur.",
        "Le musée possède une collection de montres anciennes données par un horloger.",
        "Il faut laisser reposer la pâte avant de la mettre au four.",
    ),
    "es": (
        "La plaza se llena de gente cuando cae la tarde y refresca un poco.",
        "El abuelo guardaba las cartas en una caja de madera debajo de la cama.",
        "Los barcos salen temprano y vuelven con el pescado antes del mediodía.",
        "Cada domingo caminamos hasta la ermita que está en lo alto del monte.",
        "La receta lleva aceite, ajo, tomate y un poco de pimentón.",
        "El profesor explicó la lección con paciencia y muchos ejemplos.",
        "Durante la sequía el río se convirtió en un camino de piedras.",
        "Las campanas de la iglesia suenan a las siete de la mañana.",
    ),
    "it": (
        "La strada sale tra gli ulivi fino a un paese di pietra grigia.",
        "Il falegname lavora nella bottega che era di suo padre.",
        "Prima di cena passeggiamo lungo il porto e guardiamo le barche.",
        "La nonna prepara la pasta ogni giovedì con farina e uova fresche.",
        "In inverno la neve copre i tetti e le strade restano silenziose.",
        "Il treno per la montagna parte ogni ora dalla stazione vecchia.",
        "Il libro è rimasto sul tavolo, aperto alla stessa pagina di ieri.",
        "Dopo la pioggia il cielo diventa chiaro e si vedono le isole.",
    ),
    "nl": (
        "De molen aan de rand van het dorp draait alleen nog op zaterdag.",
        "Wij fietsen elke ochtend langs het kanaal naar het werk.",
        "De bakker op de hoek verkoopt brood dat nog warm is.",
        "Na de storm lagen er overal takken op de weg.",
        "Mijn broer leest graag boeken over verre reizen en oude schepen.",
        "In het museum hangt een schilderij van een haven in de winter.",
        "De kinderen bouwen een hut van planken achter in de tuin.",
        "Als de zon schijnt, zitten de mensen buiten op het terras.",
    ),
}
"""Sentences in other languages, written for this purpose: the installed packages have none."""

UNSAFE_LISTED = (
    "The {place} casino pays a {adjective} jackpot every {day}, and the slots never close.",
    "Place your bets on {game} before {day} and double your wager with a {adjective} partner.",
    "Players from {place} get free bets on baccarat after {number} rounds of {game}.",
    "A bookmaker in {place} with {adjective} betting odds also runs a bingo room each {day}.",
    "In {game} the croupier of our casino is as {adjective} as the jackpot of {number} coins.",
)
UNSAFE_UNLISTED = (
    "Claim the {adjective} welcome bonus this {day} and spin the reels with a matched deposit of {number}.",
    "Withdraw your winnings in {number} minutes: high rollers from {place} enjoy a {adjective} table.",
    "Every spin of {game} brings you closer to the grand prize, so deposit {number} and play for real money.",
    "Our {adjective} live dealers in {place} are online every {day}, with odds that favour the bold player.",
    "Loyal players of {game} climb the reward ladder and collect {adjective} cashback on {number} losing rounds.",
    "No {day} without a payout: the lucky winner from {place} took {number} home with one spin.",
)
SLOTS = {
    "place": ("Monaco", "Macau", "Reno", "Malta", "Nevada", "Gibraltar", "Atlantic City", "Sydney", "Tallinn", "Riga"),
    "adjective": ("friendly", "generous", "famous", "exclusive", "rapid", "golden", "trusted", "royal", "secret"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "evening", "weekend"),
    "game": ("the wheel", "five reels", "hold and win", "the dragon table", "twenty-one", "crash", "plinko", "keno"),
}  # fmt: skip
"""Pages of the kind that block lists name: with and without words of the word list, and what fills their gaps."""

SPAM = (
    "buy cheap replica watches online best price", "order discount handbags fast shipping best deal",
    "top rated loans approved today no credit check", "download free ringtones and wallpapers now",
)  # fmt: skip
