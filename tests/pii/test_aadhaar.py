"""Finding Aadhaar numbers in text, and Verhoeff's check digit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercore.pii import aadhaar

# Not anybody's: the check digit was computed for these eleven digits.
NUMBER = "234123412346"


def with_check_digit(digits: str) -> str:
    return next(digits + last for last in "0123456789" if aadhaar.has_check_digit(digits + last))


numbers = st.from_regex(r"[2-9][0-9]{10}", fullmatch=True).map(with_check_digit)
digits = st.text("0123456789", min_size=1, max_size=20)


@pytest.mark.parametrize("digits", ["2363", "123451", "1428570", "84736430954837284567892"])
def test_published_check_digits(digits: str):
    """The examples that descriptions of the algorithm share: 236 gives 3, 12345 gives 1, 142857 gives 0."""
    assert aadhaar.has_check_digit(digits)


@given(digits)
def test_exactly_one_check_digit(digits: str):
    assert sum(aadhaar.has_check_digit(digits + last) for last in "0123456789") == 1


@given(digits, st.data())
def test_every_single_error_and_neighbouring_swap_is_found(digits: str, data: st.DataObject):
    good = with_check_digit(digits)
    place = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != good[place]]))
    assert not aadhaar.has_check_digit(good[:place] + other + good[place + 1 :])
    place = min(place, len(good) - 2)
    swapped = good[:place] + good[place + 1] + good[place] + good[place + 2 :]
    assert swapped == good or not aadhaar.has_check_digit(swapped)


@pytest.mark.parametrize(
    "text",
    [
        NUMBER,
        "2341 2341 2346",
        "2341-2341-2346",
        "2341 - 2341 - 2346",
        "2341\u20132341\u20132346",
        "2341\u00a02341\u00a02346",
        "2341\n2341\n2346",
        "2 3 4 1 2 3 4 1 2 3 4 6",
        "Aadhaar:234123412346.",
        "aadhaar234123412346x",
        "Flat 5 2341 2341 2346",
        "born 1990 2341 2341 2346 in Pune",
        "२३४१ २३४१ २३४६",
        "２３４１２３４１２３４６",
        "234123412347 and 234123412346",
    ],
)
def test_a_number_is_found_however_it_is_written(text: str):
    assert aadhaar.contains(text)
    assert not aadhaar.contains(aadhaar.mask(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "234123412347",
        "23412341234",
        "2341234123460",
        "1234123412346",
        "134123412342",
        "034123412348",
        "2341.2341.2346",
        "2341 2341     2346",
        "2341 2341 234six",
        "+91 98765 43210",
        "560001",
        "²³⁴¹²³⁴¹²³⁴⁶",
    ],
)
def test_other_digits_are_left_alone(text: str):
    assert not aadhaar.contains(text)
    assert aadhaar.mask(text) == text


@given(numbers, st.text(st.characters(exclude_categories=["Nd"]), max_size=20))
def test_masking_leaves_the_last_four_and_everything_around(number: str, around: str):
    text = f"{around}x{number[:4]} {number[4:8]}-{number[8:]}x{around}"
    assert aadhaar.mask(text) == f"{around}xXXXX XXXX-{number[8:]}x{around}"


@given(numbers, numbers)
def test_two_numbers_are_both_masked(one: str, two: str):
    assert aadhaar.mask(f"{one}, {two}") == f"XXXXXXXX{one[8:]}, XXXXXXXX{two[8:]}"


@given(st.text(max_size=60))
def test_any_text_is_masked_without_an_error(text: str):
    assert len(aadhaar.mask(text)) == len(text)


def test_a_uuid_is_no_number_but_one_beside_it_is() -> None:
    own = "01a214e1-4097-7245-9090-405a352a0f0b"
    assert aadhaar.contains("4097-7245-9090")
    assert (
        aadhaar.mask(f"{own} 4097-7245-9090 {own}x") == f"{own} XXXX-XXXX-9090 {own.replace('4097-7245', 'XXXX-XXXX')}x"
    )
