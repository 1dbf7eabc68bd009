"""Starts a variant: writes its six files like those of another one, with the names changed.

    python -m tools.maintain.new_variant --like poly_focal foo_focal

What they say is still the other loss: its paper, its formula, its arguments. They are yours to rewrite. The rest is found or
generated: CONTRIBUTING.md says how to go on.
"""

import argparse
import keyword
import re
import string
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def renamed(text: str, like: str, kind: str, name: str) -> str:
    """The text of a file of another variant with the names of the new one, where they are names and no words."""
    old, new_kind = re.escape(like), f'Fused{string.capwords(name, "_").replace("_", "")}Loss'
    text = re.sub(rf"(?m)('|import |struct |using ){old}(?='|$| [{{=:])", rf'\g<1>{name}', text)
    text = re.sub(rf'(?<![-\w.]){old}(?=\.\w)', name, text)
    text = re.sub(rf'\b{kind}\b', new_kind, text)
    text = re.sub(r"(?m)^(    function=)'\w+',$", rf"\1'{name}_loss',", text)
    # A new loss takes the place of none of mmdet's, and had no earlier form that walked over the logits as often.
    return re.sub(r"(?m)^    (replaces = '\w+'|passes=\d+,)\n", '', text)


def files_of(like: str, name: str) -> dict[Path, str]:
    """The six files and their text, by their paths."""
    modules = ('focal_plugin/math/{}.py', 'focal_plugin/math/{}.h', 'focal_plugin/losses/{}.py', 'tests/variants/{}.py')
    places = {ROOT / module.format(like): ROOT / module.format(name) for module in modules}
    for data in ('boards', 'coco'):
        config = min((ROOT / 'configs' / like).glob(f'*_{data}_*.py'))
        stem = config.stem.rpartition('_fused-')[0] + '_fused-' + name.replace('_', '-')
        places[config] = ROOT / 'configs' / name / f'{stem}.py'
    kind = re.search(r'class (Fused\w+)\(', (ROOT / f'focal_plugin/losses/{like}.py').read_text())[1]
    return {there: renamed(here.read_text(), like, kind, name) for here, there in places.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='of the modules; its class is Fused<Name>Loss, its function <name>_loss')
    parser.add_argument('--like', required=True, help='the variant whose files it starts from')
    args = parser.parse_args()
    math = ROOT / 'focal_plugin/math'
    if not re.fullmatch('[a-z][a-z0-9]*(_[a-z0-9]+)*', args.name) or keyword.iskeyword(args.name):
        sys.exit(f'{args.name!r} is no name of a module: write words of small letters, joined by _')
    if not (math / f'{args.like}.h').exists():
        sys.exit(
            f'there is no variant {args.like!r}; there are {", ".join(sorted(path.stem for path in math.glob("*.h")))}'
        )
    files = files_of(args.like, args.name)
    present = [path for path in files if path.exists()] or [*math.glob(f'{args.name}.*')]
    if present:
        sys.exit(f'{args.name!r} is taken: there is {present[0].relative_to(ROOT)}')
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(path.relative_to(ROOT))


if __name__ == '__main__':
    main()
