"""Derives the polynomials of the kernels and prints them as the sources write them: python -m tools.maintain.fit

Each stands for a quotient that is finite at 0, so that the product with what it was divided by keeps its digits near 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mpmath
from mpmath import mp, mpf

mp.dps = 30


def chebyshev(function: Callable, low: mpf, high: mpf, terms: int) -> list[str]:
    """The polynomial through a function's values at the zeros of a Chebyshev polynomial."""
    return [mpmath.nstr(c, 12) for c in mpmath.chebyfit(function, [low, high], terms)]


def minimax(function: Callable, weight: Callable, low: mpf, high: mpf, terms: int) -> list[str]:
    """The polynomial whose largest weighted error is least, by Remez's exchange, its coefficients rounded to float32."""
    grid = [(low + high) / 2 - (high - low) / 2 * mpmath.cospi(mpf(k) / 400) for k in range(401)]
    points = grid[:: 400 // terms]  # near the extremes of the Chebyshev polynomial
    for _ in range(6):
        rows = [[weight(x) * x**k for k in reversed(range(terms))] + [(-1) ** i] for i, x in enumerate(points)]
        *fit, _ = mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix([weight(x) * function(x) for x in points]))
        points = _extremes(grid, [weight(x) * (mpmath.polyval(fit, x) - function(x)) for x in grid])
    with mpmath.workprec(24):
        return [mpmath.nstr(+c, 9) for c in fit]


def _extremes(grid: Sequence[mpf], errors: Sequence[mpf]) -> list[mpf]:
    """Where the error is largest between two changes of its sign."""
    runs = [[0]]
    for k in range(1, len(grid)):
        if errors[k] * errors[k - 1] < 0:
            runs.append([])
        runs[-1].append(k)
    return [grid[max(run, key=lambda k: abs(errors[k]))] for run in runs]


def _log1p_over(e: mpf) -> mpf:
    return mpmath.log1p(e) / e if e else mpf(1)


def _expm1_over(r: mpf) -> mpf:
    return mpmath.expm1(r) / r if r else mpf(1)


def _rest_of_log_over(f: mpf) -> mpf:
    return (mpmath.log1p(f) - f + f**2 / 2) / f**3 if f else mpf(1) / 3


def _minus_log1m_over(s: mpf) -> mpf:
    return -mpmath.log1p(-s) / s if s else mpf(1)


@dataclass(frozen=True)
class Fit:
    """A polynomial of the kernels.

    Attributes:
        of: the function that it stands for, as a sentence names it.
        function: the same in mpmath.
        low, high: the interval.
        promised: the largest error, as the sources state it; where they state none, half a unit of float32.
        kernels: which have it.
        derive: makes the coefficients, that of the highest power first.
        scale: what the error is multiplied by; by default it is relative to the function.
        is_reproduced: the kernels have these coefficients to the last digit; the last digits of a minimax depend on how far
            the exchange went.
    """

    of: str
    function: Callable[[mpf], mpf]
    low: mpf
    high: mpf
    promised: float
    kernels: tuple[str, ...]
    derive: Callable[['Fit'], list[str]]
    scale: Callable[[mpf], mpf] | None = None
    is_reproduced: bool = True

    def weight(self, x: mpf) -> mpf:
        return self.scale(x) if self.scale else 1 / self.function(x)

    def error(self, coefficients: Sequence[str]) -> float:
        """The largest error of a polynomial with these coefficients."""
        points = [self.low + (self.high - self.low) * k / 500 for k in range(501)]
        exact = [*map(mpf, coefficients)]
        return float(max(abs(self.weight(x) * (mpmath.polyval(exact, x) - self.function(x))) for x in points))


def _chebyshev(terms: int) -> Callable[[Fit], list[str]]:
    return lambda fit: chebyshev(fit.function, fit.low, fit.high, terms)


def _minimax(terms: int) -> Callable[[Fit], list[str]]:
    return lambda fit: minimax(fit.function, fit.weight, fit.low, fit.high, terms)


def _taylor(terms: int) -> Callable[[Fit], list[str]]:
    return lambda fit: [mpmath.nstr(c, 12) for c in reversed(mpmath.taylor(fit.function, 0, terms - 1))]


BOTH = ('triton', 'native')
ROUNDING = 2.0**-24
HALF_LN2 = mpmath.log(2) / 2
FITS = (
    Fit('log1p(e) / e', _log1p_over, mpf(0), mpf(1), 5.4e-9, BOTH, _chebyshev(10)),
    Fit(
        'expm1(r) / r, the error that of e^r',
        _expm1_over,
        -HALF_LN2,
        HALF_LN2,
        2.6e-9,
        ('native',),
        # The zeros of the seventh Chebyshev polynomial have 0 among them, where expm1 is 0: the last coefficient is that.
        lambda fit: chebyshev(mpmath.expm1, fit.low, fit.high, 7)[:-1],
        scale=lambda r: r / mpmath.exp(r),
    ),
    Fit(
        '(log1p(f) - f + f^2 / 2) / f^3, the error relative to 1/3',
        _rest_of_log_over,
        mpmath.sqrt(0.5) - 1,
        mpmath.sqrt(2) - 1,
        9e-8,
        ('native',),
        _chebyshev(9),
        scale=lambda f: mpf(3),
    ),
    Fit(
        'log1p(e) / e of a small e, to be precise',
        _log1p_over,
        mpf(0),
        mpf(1) / 4,
        1e-6,
        ('triton',),
        _minimax(6),
        is_reproduced=False,
    ),
    Fit(
        'log1p(e) / e of a small e',
        _log1p_over,
        mpf(0),
        mpf(1) / 16,
        4e-6,
        ('triton',),
        _minimax(3),
        is_reproduced=False,
    ),
    Fit('-log(1 - s) / s', _minus_log1m_over, mpf(0), mpf(1) / 32, ROUNDING, BOTH, _taylor(5)),
    Fit('expm1(z) / z', _expm1_over, -mpf(1) / 4, mpf(0), ROUNDING, ('triton',), _taylor(6)),
)
CONSTANTS = {
    'log2(e)': 1 / mpmath.log(2),
    'log(2)': mpmath.log(2),
    'its first 9 bits': mpf(355) / 512,
    'what these exceed it by': mpf(355) / 512 - mpmath.log(2),
    'the logarithm of the reciprocal of the smallest normal float32': 126 * mpmath.log(2),
    'log(2^60)': 60 * mpmath.log(2),
    'the smallest normal float32': mpf(2) ** -126,
    'the largest float32': (2 - mpf(2) ** -23) * mpf(2) ** 127,
    'the largest bfloat16': (2 - mpf(2) ** -7) * mpf(2) ** 127,
    'from the exponent of float16 to that of float32': mpf(2) ** 112,
    'what rounds a float32 to a whole number': mpf(3) * 2**22,
    'from a subnormal float32 to a normal one': mpf(2) ** 24,
}
"""The other long numbers of the kernels."""


def as_python(coefficients: Sequence[str]) -> str:
    """Horner's rule as the Triton kernels have it."""
    first, *others = coefficients
    return '\n'.join([f'p = {first}', *(f'p = p * x {"-" if c[0] == "-" else "+"} {c.lstrip("-")}' for c in others)])


def as_cpp(coefficients: Sequence[str]) -> str:
    """The same as the native kernels have it."""
    first, *others = coefficients
    return '\n'.join([f'V p = all({first}f);', *(f'p = fma(p, x, {c}f);' for c in others)])


def main() -> None:
    for fit in FITS:
        coefficients = fit.derive(fit)
        low, high = mpmath.nstr(fit.low, 6), mpmath.nstr(fit.high, 6)
        print(f'{fit.of}: {fit.error(coefficients):.3g} on [{low}, {high}]')
        print(as_python(coefficients), as_cpp(coefficients), sep='\n', end='\n\n')


if __name__ == '__main__':
    main()
