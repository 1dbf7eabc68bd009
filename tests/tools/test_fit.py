"""The polynomials of the kernels have the coefficients that tools/maintain/fit.py derives, and the errors promised."""

import re
from pathlib import Path

import mpmath
import pytest

from tools.maintain.fit import CONSTANTS, FITS, minimax

PACKAGE = Path(__file__).parents[2] / 'focal_plugin'
NUMBER = re.compile(r'(-\s?)?(\d+\.\d*(?:e[-+]?\d+)?)')
SOURCES = {'triton': '*.py', 'native': '*.h', 'cuda': '*.h'}
SLACK = 1.02  # of a minimax, whose last digits depend on how far the exchange went


def numbers(path: Path) -> list[str]:
    """The decimal numbers of a source in their order, those of its comments left out."""
    text = re.sub(r'//.*|#.*', '', path.read_text())
    return [sign.strip() + digits for sign, digits in NUMBER.findall(text)]


def is_near(written: str, derived: str) -> bool:
    return abs(mpmath.mpf(written) - mpmath.mpf(derived)) <= 1e-5 * abs(mpmath.mpf(derived))


def is_rounded(written: str, exact) -> bool:
    """Whether a number is an exact one, as far as its digits go."""
    mantissa, _, exponent = written.partition('e')
    unit = mpmath.mpf(10) ** (int(exponent or 0) - len(mantissa.partition('.')[2]))
    return abs(mpmath.mpf(written) - exact) <= unit / 2


def committed(kernels: str, derived: list[str]) -> list[list[str]]:
    """The coefficients in the sources that are about the derived ones, from either end of the polynomial."""
    count, found = len(derived), []
    for path in sorted((PACKAGE / 'kernels' / kernels).glob(SOURCES[kernels])):
        written = numbers(path)
        for start in range(len(written) - count + 1):
            run = written[start : start + count]
            found += [order for order in (run, run[::-1]) if all(map(is_near, order, derived))]
    return found


@pytest.mark.parametrize(
    ('fit', 'kernels'),
    [pytest.param(fit, kernels, id=f'{fit.of}, {kernels}') for fit in FITS for kernels in fit.kernels],
)
def test_the_coefficients_are_those_derived_and_their_error_is_as_promised(fit, kernels):
    derived = fit.derive()
    found = committed(kernels, derived)
    assert found
    for coefficients in found:
        if fit.method is not minimax:
            assert all(map(is_rounded, coefficients, map(mpmath.mpf, derived))), coefficients
        assert fit.error(coefficients) <= SLACK * fit.error(derived)
        assert fit.error(coefficients) <= fit.promised


def test_every_other_long_number_of_the_kernels_is_a_known_constant():
    fitted = {
        number for fit in FITS for kernels in fit.kernels for run in committed(kernels, fit.derive()) for number in run
    }
    for path in [*PACKAGE.glob('kernels/*/*'), *PACKAGE.glob('math/*.h')]:
        if path.suffix in ('.py', '.h', '.cpp', '.cu'):
            for number in set(numbers(path)) - fitted:
                digits = number.partition('e')[0].replace('.', '').lstrip('-0')
                known = any(is_rounded(number.lstrip('-'), constant) for constant in CONSTANTS.values())
                assert len(digits) < 6 or known, f'{number} in {path.name}'
