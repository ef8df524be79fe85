"The toy notebook's short precision and recall are those of the metrics, which come later"
import torch

from scoreguidance.metrics import prdc
from scoreguidance.toy import pr


def test_precision_and_recall_agree():
    for seed, shift, k in ((0, 0., 5), (1, .3, 3), (2, 2., 5)):
        torch.manual_seed(seed)
        real, fake = torch.randn(300, 2), torch.randn(200, 2) + shift
        want = prdc(real, fake, k)
        assert pr(real, fake, k) == (want['precision'], want['recall'])
