"""Docstrings of what is made from a spec."""

from __future__ import annotations
import textwrap
from collections.abc import Iterable

from focal_plugin.math import Spec
from focal_plugin.math.spec import REQUIRED, Parameter

_TARGET = {
    False: 'integer labels of shape pred.shape[:-1], class c in [0, C), background C; or dense values in [0, 1] of pred\'s '
    'shape (float, bool or integer).',
    True: 'integer labels of shape pred.shape[:-1], class c in [0, C), background C; the pair (labels, scores), a quality '
    'in [0, 1] for each label; or dense qualities of pred\'s shape, positive where above 0.',
}  # fmt: skip
_ROWWISE_TARGET = 'integer labels of shape pred.shape[:-1], class c in [0, C); a background has a class of its own.'
_FLAGS = {
    'activated': 'pred holds probabilities instead of logits; logarithms stop at -100, as in '
    'torch.nn.functional.binary_cross_entropy.',
    'from_logits': 'pred holds logits; by default it holds probabilities, as in mmdet, with 1e-12 added inside logarithms.',
}
_OF_LABELS = {
    'ignore_index (int or None)': 'Rows with this label give no loss and no gradient; they count in the mean. It needs '
    'labels. Defaults to None.',
    'class_weight (list[float] or None)': "Factors of rows by their labels, at least 0: C numbers{background}. It needs "
    'labels. Defaults to None.',
}  # fmt: skip
_ROW_WEIGHT = 'one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1)'
_ELEMENT_WEIGHT = "; one per element, of pred's shape or flat; or of as many dimensions, each pred's or 1: (1, ..., C)."


def _number(p: Parameter) -> str:
    if isinstance(p.default, bool):
        return 'bool'
    if p.choices:
        return 'str'
    if p.whole:
        return 'int'
    kinds = ['list[float]'] if p.sequence else ['float', *['list[float]'] * p.vector]
    return ' or '.join(kinds + ['None'] * p.optional)


def _sentence(p: Parameter) -> str:
    text = f'{p.doc}; {p.range}' + ', or one per class' * p.vector
    return text + '; None or a negative number: none' * p.optional + '.'


def _default(p: Parameter) -> str:
    return '' if p.default is REQUIRED else f' Defaults to {p.default!r}.'


def _entry(name: str, text: str) -> str:
    return textwrap.fill(f'{name}: {text}', 116, initial_indent='    ', subsequent_indent='        ')


def _head(spec: Spec) -> str:
    symbols = 'With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:'
    if spec.family == 'rowwise':
        symbols = 'With p = softmax(x) and y the label of the row:'
    return f'{symbols}\n\n    loss = {spec.formula}'


def of_function(spec: Spec) -> str:
    """The docstring of a public function."""
    rows = spec.per_row
    target = _ROWWISE_TARGET if spec.family == 'rowwise' else _TARGET[spec.scored]
    none = "one value per row, in pred's dtype" if rows else "pred's shape and dtype"
    entries = {
        'pred': 'logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it '
        'lies, and its gradient has the same layout.',
        'target': target,
        'weight': _ROW_WEIGHT + ('.' if spec.family == 'rowwise' else _ELEMENT_WEIGHT),
        **{p.name: _sentence(p) for p in spec.parameters},
        'reduction': f"'none' ({none}), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean' divides by the number "
        f'of {"rows" if rows else "elements"}, or by avg_factor + 1.19e-7 where that is given.',
        'avg_factor': 'a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.',
        'ignore_index': 'rows with this label give no loss and no gradient; they count in the mean.',
    }  # fmt: skip
    if spec.probabilities:
        entries[spec.probabilities] = _FLAGS[spec.probabilities]
    if spec.statistics:
        entries['statistics'] = (
            '(2, C) float64: the backward adds, class by class, the sums of the absolute gradients of positives and of '
            'negatives, weight and mean included, the upstream gradient not.'
        )
    arguments = '\n'.join(_entry(name, text) for name, text in entries.items())
    return f"""{textwrap.fill(f'{spec.title}, arXiv {spec.paper}.', 116)}

{_head(spec)}

Args:
{arguments}

Returns:
    The loss. An empty pred gives 0 with a gradient.

Raises:
    ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
        dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
    TypeError: a wrong type, dtype or layout, an unknown argument.
"""


def of_class(spec: Spec, purpose: str, parameters: Iterable[Parameter], labelled: bool) -> str:
    """The docstring of a registry class, in mmdet's form.

    Args:
        spec: the variant.
        purpose: what the class is for.
        parameters: the arguments of its constructor that are its own.
        labelled: it takes ignore_index and class_weight.
    """
    sigmoid = spec.family != 'rowwise'
    entries = {
        'use_sigmoid (bool)': f'Heads read it. Defaults to {sigmoid}.',
        **{f'{p.name} ({_number(p)})': _sentence(p) + _default(p) for p in parameters},
        'reduction (str)': "'none', 'mean' or 'sum'. Defaults to 'mean'.",
        'loss_weight (float)': 'Factor of the loss. Defaults to 1.0.',
    }
    if spec.probabilities:
        text = _FLAGS[spec.probabilities]
        entries[f'{spec.probabilities} (bool)'] = f'{text[0].upper()}{text[1:]} Defaults to False.'
    if labelled:
        background = " (the background's is 1), or C + 1 with the background's last" * sigmoid
        entries.update({name: text.format(background=background) for name, text in _OF_LABELS.items()})
    arguments = '\n'.join(_entry(name, text) for name, text in entries.items())
    return f"""{purpose}

{textwrap.fill(f'{spec.title}, arXiv {spec.paper}.', 116)}

{_head(spec)}

Args:
{arguments}

Raises:
    ValueError: An argument outside its range; use_sigmoid={not sigmoid}.
    TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
"""
