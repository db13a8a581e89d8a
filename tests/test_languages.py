"""Languages by name and code, and which one texts are in."""

import pytest

from utils.languages import base_language, detect_language, language_name, parse_language

SENTENCES = {
    "en": "The pump must be bled after each change of the filter, and the pressure has to be checked.",
    "de": "Die Pumpe muss nach jedem Wechsel des Filters entlüftet werden, und der Druck ist zu prüfen.",
    "ru": "Фильтр необходимо менять каждый год, затем проверять давление масла.",
    "ja": "フィルターを交換するたびにポンプの空気を抜き、圧力を確認してください。",
    "th": "ต้องไล่อากาศออกจากปั๊มทุกครั้งหลังเปลี่ยนไส้กรองและตรวจสอบแรงดัน",
    "km": "ត្រូវបញ្ចេញខ្យល់ពីស្នប់បន្ទាប់ពីការផ្លាស់ប្តូរតម្រងនីមួយៗ",
}


@pytest.mark.parametrize(
    ("text", "code"),
    [("de", "de"), ("German", "de"), ("german", "de"), ("DEU", "de"), ("EN", "en"), ("Khmer", "km"), ("quc", "quc")],
)
def test_a_language_is_given_by_code_or_name(text, code):
    assert parse_language(text) == code


@pytest.mark.parametrize(
    ("text", "tag", "name"),
    [
        ("de-AT", "de-AT", "German (Austria)"),
        ("zh-Hant", "zh-Hant", "Chinese (Traditional)"),
        ("Simplified Chinese", "zh-Hans", "Chinese (Simplified)"),
        ("Chinese (Simplified)", "zh-Hans", "Chinese (Simplified)"),
        ("Brazilian Portuguese", "pt-BR", "Portuguese (Brazil)"),
    ],
)
def test_a_variant_is_kept_in_tag_and_name_and_left_out_of_the_language(text, tag, name):
    assert parse_language(text) == parse_language(tag) == tag and language_name(tag) == name
    assert base_language(tag) == tag[:2]


NOT_ONE = ["mul", "mis", "zxx", "multiple languages", "qaa", "qtz-Latn", "private use", "x-own", "und-Latn"]


@pytest.mark.parametrize("text", ["moonish", "xx", "und", "de de", "-", "a", "e", "a1", *NOT_ONE])
def test_an_unknown_language_is_named(text):
    with pytest.raises(ValueError, match=f"unknown language '{text}': use a code or an English name"):
        parse_language(text)


def test_a_code_has_a_name():
    assert [language_name(code) for code in ("de", "nb", "km")] == ["German", "Norwegian Bokmål", "Khmer"]


@pytest.mark.parametrize("code", SENTENCES)
def test_the_language_of_texts_is_found(code):
    assert detect_language([SENTENCES[code]] * 3) == code


def test_the_language_of_most_texts_counts():
    english, german = [SENTENCES["en"] * 10], [SENTENCES["de"] * 10]
    assert detect_language(english * 7 + german * 3) == "en"
    assert detect_language(english * 3 + german * 7) == "de"
    assert detect_language(english * 5000 + german * 4000) == "en"
    assert detect_language([SENTENCES[code] * 10 for code in ("en", "de", "ru")]) is None


def test_short_texts_tell_their_language_together():
    titles = [" ".join(words) for words in zip(*[iter(SENTENCES["de"].split())] * 2)]
    assert detect_language(titles) == "de"


@pytest.mark.parametrize("texts", [[], ["", " "], ["12 345", "6.7"], ["ok"]])
def test_too_little_text_has_no_language(texts):
    assert detect_language(texts) is None


def test_code_does_not_count():
    code = "0x7ffe 0x1c00 [] {}; 4.5e-3 == 17 && 1; 0b1101 <= 99\n" * 9
    assert detect_language([code] * 6 + [SENTENCES["de"] * 4] * 2) == "de"
