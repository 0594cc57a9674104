"""Two objects and the anchors of an image, for what assigners say."""

from __future__ import annotations

import torch

CORNERS = torch.tensor([[[8.0, 8.0, 24.0, 24.0], [40.0, 40.0, 56.0, 56.0]]])
"""Two objects of 16 by 16 pixels in an image of 64."""
ANCHORS = torch.stack(torch.meshgrid(torch.arange(4, 64, 8.0), torch.arange(4, 64, 8.0), indexing="xy"), -1).view(-1, 2)
