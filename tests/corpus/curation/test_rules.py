import pytest

from maquette.corpus.config import BoilerplateLinesConfig, CurationConfig, LanguageConfig, UrlConfig
from maquette.corpus.curation.classifiers import unsafe_share
from maquette.corpus.curation.extract import check_language, language_of
from maquette.corpus.curation.rules import clean_lines, features, first_broken, rules
from maquette.corpus.curation.urls import BlockList, block_list, normalize_url
from maquette.corpus.document import Document, Rejection
from support.made_archives import PROSE, SENTENCES


def broken(text: str, title: str = "") -> str | None:
    rule = first_broken(features(text, title), rules(CurationConfig()))
    return rule.name if rule else None


def test_ordinary_prose_breaks_no_rule() -> None:
    assert broken(PROSE) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Too short to say much.", "gopher: min_words"),
        ("a b c d " * 30, "gopher: min_word_length"),
        ("Incomprehensibilities-" * 60 + " word" * 0 + " supercalifragilistic" * 60, "gopher: max_word_length"),
        (PROSE + " #a" * 12, "gopher: symbols"),
        ("\n".join(f"- {sentence}" for sentence in SENTENCES), "gopher: bullet_lines"),
        ("\n".join(s.replace(".", "...") if n < 3 else s for n, s in enumerate(SENTENCES)), "gopher: ellipsis_lines"),
        (PROSE + " 1234 5678 9012" * 20, "gopher: alphabetic_words"),
        ("Cats chase small mice around old houses during long winter nights " * 1 + "Dogs " * 50, "gopher: stop_words"),
        ("\n".join([*SENTENCES, *SENTENCES[:4]]), "gopher: duplicate_lines"),
        (PROSE + "".join(f" the garden {word}" for word in sorted(set(PROSE.split()))), "gopher: top_2_gram"),
        (PROSE.replace(".", ","), "c4: min_sentences"),
        (PROSE + " Lorem ipsum dolor.", "c4: placeholder_text"),
        ("\n".join(f"{s}\nshort line {n}\n{n} more" for n, s in enumerate(SENTENCES)), None),
        ("404: page not found. " + PROSE, "page: not found"),
    ],
)
def test_each_rule_finds_what_it_is_for(text: str, rule: str | None) -> None:
    assert broken(text) == rule


def test_features_by_hand() -> None:
    result = features("a bb. a bb.\nccc\n\nccc")
    assert result["words"] == 6
    assert result["word_length"] == pytest.approx((1 + 3 + 1 + 3 + 3 + 3) / 6)
    assert result["duplicate_lines"] == pytest.approx(1 / 3)
    assert result["duplicate_paragraphs"] == 0
    assert result["top_2_gram"] == pytest.approx(2 * 5 / 19)  # "a bb." twice, of "a bb. a bb. ccc ccc"
    assert result["sentences"] == 2
    assert result["punctuated_lines"] == pytest.approx(1 / 3)
    assert features("")["words"] == 0


def test_repeated_n_grams_count_characters_once() -> None:
    run = "one two three four five six"
    result = features(f"{run} x {run}")
    size = len(f"{run} x {run}")
    assert result["duplicate_5_grams"] == pytest.approx((len(run) + 1) / size, abs=1 / size)
    assert result["duplicate_6_grams"] == result["duplicate_5_grams"]
    assert result["duplicate_7_grams"] == 0


def test_a_threshold_of_null_turns_a_rule_off() -> None:
    config = CurationConfig()
    config.gopher.min_words = None
    config.gopher.stop_words = None
    config.c4.min_sentences = None
    assert first_broken(features("Some words, but on a line of more than thirty characters."), rules(config)) is None


def test_lines_about_cookies_and_scripts_go_but_not_text_on_javascript() -> None:
    text = "Please enable JavaScript to go on.\nJavaScript is a language of the web.\nThis site uses cookies."
    assert clean_lines(Document("a", text), CurationConfig()).text == "JavaScript is a language of the web."


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://www.Site.example/a/", "https://site.example/a"),
        ("http://site.example:80/a?utm_source=x&b=1#part", "http://site.example/a?b=1"),
        ("http://site.example/a?b=1&a=2", "http://site.example/a?a=2&b=1"),
        ("http://site.example/a;jsessionid=12", "http://site.example/a"),
        ("http://site.example/index.html", "http://site.example"),
        ("http://site.example/a b", "http://site.example/a%20b"),
    ],
)
def test_equal_addresses_have_one_key(one: str, other: str) -> None:
    assert normalize_url(one) == normalize_url(other) != ""


def test_different_addresses_have_different_keys() -> None:
    keys = [normalize_url(f"http://site.example/{path}") for path in ("a", "b", "a?x=1", "a?x=2", "A", "page?id=7")]
    assert len(set(keys)) == 6
    assert normalize_url("http://[broken") == normalize_url("mailto:a@b.example") == normalize_url("") == ""


def test_block_lists_know_domains_hosts_paths_and_words(tmp_path: object) -> None:
    result = BlockList()
    result.add(
        "[ads]\nbad.example\n=www.half.example\nmixed.example/private\n/forum/\n~casino\n0.0.0.0 hosts.example", "x"
    )
    blocked = ("http://bad.example/", "http://a.bad.example/x", "http://www.half.example/", "http://mixed.example/private/1",
               "http://any.example/forum/1", "http://best-casino7.example/", "http://hosts.example")  # fmt: skip
    free = (
        "http://notbad.example/",
        "http://half.example/",
        "http://mixed.example/public",
        "http://occasion.example/",
        "",
    )
    assert [result.category(url) for url in blocked] == ["ads"] * len(blocked)
    assert [result.category(url) for url in free] == [None] * len(free)


def test_the_shipped_list_and_category_folders_are_read(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path)) / "lists" / "phishing"
    folder.mkdir(parents=True)
    (folder / "domains").write_text("steal.example\n")
    result = block_list(UrlConfig(block_lists=[str(folder.parent)]))
    assert result.category("http://steal.example/login") == "phishing"
    assert result.category("http://lucky-poker.example/") == "gambling"
    assert result.category("http://docs.example/essex/poker-face") is None


def test_language_is_known_with_its_probability() -> None:
    assert language_of(PROSE)[0] == "en"
    name, probability = language_of("Der alte Bahnhof liegt am Rand der Stadt und wird nur noch selten benutzt.")
    assert (name, probability > 0.9) == ("de", True)
    document = check_language(Document("a", PROSE), LanguageConfig())
    assert isinstance(document, Document)
    assert document.meta["language"] == "en"
    german = check_language(Document("b", "Das Rezept verlangt zwei Eier und etwas Mehl."), LanguageConfig())
    assert isinstance(german, Rejection)
    assert german.reason == "language: not in keep"
    assert isinstance(check_language(german.document, LanguageConfig(keep=[])), Document)


def test_unsafe_words_count_from_three_on() -> None:
    assert unsafe_share("a casino and a jackpot") == (0.0, "")
    share, category = unsafe_share("casino, jackpot! roulette and one word")
    assert (share, category) == (0.5, "gambling")


def test_lines_that_a_host_repeats_are_found_and_taken_out() -> None:
    import numpy as np

    from maquette.corpus.curation.corpus_statistics import BoilerplateLines, line_hashes, repeated_lines

    pages = [
        f"Home page\nText of its own {word}.\nPage {n} of 9" for n, word in enumerate(("ant", "bee", "cow", "dog"))
    ]
    hashes = [np.unique(line_hashes(text, "a.example")[1]) for text in pages]
    every = np.concatenate(hashes)
    chosen = repeated_lines(every, np.zeros(every.size, np.int64), np.array([4]), BoilerplateLinesConfig(pages=4))
    lines = BoilerplateLines(chosen)
    assert lines.strip(Document("1", pages[0]), "a.example").text == "Text of its own ant."
    assert lines.strip(Document("1", pages[0]), "b.example").text == pages[0]
    assert (
        repeated_lines(every, np.zeros(every.size, np.int64), np.array([40]), BoilerplateLinesConfig(pages=4)).size == 0
    )
