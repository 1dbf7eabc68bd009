"""mmdet's two detectors that select queries among their encoder's tokens, beside ours, and tokens to select from."""

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import focal_plugin  # noqa: F401  registers
from tests.heads.detectors import batch, build

FUSED = {'DINO': 'FusedDINO', 'Deformable DETR, two stages': 'FusedDeformableDETR'}
WIDTH, QUERIES = 256, 40
SIZES = ((16, 20), (8, 10), (4, 5), (2, 3))
TOKENS = sum(height * width for height, width in SIZES)


def chunk_of(rows: int, classes: int) -> float:
    """The MiB of so many tokens' logits in float32."""
    return (rows + 0.5) * classes * 4 / 2**20


def pair(name: str, classes: int, rows: int = 37, **changes) -> tuple[nn.Module, nn.Module]:
    """mmdet's detector, and ours with its weights, which holds the logits of so many tokens at once."""
    stock = build(name, bbox_head=dict(num_classes=classes), **changes)
    fused = build(name, bbox_head=dict(num_classes=classes), type=FUSED[name], chunk=chunk_of(rows, classes), **changes)
    nn.init.normal_(class_branch(stock).bias)  # the one bias of all classes that training starts from hides a mistake
    fused.load_state_dict(stock.state_dict())
    return stock, fused


def class_branch(model: nn.Module) -> nn.Linear:
    return model.bbox_head.cls_branches[model.decoder.num_layers]


class Adapted(nn.Module):
    """A class branch with an adapter of low rank beside the frozen layer, as LoRA has it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.out_features = linear.requires_grad_(False), linear.out_features
        self.down, self.up = nn.Linear(linear.in_features, 4, bias=False), nn.Linear(4, linear.out_features, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.linear(tokens) + self.up(self.down(tokens))


def photos(classes: int, *indices: int) -> dict:
    """The photos, their eighty classes as so many."""
    loaded = batch(*indices)
    for sample in loaded['data_samples']:
        sample.gt_instances.labels %= classes
    return loaded


def inputs(padded: bool = False, seed: int = 0) -> dict:
    """What the encoder hands over for two images, the second padded on two sides or not."""
    memory = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    masks = []
    for height, width in SIZES:
        mask = torch.zeros(2, height, width, dtype=torch.bool)
        mask[1, -(-height * 3 // 4) :] = padded
        mask[1, :, -(-width // 2) :] = padded
        masks.append(mask.flatten(1))
    return dict(
        memory=memory, memory_mask=torch.cat(masks, dim=1) if padded else None, spatial_shapes=torch.tensor(SIZES)
    )


def objects(classes: int) -> list[DetDataSample]:
    """Three objects and one."""
    samples = []
    for boxes in ([[8.0, 8, 40, 60], [70, 20, 150, 120], [5, 5, 30, 90]], [[30.0, 30, 90, 75]]):
        labels = torch.arange(len(boxes)).remainder(classes)
        sample = DetDataSample(metainfo=dict(img_shape=(128, 160)))
        sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes), labels=labels)
        samples.append(sample)
    return samples


class Selections(TorchDispatchMode):
    """What top-k is asked and what it answers: (values, indices)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        if operator is torch.ops.aten.topk.default:
            self.seen.append((args[0], result[1]))
        return result


def selection(model: nn.Module, given: dict) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """The scores of all tokens, the indices of the selected, and the tensors that the decoder and the loss get."""
    if hasattr(model, 'dn_query_generator'):
        given = given | dict(batch_data_samples=objects(model.bbox_head.num_classes))
    torch.manual_seed(0)  # denoising queries are drawn
    with Selections() as selections:
        decoder_inputs, head_inputs = model.pre_decoder(**given)
    ((scores, indices),) = selections.seen
    found = (decoder_inputs | head_inputs).items()
    return scores, indices, {key: value for key, value in found if isinstance(value, torch.Tensor)}


def backward(found: dict[str, torch.Tensor]) -> None:
    """Gives what was found random gradients."""
    generator, differentiable = (
        torch.Generator().manual_seed(1),
        [each for each in found.values() if each.requires_grad],
    )
    torch.autograd.backward(
        differentiable, [torch.randn(each.shape, generator=generator).to(each.dtype) for each in differentiable]
    )
