"""Makes one call of a campaign again."""

import sys

from tests.campaign.report import again

if __name__ == '__main__':
    backend, seed, index = sys.argv[1:]
    print(again(backend, int(seed), int(index)))
