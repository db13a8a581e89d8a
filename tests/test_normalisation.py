"""One spelling for the same text."""

from utils.normalisation import normalize

ODD = "the \ufb01nal m\u00b2 of \uff37ater"


def test_text_is_normalised():
    assert (
        normalize(f"{ODD}\u00ad\u200b at\u00a05\u2009°C  \n\n\n\nnext\x0c") == "the final m2 of Water at 5 °C\n\nnext"
    )
