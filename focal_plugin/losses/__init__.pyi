"""The registry classes, one file for each variant beside what they share; importing this package registers them in mmdet.

Written by python -m tools.maintain.stubs.
"""

from collections.abc import Sequence

from mmdet.models.losses.focal_loss import FocalCustomLoss, FocalLoss
from mmdet.models.losses.gaussian_focal_loss import GaussianFocalLoss
from mmdet.models.losses.gfocal_loss import QualityFocalLoss
from mmdet.models.losses.varifocal_loss import VarifocalLoss
from torch import Tensor

from focal_plugin.losses.base import FusedLoss
from focal_plugin.losses.quality import FusedQualityLoss

__all__ = [
    'CLASSES',
    'FusedAsymmetricLoss',
    'FusedClassBalancedFocalLoss',
    'FusedEqualizedFocalLoss',
    'FusedFocalCustomLoss',
    'FusedFocalLoss',
    'FusedFocalStarLoss',
    'FusedGaussianFocalLoss',
    'FusedIoUAwareBCELoss',
    'FusedLoss',
    'FusedMaskFocalLoss',
    'FusedMatchabilityAwareLoss',
    'FusedPolyFocalLoss',
    'FusedPositionSupervisedLoss',
    'FusedQualityFocalLoss',
    'FusedQualityLoss',
    'FusedReducedFocalLoss',
    'FusedSoftmaxFocalLoss',
    'FusedVarifocalLoss',
]
CLASSES: dict[str, type[FusedLoss]]

class FusedAsymmetricLoss(FusedLoss):
    """Focal loss that treats positives and negatives differently and drops easy negatives.

    Asymmetric loss of `Asymmetric Loss For Multi-Label Classification`, arXiv 2009.14119.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = q^gamma_pos (-log p) for a positive;  s^gamma_neg (-log(1 - s)), s = max(p - clip, 0) for a negative

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        gamma_pos (float): Focusing exponent of positives, 1 in the authors' code, 0 in the paper; at least 0. Defaults
            to 1.0.
        gamma_neg (float): Focusing exponent of negatives; at least 0. Defaults to 4.0.
        clip (float): Probability below which a negative gives no loss; in [0, 0.999]. Defaults to 0.05.
        detach_weight (bool): Whether the modulating factors get no gradient; the authors' code does so by default; True
            or False. Defaults to False.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    gamma_pos: float
    gamma_neg: float
    clip: float
    detach_weight: bool
    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma_pos: float = 1.0,
        gamma_neg: float = 4.0,
        clip: float = 0.05,
        detach_weight: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedClassBalancedFocalLoss(FusedLoss):
    """Focal loss with rows weighted by how rare their class is in the training set.

    Class-balanced focal loss of `Class-Balanced Loss Based on Effective Number of Samples`, each row weighted by its
    label, with n the samples of a class, background rows by 1, arXiv 1901.05555.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = w (1 - p_t)^gamma (-log p_t),  w = (1 - beta) / (1 - beta^n), scaled to the sum C over the classes

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        samples_per_class (list[float]): Samples of each class in the training set; at least 1.
        class_beta (float): beta of the effective number of samples; in [0, 1]. Defaults to 0.9999.
        gamma (float): Focusing exponent; at least 0. Defaults to 2.0.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    samples_per_class: tuple[float, ...]
    class_beta: float
    gamma: float
    def __init__(
        self,
        samples_per_class: Sequence[float] | Tensor,
        use_sigmoid: bool = True,
        class_beta: float = 0.9999,
        gamma: float = 2.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedEqualizedFocalLoss(FusedLoss):
    """Focal loss whose exponent rises for classes that get few gradients of positives, for long-tailed data.

    The absolute gradients by the logits are summed inside the backward kernel, in training only, with weight and
    avg_factor but without the upstream gradient (the loss scale of AMP). When the backward of an iteration ends, its sums
    are added up over the processes and change the ratios for the next. A buffer that checkpoints hold keeps them.
    Logits of another number of classes than num_classes are a ValueError.

    Equalized focal loss of `Equalized Focal Loss for Dense Long-Tailed Object Detection`, with r of each class the
    ratio of the gradients that its positives and negatives have given, arXiv 2201.02593.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = (g / gamma) alpha_t (1 - p_t)^g (-log p_t),  g = gamma + scale (1 - r)

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        num_classes (int): Number of classes of the head; at least 1.
        gamma (float): Focusing exponent; above 0. Defaults to 2.0.
        alpha (float or None): Weight of the positives; in [0, 1]; None or a negative number: none. Defaults to 0.25.
        scale (float): How much the exponent of a class without positives rises; at least 0. Defaults to 8.0.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    num_classes: int
    gamma: float
    alpha: float | None
    scale: float
    def run(self, pred, *arguments, **changed) -> Tensor:
        """The loss; in training its backward changes the ratios, and so the next iteration's loss."""
    def __init__(
        self,
        num_classes: int,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        scale: float = 8.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedFocalLoss(FusedLoss, FocalLoss):
    """mmdet's FocalLoss as one fused kernel.

    Sigmoid focal loss of `Focal Loss for Dense Object Detection`, arXiv 1708.02002.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha_t (1 - p_t)^gamma (-log p_t)

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        gamma (float or list[float]): Focusing exponent; at least 0, or one per class. Defaults to 2.0.
        alpha (float or list[float] or None): Weight of the positives; in [0, 1], or one per class; None or a negative
            number: none. Defaults to 0.25.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        activated (bool): Pred holds probabilities instead of logits; logarithms stop at -100, as in
            torch.nn.functional.binary_cross_entropy. Defaults to False.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    gamma: float | Tensor
    alpha: float | Tensor | None
    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float | Sequence[float] | Tensor = 2.0,
        alpha: float | Sequence[float] | Tensor | None = 0.25,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedFocalCustomLoss(FusedLoss, FocalCustomLoss):
    """mmdet's FocalCustomLoss, the sigmoid focal loss for the box heads of Faster and Cascade R-CNN, as one fused kernel.

    It tells the head to have num_classes channels and none for the background, to take the sigmoid at test time, and how
    to measure its accuracy; with FusedFocalLoss a box head keeps num_classes + 1 channels and a softmax. num_classes is
    the head's.

    mmdet's box heads leave out the last column of the scores at test time, the background's. mmdet's FocalCustomLoss gives
    them none, so that the last class is never found and boxes of one class get the scores of another; this one gives them
    1 less the greatest of the others, by which Soft Teacher weighs the negatives of photos without annotations.

    Sigmoid focal loss of `Focal Loss for Dense Object Detection`, arXiv 1708.02002.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha_t (1 - p_t)^gamma (-log p_t)

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        num_classes (int): Number of classes of the head; must be given; at least -1. Defaults to -1.
        gamma (float or list[float]): Focusing exponent; at least 0, or one per class. Defaults to 2.0.
        alpha (float or list[float] or None): Weight of the positives; in [0, 1], or one per class; None or a negative
            number: none. Defaults to 0.25.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        activated (bool): Pred holds probabilities instead of logits; logarithms stop at -100, as in
            torch.nn.functional.binary_cross_entropy. Defaults to False.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    num_classes: int
    gamma: float | Tensor
    alpha: float | Tensor | None
    is_of_boxes: bool
    custom_cls_channels: bool
    custom_activation: bool
    custom_accuracy: bool
    def get_cls_channels(self, num_classes: int) -> int:
        """The number of class channels for a box head of num_classes, which must be this loss's."""
    def get_activation(self, cls_score: Tensor) -> Tensor:
        """The probabilities (N, num_classes) of logits (N, num_classes); for a box head (N, num_classes + 1)."""
    def __init__(
        self,
        use_sigmoid: bool = True,
        num_classes: int = -1,
        gamma: float | Sequence[float] | Tensor = 2.0,
        alpha: float | Sequence[float] | Tensor | None = 0.25,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedFocalStarLoss(FusedLoss):
    """The second focal loss of the paper: a steeper, shifted logistic loss.

    Focal loss* of `Focal Loss for Dense Object Detection`, appendix (gamma 2 with beta 1, or gamma 4 with beta 0),
    arXiv 1708.02002.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha_t (-log sigmoid(gamma x_t + beta)) / gamma,  x_t = x (2 y - 1)

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        gamma (float or list[float]): Steepness; above 0, or one per class. Defaults to 1.0.
        beta (float): Shift of the margin; at least -inf. Defaults to 0.0.
        alpha (float or list[float] or None): Weight of the positives; in [0, 1], or one per class; None or a negative
            number: none. Defaults to None.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    gamma: float | Tensor
    beta: float
    alpha: float | Tensor | None
    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float | Sequence[float] | Tensor = 1.0,
        beta: float = 0.0,
        alpha: float | Sequence[float] | Tensor | None = None,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedGaussianFocalLoss(FusedLoss, GaussianFocalLoss):
    """mmdet's GaussianFocalLoss, the loss of heatmaps, as one fused kernel.

    Gaussian focal loss of `CornerNet`, with y a heatmap that is 1 at the objects and falls off around them, arXiv
    1808.01244.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = q^alpha (-log p) where y = 1;  (1 - y)^gamma p^alpha (-log q) elsewhere

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        alpha (float): Focusing exponent; at least 0. Defaults to 2.0.
        gamma (float): Exponent that spares the surroundings of an object; at least 0. Defaults to 4.0.
        pos_weight (float): Weight of the objects; at least 0. Defaults to 1.0.
        neg_weight (float): Weight of everything else; at least 0. Defaults to 1.0.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        from_logits (bool): Pred holds logits; by default it holds probabilities, as in mmdet, with 1e-12 added inside
            logarithms. Defaults to False.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    alpha: float
    gamma: float
    pos_weight: float
    neg_weight: float
    def forward(  # type: ignore[override]
        self,
        pred: Tensor,
        target: Tensor,
        pos_inds: Tensor | None = None,
        pos_labels: Tensor | None = None,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss.

        Args:
            pred (Tensor): Probabilities of any shape; logits with from_logits.
            target (Tensor): Heatmap of pred's shape, 1 at an object's centre.
            pos_inds (Tensor, optional): Rows of a pred of shape (N, C) that are positives, with shape (M,). The positives
                then are these instead of the ones in target, and 'mean' is theirs plus that of the N * C negatives.
            pos_labels (Tensor, optional): Their classes, with shape (M,).
            weight (Tensor, optional): One for each row, or with pred's number of dimensions, each of size 1 or pred's; as in
                mmdet not used with pos_inds.
            avg_factor (float or Tensor, optional): What the sum is divided by, instead of the number of elements.
            reduction_override (str, optional): Replaces reduction for this call.

        Returns:
            Tensor: The loss; float32 where it is reduced.

        Raises:
            ValueError: pos_inds without pos_labels, or with reduction 'none', in which the two sums have no common shape.
        """
    def __init__(
        self,
        alpha: float = 2.0,
        gamma: float = 4.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        pos_weight: float = 1.0,
        neg_weight: float = 1.0,
        use_sigmoid: bool = True,
        from_logits: bool = False,
    ) -> None: ...

class FusedIoUAwareBCELoss(FusedQualityLoss):
    """Align-DETR's loss; a subclass of QualityFocalLoss, so that the heads of DETR and DINO hand it (labels, IoU).

    IoU-aware BCE loss of `Align-DETR`, with y the quality (IoU) of a positive, arXiv 2304.07527.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = BCE(p, t), t = detach(max(p^k y^(1 - k), 0.01)) for a positive;  p^gamma (-log q) for a negative

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        k (float): Share of the prediction in the target of a positive; in [0, 1]. Defaults to 0.25.
        gamma (float): Focusing exponent; at least 0. Defaults to 2.0.
        detach_weight (bool): Whether the modulating factor of negatives gets no gradient; True or False. Defaults to
            False.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    k: float
    gamma: float
    detach_weight: bool
    def __init__(
        self,
        use_sigmoid: bool = True,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        k: float = 0.25,
        gamma: float = 2.0,
        detach_weight: bool = False,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedMaskFocalLoss(FusedLoss):
    """Sigmoid focal loss of masks as one fused kernel: for the mask heads of Mask R-CNN, PointRend and their kin, which
    hand over (n, C, H, W) logits with labels, and in place of DiceLoss for SOLO, CondInst, RTMDet-Ins and QueryInst, which
    hand over one mask an instance.

    MaskFormer and Mask2Former hand over flat pixels: FusedFocalLoss is theirs.

    Sigmoid focal loss of masks, each read from the channel of its label,, arXiv 1708.02002.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = mean over the pixels of alpha_t (1 - p_t)^gamma (-log p_t)

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        gamma (float): Focusing exponent; at least 0. Defaults to 2.0.
        alpha (float or None): Weight of the positives; in [0, 1]; None or a negative number: none. Defaults to 0.25.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        activated (bool): Pred holds probabilities instead of logits; logarithms stop at -100, as in
            torch.nn.functional.binary_cross_entropy. Defaults to False.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    gamma: float
    alpha: float | None
    def forward(  # type: ignore[override]
        self,
        pred: Tensor,
        target: Tensor,
        labels: Tensor | None = None,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss.

        Args:
            pred (Tensor): Logits with shape (n, C, H, W) or (n, C, P), of which each instance's own channel is read; or
                (n, H, W) or (n, P).
            target (Tensor): Masks with shape (n, H, W) or (n, P), hard or soft.
            labels (Tensor, optional): The instances' classes with shape (n,), where pred has channels to pick from.
            weight (Tensor, optional): With shape (n,), or that of the masks.
            avg_factor (float or Tensor, optional): What the sum over the instances is divided by, instead of n.
            reduction_override (str, optional): Replaces reduction for this call; 'none' gives one number per instance.

        Returns:
            Tensor: The loss; float32 where it is reduced.
        """
    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class FusedMatchabilityAwareLoss(FusedQualityLoss):
    """DEIM's loss; a subclass of QualityFocalLoss, so that the heads of DETR and DINO hand it (labels, IoU).

    Matchability-aware loss of `DEIM: DETR with Improved Matching for Fast Convergence`, with y the quality (IoU), arXiv
    2412.04234.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = BCE(p, y^gamma) for a positive;  mal_alpha detach(p)^gamma (-log q) for a negative

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        gamma (float): Focusing exponent; at least 0. Defaults to 1.5.
        mal_alpha (float): Weight of the negatives; at least 0. Defaults to 1.0.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    gamma: float
    mal_alpha: float
    def __init__(
        self,
        use_sigmoid: bool = True,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        gamma: float = 1.5,
        mal_alpha: float = 1.0,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedPolyFocalLoss(FusedLoss):
    """Focal loss with one more term of its polynomial expansion.

    Poly-1 focal loss of `PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions`, arXiv
    2204.12511.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha_t (1 - p_t)^gamma (-log p_t) + epsilon (1 - p_t)^(gamma + 1)

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        epsilon (float): Coefficient of the polynomial term; at least -1. Defaults to 1.0.
        gamma (float or list[float]): Focusing exponent; at least 0, or one per class. Defaults to 2.0.
        alpha (float or list[float] or None): Weight of the positives; in [0, 1], or one per class; None or a negative
            number: none. Defaults to 0.25.
        alpha_on_poly (bool): Whether alpha_t multiplies the polynomial term too, unlike the paper's; True or False.
            Defaults to False.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    epsilon: float
    gamma: float | Tensor
    alpha: float | Tensor | None
    alpha_on_poly: bool
    def __init__(
        self,
        use_sigmoid: bool = True,
        epsilon: float = 1.0,
        gamma: float | Sequence[float] | Tensor = 2.0,
        alpha: float | Sequence[float] | Tensor | None = 0.25,
        alpha_on_poly: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedPositionSupervisedLoss(FusedQualityLoss):
    """Stable-DINO's loss; a subclass of QualityFocalLoss, so that the heads of DETR and DINO hand it (labels, IoU).

    Position-supervised loss of `Detection Transformer with Stable Matching`, with y the quality (IoU) of a positive,
    arXiv 2304.04742.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha |t - p|^gamma BCE(p, t), t = y^2 for a positive;  (1 - alpha) p^gamma (-log q) for a negative

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        alpha (float): Weight of the positives; in [0, 1]. Defaults to 0.25.
        gamma (float): Focusing exponent; at least 0. Defaults to 2.0.
        normalize (str): What t is divided by: for 'batch' its maximum over all rows + 1e-8 (the paper's code takes each
            image's, but a loss sees flat rows); 'none' or 'batch'. Defaults to 'none'.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    alpha: float
    gamma: float
    normalize: str
    def __init__(
        self,
        use_sigmoid: bool = True,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        normalize: str = 'none',
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedQualityFocalLoss(FusedQualityLoss):
    """mmdet's QualityFocalLoss as one fused kernel, for (labels, scores) and dense targets.

    Quality focal loss of `Generalized Focal Loss`, with y the quality (IoU) of a positive, 0 elsewhere, arXiv
    2006.04388.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = |y - p|^beta BCE(p, y)

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        beta (float): Exponent of the modulating factor; at least 0. Defaults to 2.0.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        activated (bool): Pred holds probabilities instead of logits; logarithms stop at -100, as in
            torch.nn.functional.binary_cross_entropy. Defaults to False.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    beta: float
    def __init__(
        self,
        use_sigmoid: bool = True,
        beta: float = 2.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedReducedFocalLoss(FusedLoss):
    """Cross-entropy for hard examples, focal loss for easy ones.

    Reduced focal loss of `Reduced Focal Loss: 1st Place Solution to xView object detection in Satellite Imagery`, arXiv
    1903.01347.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha_t (-log p_t) where p_t < threshold;  alpha_t ((1 - p_t) / threshold)^gamma (-log p_t) elsewhere

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        threshold (float): p_t below which the loss is the cross-entropy; in (0, 1]. Defaults to 0.5.
        gamma (float or list[float]): Focusing exponent; at least 0, or one per class. Defaults to 2.0.
        alpha (float or list[float] or None): Weight of the positives; in [0, 1], or one per class; None or a negative
            number: none. Defaults to None.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    threshold: float
    gamma: float | Tensor
    alpha: float | Tensor | None
    def __init__(
        self,
        use_sigmoid: bool = True,
        threshold: float = 0.5,
        gamma: float | Sequence[float] | Tensor = 2.0,
        alpha: float | Sequence[float] | Tensor | None = None,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedSoftmaxFocalLoss(FusedLoss):
    """Focal loss over a softmax, for heads with a background channel: Faster R-CNN's box head, RetinaNet with a softmax.

    Focal loss of `Focal Loss for Dense Object Detection` over a softmax, arXiv 1708.02002.

    With p = softmax(x) and y the label of the row:

        loss = alpha_y (1 - p_y)^gamma (-log p_y)

    Args:
        use_sigmoid (bool): Heads read it. Defaults to False.
        gamma (float or list[float]): Focusing exponent; at least 0, or one per class. Defaults to 2.0.
        alpha (float or list[float] or None): Factor of a row's loss, the one of its label; at least 0, or one per
            class; None or a negative number: none. Defaults to 0.25.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers. It needs labels.
            Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=True.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    gamma: float | Tensor
    alpha: float | Tensor | None
    def __init__(
        self,
        use_sigmoid: bool = False,
        gamma: float | Sequence[float] | Tensor = 2.0,
        alpha: float | Sequence[float] | Tensor | None = 0.25,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...

class FusedVarifocalLoss(FusedLoss, VarifocalLoss, QualityFocalLoss):
    """mmdet's VarifocalLoss as one fused kernel, for dense targets and, a subclass of QualityFocalLoss, so that the
    heads of DETR and DINO hand it (labels, IoU).

    Varifocal loss of `VarifocalNet: An IoU-aware Dense Object Detector`, with y the quality (IoU) of a positive, arXiv
    2008.13367.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = y BCE(p, y) where y > 0;  alpha p^gamma (-log q) elsewhere

    Args:
        use_sigmoid (bool): Heads read it. Defaults to True.
        alpha (float): Weight of the negatives; at least 0. Defaults to 0.75.
        gamma (float): Focusing exponent; at least 0. Defaults to 2.0.
        iou_weighted (bool): Whether a positive is weighted by its quality; True or False. Defaults to True.
        detach_weight (bool): Whether the modulating factor of negatives gets no gradient; True or False. Defaults to
            False.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        ignore_index (int or None): Rows with this label give no loss and no gradient; they count in the mean. It needs
            labels. Defaults to None.
        class_weight (list[float] or None): Factors of rows by their labels, at least 0: C numbers (the background's is
            1), or C + 1 with the background's last. It needs labels. Defaults to None.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument that no variant knows. One that another variant knows is warned about and not used.
    """

    alpha: float
    gamma: float
    iou_weighted: bool
    detach_weight: bool
    def __init__(
        self,
        use_sigmoid: bool = True,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        detach_weight: bool = False,
        *,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
    ) -> None: ...
