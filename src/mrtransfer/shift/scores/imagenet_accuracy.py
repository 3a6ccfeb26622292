"""A baseline: what is better on ImageNet is better elsewhere."""

from typing import ClassVar

from mrtransfer.common.errors import UserError
from mrtransfer.shift.score import Evidence, Score
from mrtransfer.shift.scores import SCORES

TOP1 = {
    "convit_tiny.fb_in1k": 73.112,
    "deit_base_patch16_224.fb_in1k": 81.992,
    "deit_small_patch16_224.fb_in1k": 79.844,
    "deit_tiny_patch16_224.fb_in1k": 72.172,
    "densenet121.ra_in1k": 76.500,
    "densenet121.tv_in1k": 74.764,
    "densenet161.tv_in1k": 77.358,
    "densenet169.tv_in1k": 75.900,
    "densenet201.tv_in1k": 77.286,
    "efficientnet_b0.ra_in1k": 77.694,
    "efficientnet_b2.ra_in1k": 80.610,
    "inception_v3.tv_in1k": 77.434,
    "mnasnet_100.rmsp_in1k": 74.650,
    "mobilenetv2_100.ra_in1k": 72.976,
    "mobilenetv3_large_100.ra_in1k": 75.766,
    "mobilenetv3_small_100.lamb_in1k": 67.656,
    "regnetx_002.pycls_in1k": 68.746,
    "regnetx_008.pycls_in1k": 75.030,
    "regnety_002.pycls_in1k": 70.278,
    "regnety_004.pycls_in1k": 74.028,
    "regnety_008.pycls_in1k": 76.302,
    "resnet10t.c3_in1k": 68.358,
    "resnet14t.c3_in1k": 72.254,
    "resnet18.a1_in1k": 73.158,
    "resnet18.tv_in1k": 69.760,
    "resnet26.bt_in1k": 76.366,
    "resnet34.a1_in1k": 77.918,
    "resnet50.a1_in1k": 81.214,
    "resnet50.tv_in1k": 76.130,
    "resnet50.tv2_in1k": 80.850,
    "resnet101.tv_in1k": 77.376,
    "resnet101.tv2_in1k": 81.890,
    "resnet152.tv_in1k": 78.322,
    "resnext50_32x4d.a1h_in1k": 82.014,
    "resnext50_32x4d.tv_in1k": 77.618,
    "swin_tiny_patch4_window7_224.ms_in1k": 81.376,
    "vgg11.tv_in1k": 69.022,
    "vgg13.tv_in1k": 69.932,
    "vgg16.tv_in1k": 71.592,
    "vgg16_bn.tv_in1k": 73.370,
    "vgg19.tv_in1k": 72.378,
    "vgg19_bn.tv_in1k": 74.216,
    "vit_small_patch16_224.augreg_in21k_ft_in1k": 81.384,
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": 75.454,
    "wide_resnet50_2.tv_in1k": 78.480,
}
"""Per cent of the ImageNet-1k validation images, at the size that each was published with: the table
``results/results-imagenet.csv`` of timm (release 0.9), by the name and tag of the weights. A name without its tag would
be ambiguous: ``resnet50`` has weights from 76 to 81 %."""


@SCORES.register("imagenet_accuracy")
class ImagenetAccuracy(Score):
    """Baseline: published ImageNet top-1 accuracy of the weights."""

    name: ClassVar[str] = "imagenet_accuracy"
    words: ClassVar[str] = "ImageNet top-1 (%)"
    baseline: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("imagenet",)

    def lacks(self, evidence: Evidence) -> str | None:
        """As for any score; and a published accuracy, which is known of :data:`TOP1`."""
        if evidence.imagenet is not None and evidence.imagenet not in TOP1:
            return f"a published accuracy, and none is known of {evidence.imagenet}"
        return super().lacks(evidence)

    def value(self, evidence: Evidence) -> float:
        """In per cent."""
        if evidence.imagenet not in TOP1:
            raise UserError(f"ImageNet accuracy: not known of {evidence.imagenet}")
        return TOP1[evidence.imagenet]
