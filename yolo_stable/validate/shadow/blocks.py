"""Building blocks of Ultralytics that small networks of the usual models do not have, on odd maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block, and what it is called with."""

    make: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]
    """Of its inputs."""
    call: Callable[..., Any] = lambda module, *inputs: module(*inputs)


def building_blocks() -> dict[str, Block]:
    """Return the blocks by name."""
    from ultralytics.nn.modules import block, conv, transformer

    def decoded(layer: nn.Module, embed: Tensor, boxes: Tensor, maps: Tensor) -> Any:
        return layer(embed, boxes.abs().clamp(0.05, 0.95), maps, [[5, 7], [3, 4]])

    one = (2, 24, 11, 13)
    return {
        "A2C2f": Block(make=lambda: block.A2C2f(24, 64, 1, True, 4), shapes=((2, 24, 8, 11),)),
        "HGStem": Block(make=lambda: block.HGStem(3, 16, 24), shapes=((2, 3, 45, 37),)),
        "HGBlock": Block(make=lambda: block.HGBlock(24, 12, 40, 5, 2, True), shapes=(one,)),
        "RepC3": Block(make=lambda: block.RepC3(24, 40, 1), shapes=(one,)),
        "GhostConv": Block(make=lambda: conv.GhostConv(24, 40, 3, 2), shapes=(one,)),
        "CBAM": Block(make=lambda: conv.CBAM(24), shapes=(one,)),
        "ADown": Block(make=lambda: block.ADown(24, 40), shapes=(one,)),
        "RepVGGDW": Block(make=lambda: block.RepVGGDW(24), shapes=(one,)),
        "ConvTranspose": Block(make=lambda: conv.ConvTranspose(24, 20), shapes=(one,)),
        "Proto": Block(make=lambda: block.Proto(24, 20, 9), shapes=(one,)),
        "SPPELAN": Block(make=lambda: block.SPPELAN(24, 40, 20), shapes=(one,)),
        "C2fAttn": Block(make=lambda: block.C2fAttn(24, 64, 1, 32, 2, 20), shapes=(one, (2, 6, 20))),
        "BNContrastiveHead": Block(make=lambda: block.BNContrastiveHead(24), shapes=(one, (2, 5, 24))),
        "ImagePoolingAttn": Block(
            make=lambda: block.ImagePoolingAttn(64, (24, 40), 20, 8, 3),
            shapes=((2, 6, 20), one, (2, 40, 6, 7)),
            call=lambda module, text, *maps: module(list(maps), text),
        ),
        "AIFI": Block(make=lambda: transformer.AIFI(64, 264, 4), shapes=((2, 64, 13, 24),)),
        "TransformerLayer": Block(make=lambda: transformer.TransformerLayer(32, 4), shapes=((37, 2, 32),)),
        "DeformableTransformerDecoderLayer": Block(
            make=lambda: transformer.DeformableTransformerDecoderLayer(32, 4, 48, n_levels=2, n_points=2),
            shapes=((2, 9, 32), (2, 9, 4), (2, 47, 32)),
            call=decoded,
        ),
        "MLP": Block(make=lambda: transformer.MLP(32, 48, 7, 3), shapes=((2, 9, 32),)),
        "LayerNorm2d": Block(make=lambda: transformer.LayerNorm2d(24), shapes=(one,)),
        "Resize": Block(make=lambda: nn.Upsample(size=(17, 29), mode="bilinear"), shapes=(one,)),
        "SmoothL1Loss": Block(make=lambda: nn.SmoothL1Loss(reduction="none"), shapes=((9, 4), (9, 4))),
        "HuberLoss": Block(make=nn.HuberLoss, shapes=((9, 4), (9, 4))),
        "MSELoss": Block(make=nn.MSELoss, shapes=((9, 4), (9, 4))),
        "L1Loss": Block(make=nn.L1Loss, shapes=((9, 4), (9, 4))),
        "Embedding": Block(
            make=lambda: nn.Embedding(11, 20),
            shapes=((37,),),
            call=lambda module, x: module((x.detach() * 5 + 5).long()),
        ),
    }
