"""Heads that never hold their class logits under reentrant checkpoints, mmengine's: what these run has no gradients."""

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch import nn
from torch.utils._pytree import tree_leaves

from tests.heads.cut import ALL, CHUNKS, NORMED, SIX, features, head_of, loss_and_gradients, samples
from tests.heads.stock import HEADS

CUT = CHUNKS['three classes']

pytestmark = pytest.mark.filterwarnings('ignore:.*use_reentrant.*', 'ignore:None of the inputs have requires_grad.*')


@pytest.mark.parametrize('head', SIX)
def test_a_checkpointed_convolution_of_mmengines_has_its_gradients(head):
    """activation_checkpointing=['bbox_head.conv_cls'], which is reentrant: forwards run without gradients."""
    name, arguments = ALL[head]
    whole, parts = (head_of(f'Fused{name}', arguments, cut=cut) for cut in (False, CUT))
    turn_on_activation_checkpointing(parts, [parts.class_convolution])
    (losses, grads), (want, want_grads) = (loss_and_gradients(each, features()) for each in (parts, whole))
    torch.testing.assert_close(losses, want, rtol=1e-5, atol=0)
    assert grads.keys() == want_grads.keys()
    for key, value in want_grads.items():
        assert (grads[key] - value).abs().max() <= 1e-5 * value.abs().max(), key


REENTRANT = {
    'a normalised convolution': lambda: (head_of('FusedFCOSHead', HEADS['fcos'][1] | NORMED, cut=CUT), 'conv_cls'),
    **{name: lambda name=name: (head_of(f'Fused{ALL[name][0]}', ALL[name][1], cut=CUT), '') for name in SIX},
}


@pytest.mark.parametrize('made', REENTRANT.values(), ids=REENTRANT)
def test_a_checkpoint_that_would_lose_gradients_is_refused(made):
    head, checkpointed = made()
    turn_on_activation_checkpointing(nn.ModuleDict(dict(head=head)), [f'head.{checkpointed}'.rstrip('.')])
    with pytest.raises(RuntimeError, match=r'ran without gradients .* use_reentrant=False, or write cut=False'):
        head.loss(features(), samples(head))
    with torch.no_grad():
        assert sum(tree_leaves(head.loss(features(), samples(head)))).isfinite()
