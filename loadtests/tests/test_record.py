from pathlib import Path

import pytest

from loadtests.record import End, Order, Request, Row, Rows, Sample, kept, line, parsed, read

ROWS: list[Row] = [
    Request(1.5, 1.625, 2.0, "buyer", 7, "POST /api/v1/orders", 503, "503", '503 {"type": "x", "detail": "no,\npe"}'),
    Order(2.25, "0198", "confirmed", 1999, 1),
    Sample(3.0, "here-1", 0.5, 0.75, 0.0125, 12, 0),
    End(1, 1),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_a_row_is_one_line_and_is_read_again(row: Row) -> None:
    text = line(row)
    assert "\n" not in text
    found = parsed(text)
    assert found is not None
    assert line(found) == text
    assert type(found) is type(row)


@pytest.mark.parametrize(
    "text", ["", "All users spawned", "request,1.5,1.6", "end,one,2", line(ROWS[0])[:-5], "sample,1,here,x,0,0,1,1"]
)
def test_what_is_no_row_or_half_of_one_is_left_out(text: str) -> None:
    assert parsed(text) is None


def test_rows_are_sorted_by_their_kind_and_other_lines_ignored() -> None:
    rows = read([*(f"{line(row)}\n" for row in ROWS), "[INFO] Shutting down\n"])
    assert (len(rows.requests), len(rows.orders), len(rows.samples), rows.end) == (1, 1, 1, End(1, 1))


def test_requests_are_in_the_file_as_soon_as_they_are_known(tmp_path: Path) -> None:
    path, rows = tmp_path / "requests.csv", Rows()
    with kept(path, rows) as keep:
        for row in ROWS:
            keep(row)
        header, only = path.read_text().splitlines()
    assert header.startswith("due_s,sent_s,ended_s,journey,arrival,call,status,failure")
    assert only.startswith("1.5000,1.6250,2.0000,buyer,7,POST /api/v1/orders,503,503,")
    assert len(rows.samples) == 1


def test_latency_counts_from_when_a_request_was_due() -> None:
    request = Request(1.0, 1.5, 2.0, "visitor", 1, "GET /", 200)
    assert (request.latency_s, request.service_s) == (1.0, 0.5)
