"""Small networks for training steps; together they have every operator that a step must support."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention in plain operators."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5).softmax(-1)
        return x + self.out((weights @ v).transpose(1, 2).reshape(n, t, d))


class ConvStudent(nn.Module):
    """Strided, depthwise, grouped and dilated convolutions, batch and group norms, residual connections, poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.dilated = nn.Conv2d(8, 12, 3, stride=2, padding=2, dilation=2, groups=2)
        self.groups = nn.GroupNorm(3, 12)
        self.max_pool = nn.MaxPool2d(3, 2, 1)
        self.avg_pool = nn.AvgPool2d((2, 3), (1, 2), (1, 1), count_include_pad=False)
        self.head = nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(image)))
        x = x + F.silu(self.depthwise(x))
        x = F.gelu(self.groups(self.dilated(x)))
        x = self.avg_pool(self.max_pool(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class TokenStudent(nn.Module):
    """Patch embedding, layer normalisation and attention, with an average over windows of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.attention = Attention(8, heads=2)
        self.head = nn.Linear(8 * 6, 5)

    def forward(self, image: Tensor) -> Tensor:
        tokens = F.adaptive_avg_pool2d(self.patches(image), (2, 3)).flatten(2).transpose(1, 2)
        return self.head(self.attention(self.norm(tokens)).flatten(1))


class TwoOutputs(nn.Module):
    """Returns logits and features, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)
        return {'student': self.head(features), 'features': features}
