"""Documents in the rows of CSV and TSV files."""

import pytest

from utils.documents.reading import read_documents


def rows(tmp_path, data, name="a.csv"):
    """Return (id, title, text, metadata) of each document of a table."""
    file = tmp_path / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return [(d.id, d.title, d.text, d.metadata) for d in read_documents(file).documents]


@pytest.mark.parametrize(("delimiter", "name"), [(",", "a.csv"), (";", "a.csv"), ("\t", "a.csv"), ("\t", "a.tsv")])
def test_a_row_is_a_document_with_further_columns_as_metadata(tmp_path, delimiter, name):
    table = [
        ["id", "title", "content", "language"],
        ["7", "Oil", '"Check it, weekly; never\nwhen ""hot"""', "en"],
        ["", "", "Second", ""],
    ]
    data = "\r\n".join(delimiter.join(row) for row in table) + f"\r\n{delimiter * 3}\r\n\r\n"
    assert rows(tmp_path, data, name) == [
        ("7", "Oil", 'Check it, weekly; never\nwhen "hot"', {"language": "en"}),
        (f"{name}#2", "", "Second", {}),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_excel_encodings_and_header_cases_are_read(tmp_path, encoding):
    text = "Der Käse ist für die Mäuse, die Größe kostet 5 €."
    assert rows(tmp_path, f"Text;Überschrift\n{text};für alle\n".encode(encoding)) == [
        ("a.csv#1", "", text, {"Überschrift": "für alle"})
    ]


def test_quotes_in_a_table_with_tabs_may_be_inches(tmp_path):
    assert [row[2] for row in rows(tmp_path, 'text\tn\n" is the sign of an inch\t1\na 5" pipe\t2\n', "a.tsv")] == [
        '" is the sign of an inch',
        'a 5" pipe',
    ]


def test_a_long_field_is_read_and_an_empty_text_counts(tmp_path):
    found = rows(tmp_path, f"id,text\n1,{'word ' * 100_000}\n2,\n")
    assert len(found[0][2]) == 499_999 and found[1][:3] == ("2", "", "")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("question,answer\nHow?,So.\n", "a column must be named 'content' or 'text'; its columns are 'question', "),
        ("", "a column must be named 'content' or 'text'; its columns are none"),
        ("text\n", "holds no documents"),
        ("id,text\n2,yes, and no\n", "line 2: 3 fields for 2 columns; put texts in quotes"),
        ("id,text,Text\n1,a,b\n", "2 columns are named 'text'; rename all but one"),
        (b"id,text\n1,\0\n", "binary, not text"),
    ],
)
def test_a_broken_table_is_refused_with_the_place(tmp_path, data, message):
    with pytest.raises(ValueError, match=rf"a\.csv: {message}"):
        rows(tmp_path, data)


@pytest.mark.parametrize(
    ("broken", "report"),
    [
        ("2,yes, and no", "1 of 5 records, such as line 4: 3 fields for 2 columns; put texts in quotes"),
        ('2,"yes" and no', "1 of 5 records, such as line 4: ',' expected after '\"'"),
        (
            '2,"one\nor" two',
            "1 of 5 records, such as line 4: ',' expected after '\"'; the 2 lines up to line 5 are left out",
        ),
        ("2", "1 of 5 records, such as line 4: a document needs a field 'content' or 'text' that holds a string"),
    ],
)
def test_one_broken_row_costs_no_other(tmp_path, broken, report):
    file = tmp_path / "a.csv"
    file.write_text(f'id,text\n0,"a\nb"\n{broken}\n3,fine\n,"""good"""\n5,"fine"\n')
    documents, skipped = read_documents(file)
    assert [(d.id, d.text) for d in documents] == [("0", "a\nb"), ("3", "fine"), ("a.csv#4", '"good"'), ("5", "fine")]
    assert skipped == [f"{file}: {report}"]


def test_lines_after_a_quote_that_is_never_closed_are_left_out_and_said_to_be(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('id,text\n1,fine\n2,a,b\n3,"never closed\n4,fine\n5,fine\n')
    documents, skipped = read_documents(file)
    assert [d.id for d in documents] == ["1"]
    assert skipped == [
        f"{file}: 2 of 3 records, such as line 3: 3 fields for 2 columns; put texts in quotes, and "
        "line 4: a quote that is never closed; the 3 lines up to line 6 are left out"
    ]


def test_a_column_without_a_name_is_no_id(tmp_path):
    assert rows(tmp_path, ",text,author\n0,one,A\n") == [("a.csv#1", "", "one", {"": "0", "author": "A"})]


def test_empty_fields_beyond_the_columns_are_none(tmp_path):
    assert rows(tmp_path, "id,text\n1,one,,\n") == [("1", "", "one", {})]


def test_tables_in_a_folder_are_read_or_reported(docs):
    (docs / "faq.csv").write_text("Text\nThe horn is on the left\n")
    (docs / "figures.csv").write_text("x,y\n1,2\n")
    (docs / "spaced.csv").write_text('id,"text" ,title\n1,one,two\n')
    (docs / "torn.csv").write_text('text,"title\none,two\n')
    documents, skipped = read_documents(docs)
    assert "faq.csv#1" in {document.id for document in documents} and len(documents) == 8
    assert "figures.csv: a column must be named" in skipped[0] and "'x', 'y'" in skipped[0]
    assert skipped[1:] == [
        f"{docs / 'spaced.csv'}: line 1: ',' expected after '\"'",
        f"{docs / 'torn.csv'}: line 1: a quote that is never closed",
    ]
