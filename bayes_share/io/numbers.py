"""Numbers as text."""


def shown_number(value: float | int, form: str) -> str:
    """Format a number for a reader, without a minus sign of 0.

    Args:
        value: the number.
        form: format specification. With "g", numbers from ten thousand to a billion have thousands separators rather
            than an exponent.

    >>> [shown_number(value, ".4g") for value in (2193.4, 95981.2, 3.2e12)], shown_number(-0.001, ".2f")
    (['2193', '95,981', '3.2e+12'], '0.00')
    """
    if form.endswith("g") and 1e4 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:z{form}}"
