"""How long a run of several works may take."""

import math
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import TypeVar

Work = TypeVar('Work')


class Budget:
    """Minutes from now; None: as many as it takes."""

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.end = math.inf if minutes is None else monotonic() + 60 * minutes

    def left(self) -> float:
        """Seconds."""
        return self.end - monotonic()

    def within(self, works: Mapping[str, Work], keep: float = 0.0) -> Iterator[Work]:
        """The works that still fit, each taken to last as long as the one before it; says which ones don't.

        Args:
            works: by name, the most important first.
            keep: seconds to leave for what comes after.
        """
        took, left_out = 0.0, []
        for name, work in works.items():
            start = monotonic()
            if self.left() - keep <= took:
                left_out.append(name)
                continue
            yield work
            took = monotonic() - start
        if left_out:
            print(f'\nleft out to be done in {self.minutes:g} minutes (--minutes): {"; ".join(left_out)}')
