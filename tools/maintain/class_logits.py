"""What the configs in configs/cut would hold of class logits, computed from their heads."""

import math
from pathlib import Path

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from focal_plugin.cut import chunk_bytes
from tools.benchmarks.results import ROOT
from tools.benchmarks.tables import markdown

FOLDER = ROOT / 'configs/cut'
DATA = {'lvis-v1': 'LVIS v1', 'objects365v2': 'Objects365 v2', 'openimages': 'OpenImages V6', 'v3det': 'V3Det'}
"""A word of a config's name -> its data set."""
IMAGES, HEIGHT, WIDTH = 2, 800, 1344
FUSED = 2
"""How many times the logits a step of a fused head holds at once of what is as large: them and their gradient."""


def stock(head: BaseDenseHead) -> float:
    """The same of mmdet's head with the loss of mmdet's config, on a GPU; a test compares it with what is allocated."""
    if isinstance(head, FCOSHead):
        # V3Det's FocalCustomLoss is plain PyTorch on a GPU too, and its one-hot of 64-bit integers counts twice.
        return 12
    # Level by level: beside all logits, the largest level's rows, losses and weighted losses.
    places = [math.prod(size) for size in sizes(head)]
    return 1 + 3 * max(places) / sum(places)


def sizes(head: BaseDenseHead) -> list[tuple[int, int]]:
    """Height and width of each level."""
    return [(math.ceil(HEIGHT / y), math.ceil(WIDTH / x)) for x, y in head.prior_generator.strides]


def logits(head: BaseDenseHead) -> int:
    """How many class logits it makes of a batch."""
    priors = zip(head.prior_generator.num_base_priors, sizes(head), strict=True)
    return IMAGES * head.cls_out_channels * sum(count * math.prod(size) for count, size in priors)


def heads() -> dict[Path, tuple[str, Config, BaseDenseHead]]:
    """By config of public data: the data, the model's config, the head, made without memory."""
    init_default_scope('mmdet')
    found = {}
    for path in FOLDER.glob('*.py'):
        data = next((name for word, name in DATA.items() if f'_{word}_' in path.stem), None)
        model = Config.fromfile(path, import_custom_modules=False).model
        if data and 'cut' in model.bbox_head:
            with torch.device('meta'):
                found[path] = data, model, MODELS.build(model.bbox_head)
    return found


def table() -> str:
    """A line per config, the fewest logits first."""
    lines = []
    for path, (data, model, head) in sorted(heads().items(), key=lambda each: logits(each[1][-1])):
        size = 4e-9 * logits(head)
        chunk = 1e-9 * chunk_bytes(model.bbox_head.cut, torch.device('cuda'))
        figures = (size, stock(head) * size, FUSED * size, chunk)
        detector = f'[{model.type}](cut/{path.name})'
        lines.append([data, detector, str(head.num_classes), *(f'{figure:.3g}' for figure in figures)])
    header = ['data', 'detector', 'classes', 'the logits, GB', 'stock, GB', 'fused head, GB', 'with `cut=True`, GB']
    return markdown(header, lines)
