"""What configs/ says of each variant besides its configs: its page, its row in the index, its metafile.

A page is written once, from the variant's spec and class. From then on its prose is yours, and only the table of configs
between the markers is kept up to date. The index and the metafiles take heading and paper from the pages.
"""

import inspect
import re
from functools import partial
from pathlib import Path

import yaml
from mmengine.config import Config

from focal_plugin import losses
from focal_plugin.losses import CLASSES
from focal_plugin.math import SPECS, Spec
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
DATA = {'_boards_': 'Boards', '_coco_': 'COCO', '_lvis-v1_': 'LVIS v1'}
PAGE = """# {heading}

> [{title}](https://arxiv.org/abs/{paper})

`{kind}`, for each {what}:

```
{formula}
```

{summary}

<!-- configs:begin -->
<!-- configs:end -->
"""


def configs_of(name: str) -> list[Path]:
    """The configs of a variant, those of public data first."""
    paths = [path for path in FOLDER.joinpath(name).glob('*.py') if data_of(path)]
    return sorted(paths, key=lambda path: (data_of(path) == 'Boards', path.stem))


def data_of(path: Path) -> str | None:
    return next((data for part, data in DATA.items() if part in path.stem), None)


def detector_of(path: Path) -> str:
    word = path.stem.partition('_')[0]
    return DETECTORS.get(word) or Config.fromfile(path, import_custom_modules=False).model.type


def title_of(spec: Spec) -> tuple[str, str]:
    """(the loss, its paper), out of the spec's title."""
    heading, paper, _ = spec.title.split('`', 2)
    return heading.removesuffix(' of '), paper


def first_page(name: str) -> str:
    """The page of a variant that has none, for its author to go on with."""
    spec, kind = SPECS[name], CLASSES[name]
    heading, paper = title_of(spec)
    return PAGE.format(
        heading=heading,
        title=paper,
        paper=spec.paper,
        kind=kind.__name__,
        what='row x of logits' if spec.family == 'rowwise' else 'logit x with p = sigmoid(x)',
        formula=spec.formula,
        summary=inspect.getdoc(kind).partition('\n')[0],
    )


def page(name: str) -> str:
    path = FOLDER / name / 'README.md'
    return path.read_text() if path.exists() else first_page(name)


def configs(name: str) -> str:
    """The part of the page between its markers."""
    rows = []
    for path in configs_of(name):
        data = data_of(path)
        place = '`tests/data/boards`' if data == 'Boards' else data
        rows.append([f'[{path.stem}]({path.name})', detector_of(path), place])
    public = dict.fromkeys(data for path in configs_of(name) if (data := data_of(path)) != 'Boards')
    return (
        markdown(['config', 'detector', 'data'], rows)
        + f'\n\nNothing was trained on {" or ".join(public)} here, and no accuracy is claimed. The tests build every config '
        'and take a training step with it.'
    )


def index() -> str:
    """The table of configs/README.md: RetinaNet, which has a folder of its own, and the variants."""
    link = '[1708.02002](https://arxiv.org/abs/1708.02002)'
    everything = 'RetinaNet: COCO, LVIS v1, mixed precision, the demo'
    rows = [['[retinanet](retinanet/README.md)', 'Focal loss', link, '`FusedFocalLoss`', everything]]
    for name, spec in sorted(SPECS.items(), key=lambda each: (each[0] != 'focal', each[0])):
        heading = re.search('^# (.*)$', page(name), re.MULTILINE)[1]
        paper = f'[{spec.paper}](https://arxiv.org/abs/{spec.paper})'
        rows.append([f'[{name}]({name}/README.md)', heading, paper, _classes(name), _detectors(name)])
    return markdown(['folder', 'loss', 'paper', 'class', 'detectors'], rows)


def _classes(name: str) -> str:
    """The classes of this variant that its configs use."""
    text = ''.join(path.read_text() for path in configs_of(name))
    used = [each for each in dict.fromkeys(re.findall(r'Fused\w+Loss', text)) if hasattr(losses, each)]
    return ', '.join(f'`{each}`' for each in sorted(used, key=len) if getattr(losses, each).spec is SPECS[name])


def _detectors(name: str) -> str:
    """Those of public data, with the data where it is not COCO alone."""
    found: dict[str, list[str]] = {}
    for path in configs_of(name):
        if data_of(path) != 'Boards':
            found.setdefault(detector_of(path), []).append(data_of(path))
    return ', '.join(who + (f' ({", ".join(data)})' if data != ['COCO'] else '') for who, data in found.items())


def metafile(name: str) -> str:
    """What model indices read. Epochs of configs that are in it stay as they are, since reading a config takes long."""
    text, path = page(name), FOLDER / name / 'metafile.yml'
    heading, title = re.search(r'^# (.*)\n\n> \[(.*)\]', text, re.MULTILINE).groups()
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
            'Metadata': {'Training Data': data_of(config), 'Epochs': epochs.get(config.stem) or epochs_of(config)},
        }
        for config in configs_of(name)
    ]
    return yaml.safe_dump(
        {'Collections': [collection], 'Models': found}, sort_keys=False, allow_unicode=True, width=1000
    )


def epochs_of(path: Path) -> int:
    return Config.fromfile(path, import_custom_modules=False).train_cfg.max_epochs


PAGES = {f'configs/{name}/README.md': {'configs': partial(configs, name)} for name in SPECS}
"""The parts of the pages, by their markers."""
NEW = {f'configs/{name}/README.md': partial(first_page, name) for name in SPECS}
"""What a page begins as."""
METAFILES = {f'configs/{name}/metafile.yml': partial(metafile, name) for name in SPECS}
"""Files that are written as a whole."""
