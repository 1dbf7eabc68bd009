"""What configs/ says of each variant besides its configs: its page, its row in the index, its metafile.

A page is written once, from the variant's spec and class. From then on its prose is yours, and only the table of configs
between the markers is kept up to date. The index and the metafiles take heading and paper from the pages.
"""

import inspect
import re
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import yaml
from mmengine.config import Config

from focal_plugin import losses
from focal_plugin.losses import CLASSES
from focal_plugin.math import SPECS
from tools.benchmarks.results import ROOT
from tools.benchmarks.tables import markdown

FOLDER = ROOT / 'configs'
DETECTORS = {
    'atss': 'ATSS',
    'centernet': 'CenterNet',
    'centernet-update': "CenterNet2's first stage",
    'deformable-detr': 'Deformable DETR',
    'dino': 'DINO',
    'dino-4scale': 'DINO',
    'faster-rcnn': 'Faster R-CNN',
    'retinanet': 'RetinaNet',
}
"""The first word of a config's name -> its detector; of those that are not here mmdet's name of the model."""
BOARDS = '`tests/data/boards`'
DATA = {'_boards_': BOARDS, '_coco_': 'COCO', '_lvis-v1_': 'LVIS v1'}


class Listed(NamedTuple):
    """A config of a variant: its file, its detector, what it trains on."""

    path: Path
    detector: str
    data: str


@cache
def listed(name: str) -> list[Listed]:
    """The configs of a variant, those of public data first."""
    found = []
    for path in sorted((FOLDER / name).glob('*.py')):
        word, data = path.stem.partition('_')[0], next(data for part, data in DATA.items() if part in path.stem)
        detector = DETECTORS.get(word) or Config.fromfile(path, import_custom_modules=False).model.type
        found.append(Listed(path, detector, data))
    return sorted(found, key=lambda each: each.data == BOARDS)


def first_page(name: str) -> str:
    """The page of a variant that has none, for its author to go on with."""
    spec, kind = SPECS[name], CLASSES[name]
    heading, paper, _ = spec.title.split('`', 2)
    what = 'row x of logits' if spec.family == 'rowwise' else 'logit x with p = sigmoid(x)'
    summary = inspect.getdoc(kind).partition('\n')[0]
    return f"""# {heading.removesuffix(' of ')}

> [{paper}](https://arxiv.org/abs/{spec.paper})

`{kind.__name__}`, for each {what}:

```
{spec.formula}
```

{summary}

<!-- configs:begin -->
<!-- configs:end -->
"""


def titles(name: str) -> tuple[str, str]:
    """(heading, title of the paper), as the page has them."""
    path = FOLDER / name / 'README.md'
    text = path.read_text() if path.exists() else first_page(name)
    return re.match(r'# (.*)\n\n> \[(.*)\]', text).groups()


def configs(name: str) -> str:
    """The part of the page between its markers."""
    rows = [[f'[{each.path.stem}]({each.path.name})', each.detector, each.data] for each in listed(name)]
    public = dict.fromkeys(each.data for each in listed(name) if each.data != BOARDS)
    return (
        markdown(['config', 'detector', 'data'], rows)
        + f'\n\nNothing was trained on {" or ".join(public)} here, and no accuracy is claimed. The tests build every config '
        'and take a training step with it.'
    )


def index() -> str:
    """The table of configs/README.md: RetinaNet, which has a folder of its own, and the variants."""
    link = '[{0}](https://arxiv.org/abs/{0})'.format
    everything = 'RetinaNet: COCO, LVIS v1, mixed precision, the demo'
    rows = [['[retinanet](retinanet/README.md)', 'Focal loss', link('1708.02002'), '`FusedFocalLoss`', everything]]
    for name, spec in sorted(SPECS.items(), key=lambda each: (each[0] != 'focal', each[0])):
        rows.append(
            [f'[{name}]({name}/README.md)', titles(name)[0], link(spec.paper), _classes(name), _detectors(name)]
        )
    return markdown(['folder', 'loss', 'paper', 'class', 'detectors'], rows)


def _classes(name: str) -> str:
    """The classes of this variant that its configs use."""
    text = ''.join(each.path.read_text() for each in listed(name))
    used = [each for each in sorted({*re.findall(r'Fused\w+Loss', text)}, key=len) if hasattr(losses, each)]
    return ', '.join(f'`{each}`' for each in used if getattr(losses, each).spec is SPECS[name])


def _detectors(name: str) -> str:
    """Those of public data, with the data where it is not COCO alone."""
    found: dict[str, list[str]] = {}
    for each in listed(name):
        if each.data != BOARDS:
            found.setdefault(each.detector, []).append(each.data)
    return ', '.join(who + (f' ({", ".join(data)})' if data != ['COCO'] else '') for who, data in found.items())


def metafile(name: str) -> str:
    """What model indices read. Epochs of configs that are in it stay as they are, since reading a config takes long."""
    path, (heading, title) = FOLDER / name / 'metafile.yml', titles(name)
    models = yaml.safe_load(path.read_text())['Models'] if path.exists() else []
    epochs = {model['Name']: model['Metadata']['Epochs'] for model in models}
    collection = {
        'Name': heading,
        'Metadata': {'Architecture': [re.sub(r'\b[a-z]', lambda letter: letter[0].upper(), heading)]},
        'Paper': {'URL': f'https://arxiv.org/abs/{SPECS[name].paper}', 'Title': title},
        'README': f'configs/{name}/README.md',
    }
    found = [
        {
            'Name': config.stem,
            'In Collection': heading,
            'Config': config.relative_to(ROOT).as_posix(),
            'Metadata': {
                'Training Data': 'Boards' if data == BOARDS else data,
                'Epochs': epochs.get(config.stem)
                or Config.fromfile(config, import_custom_modules=False).train_cfg.max_epochs,
            },
        }
        for config, _, data in listed(name)
    ]
    return yaml.safe_dump(
        {'Collections': [collection], 'Models': found}, sort_keys=False, allow_unicode=True, width=1000
    )


PAGES = {f'configs/{name}/README.md': {'configs': partial(configs, name)} for name in SPECS}
"""The parts of the pages, by their markers."""
NEW = {f'configs/{name}/README.md': partial(first_page, name) for name in SPECS}
"""What a page begins as."""
METAFILES = {f'configs/{name}/metafile.yml': partial(metafile, name) for name in SPECS}
"""Files that are written as a whole."""
