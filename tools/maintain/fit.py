"""Derives the polynomials of the kernels and prints them as the sources write them: python -m tools.maintain.fit

Each stands for a quotient that is finite at 0, so that the product with what it was divided by keeps its digits near 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import mpmath
from mpmath import mp, mpf

mp.dps = 30


def chebyshev(fit: 'Fit') -> list[str]:
    """The polynomial through the function's values at the zeros of a Chebyshev polynomial."""
    return [mpmath.nstr(c, 12) for c in mpmath.chebyfit(fit.function, [fit.low, fit.high], fit.terms)]


def taylor(fit: 'Fit') -> list[str]:
    return [mpmath.nstr(c, 12) for c in reversed(mpmath.taylor(fit.function, 0, fit.terms - 1))]


def minimax(fit: 'Fit') -> list[str]:
    """The polynomial whose largest error is least, by Remez's exchange, its coefficients rounded to float32."""
    grid = [(fit.low + fit.high) / 2 - (fit.high - fit.low) / 2 * mpmath.cospi(mpf(k) / 400) for k in range(401)]
    points = grid[:: 400 // fit.terms]  # near the extremes of the Chebyshev polynomial
    for _ in range(6):
        rows = [[fit.weight(x) * x**k for k in reversed(range(fit.terms))] + [(-1) ** i] for i, x in enumerate(points)]
        right = [fit.weight(x) * fit.function(x) for x in points]
        *coefficients, _ = mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix(right))
        points = _extremes(grid, [fit.weight(x) * (mpmath.polyval(coefficients, x) - fit.function(x)) for x in grid])
    with mpmath.workprec(24):
        return [mpmath.nstr(+c, 9) for c in coefficients]


def _extremes(grid: Sequence[mpf], errors: Sequence[mpf]) -> list[mpf]:
    """Where the error is largest between two changes of its sign."""
    runs = [[0]]
    for k in range(1, len(grid)):
        if errors[k] * errors[k - 1] < 0:
            runs.append([])
        runs[-1].append(k)
    return [grid[max(run, key=lambda k: abs(errors[k]))] for run in runs]


def over(function: Callable[[mpf], mpf]) -> Callable[[mpf], mpf]:
    """The quotient of a function by its argument, which is 1 at 0."""
    return lambda x: function(x) / x if x else mpf(1)


def rest_of_log_over(f: mpf) -> mpf:
    return (mpmath.log1p(f) - f + f**2 / 2) / f**3 if f else mpf(1) / 3


@dataclass(frozen=True)
class Fit:
    """A polynomial of the kernels.

    Attributes:
        of: the function that it stands for, as a sentence names it.
        function: the same in mpmath.
        low, high: the interval.
        promised: the largest error, as the sources state it; where they state none, half a unit of float32.
        kernels: which have it.
        method: makes the coefficients, those of a minimax to the digits that its exchange reaches.
        terms: how many there are.
        scale: what the error is multiplied by; by default it is relative to the function.
    """

    of: str
    function: Callable[[mpf], mpf]
    low: mpf
    high: mpf
    promised: float
    kernels: tuple[str, ...]
    method: Callable[['Fit'], list[str]]
    terms: int
    scale: Callable[[mpf], mpf] | None = None

    def derive(self) -> list[str]:
        """The coefficients, that of the highest power first."""
        return self.method(self)

    def weight(self, x: mpf) -> mpf:
        return self.scale(x) if self.scale else 1 / self.function(x)

    def error(self, coefficients: Sequence[str]) -> float:
        """The largest error of a polynomial with these coefficients."""
        points = [self.low + (self.high - self.low) * k / 500 for k in range(501)]
        exact = [*map(mpf, coefficients)]
        return float(max(abs(self.weight(x) * (mpmath.polyval(exact, x) - self.function(x))) for x in points))


BOTH, GPUS = ('triton', 'native'), ('triton', 'cuda')  # native's point functions are cuda's too
ROUNDING = 2.0**-24
HALF_LN2 = mpmath.log(2) / 2
LOG1P_OVER = over(mpmath.log1p)
FITS = (
    Fit('log1p(e) / e', LOG1P_OVER, mpf(0), mpf(1), 5.4e-9, (*BOTH, 'cuda'), chebyshev, 10),
    Fit(
        'expm1(r) / r, the error that of e^r',
        over(mpmath.expm1),
        -HALF_LN2,
        HALF_LN2,
        2.6e-9,
        ('native',),
        # The zeros of the seventh Chebyshev polynomial have 0 among them, where expm1 is 0: the last coefficient is that.
        lambda fit: chebyshev(replace(fit, function=mpmath.expm1))[:-1],
        7,
        scale=lambda r: r / mpmath.exp(r),
    ),
    Fit(
        '(log1p(f) - f + f^2 / 2) / f^3, the error relative to 1/3',
        rest_of_log_over,
        mpmath.sqrt(0.5) - 1,
        mpmath.sqrt(2) - 1,
        9e-8,
        ('native',),
        chebyshev,
        9,
        scale=lambda f: mpf(3),
    ),
    Fit('log1p(e) / e of a small e, to be precise', LOG1P_OVER, mpf(0), mpf(1) / 4, 1e-6, ('triton',), minimax, 6),
    Fit('log1p(e) / e of a small e, in fewer terms', LOG1P_OVER, mpf(0), mpf(1) / 4, 2e-7, ('cuda',), minimax, 5),
    Fit('log1p(e) / e of a small e', LOG1P_OVER, mpf(0), mpf(1) / 16, 4e-6, GPUS, minimax, 3),
    Fit('-log(1 - s) / s', over(lambda s: -mpmath.log1p(-s)), mpf(0), mpf(1) / 8, ROUNDING, BOTH, minimax, 5),
    Fit('expm1(z) / z', over(mpmath.expm1), -mpf(1) / 4, mpf(0), ROUNDING, GPUS, taylor, 6),
)
CONSTANTS = {
    'log2(e)': 1 / mpmath.log(2),
    'log(2)': mpmath.log(2),
    'its first 9 bits': mpf(355) / 512,
    'what these exceed it by': mpf(355) / 512 - mpmath.log(2),
    'the logarithm of the reciprocal of the smallest normal float32': 126 * mpmath.log(2),
    'log(2^60)': 60 * mpmath.log(2),
    'the smallest normal float32': mpf(2) ** -126,
    'the distance from 1 to the next float32': mpf(2) ** -23,
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
        coefficients = fit.derive()
        low, high = mpmath.nstr(fit.low, 6), mpmath.nstr(fit.high, 6)
        print(f'{fit.of}: {fit.error(coefficients):.3g} on [{low}, {high}]')
        print(as_python(coefficients), as_cpp(coefficients), sep='\n', end='\n\n')


if __name__ == '__main__':
    main()
