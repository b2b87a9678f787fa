"""Views: random crops of the same image, whose other changes suit the task, as batched tensor operations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import affine_grid, avg_pool2d, conv2d, grid_sample, pad

GRAY = (0.299, 0.587, 0.114)
BLUR_RADIUS = 3  # pixels


@dataclass(frozen=True)
class ViewPolicy:
    """What a view may change without changing the diagnosis.

    `rotation` is the largest angle in degrees; `brightness`, `contrast`, `saturation` are the largest relative changes,
    `hue` the largest turn in radians; `gray` and `blur` are probabilities; `noise` is the largest deviation (0 to 1).
    """

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = 15.0
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.1
    hue: float = 0.0
    gray: float = 0.0
    blur: float = 0.3
    noise: float = 0.02


# In stains colour is part of the diagnosis: it is varied only as much as one laboratory's batches differ.
STAIN = ViewPolicy(vertical_flip=True, rotation=180.0, brightness=0.15, contrast=0.15, saturation=0.1, hue=0.05)
POLICIES: dict[str, ViewPolicy] = {
    "default": ViewPolicy(),
    "lung": STAIN,
    "leukaemia": STAIN,
    # A slice has no colour, and its brightness is a matter of the scanner.
    "brain": ViewPolicy(rotation=20.0, brightness=0.4, contrast=0.4, saturation=0.0),
    # The left eye is the right one mirrored; up and down differ.
    "eye": ViewPolicy(rotation=30.0, brightness=0.2, contrast=0.2, saturation=0.1, hue=0.05),
    # What SimCLR does to photographs (Chen et al. 2020), for comparison: it teaches that colour means nothing.
    "photograph": ViewPolicy(
        rotation=0.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.6, gray=0.2, blur=0.5, noise=0.0
    ),
}
FIELDS = (*ViewPolicy.__dataclass_fields__,)


def policy_table(names: list[str]) -> torch.Tensor:
    """The policies of those names as numbers, float32 `[len(names), fields]` in the order of ViewPolicy."""
    return torch.tensor([[float(getattr(POLICIES[name], field)) for field in FIELDS] for name in names])


@dataclass(frozen=True)
class Crops:
    """How one kind of view is cut: its side in pixels, the share of the image's area, and how many of each image."""

    side: int
    scale: tuple[float, float]
    count: int


def crop_views(images: torch.Tensor, policies: torch.Tensor, crops: Crops, generator: torch.Generator) -> torch.Tensor:
    """Views `[count * B, 3, side, side]` in 0 to 1 of uint8 images `[B, 3, S, S]`; the first B are each image's first.

    `policies [B, fields]` holds each image's own policy. `generator` lives on the CPU, so that a seed means the same
    views on every device.
    """
    table = policies.repeat(crops.count, 1)
    draw = draws_of(torch.rand(len(table), len(DRAWS), generator=generator))
    policy = dict(zip(FIELDS, table.unbind(1), strict=True))
    theta = sampling_matrices(draw, policy, crops.scale)
    pixels = images.to(torch.float32).div_(255)
    views = torch.cat([sample_floats(pixels, part, crops.side) for part in theta.chunk(crops.count)])
    return recolor(blurred(views, draw, policy), draw, policy, generator)


def draws_of(drawn: torch.Tensor) -> dict[str, torch.Tensor]:
    """Uniform numbers `[N, draws]` by what they decide, each `[N]`."""
    return dict(zip(DRAWS, drawn.unbind(1), strict=True))


def sample(images: torch.Tensor, theta: torch.Tensor, side: int) -> torch.Tensor:
    """Views `[N, 3, side, side]` in 0 to 1 of uint8 images `[N, 3, S, S]`, by affine maps `[N, 2, 3]`.

    Where the images are much larger than the views, several points of each pixel are averaged.
    """
    points = max(1, round(images.shape[-1] / side))
    views = sample_floats(images.to(torch.float32).div_(255), theta, side * points)
    return avg_pool2d(views, points) if points > 1 else views


def sample_floats(pixels: torch.Tensor, theta: torch.Tensor, side: int) -> torch.Tensor:
    """Points `[N, 3, side, side]` of pixels `[N, 3, S, S]`, by affine maps `[N, 2, 3]`; borders are mirrored."""
    places = affine_grid(theta.to(pixels.device), [len(pixels), 3, side, side], align_corners=False)
    return grid_sample(pixels, places, padding_mode="reflection", align_corners=False)


DRAWS = (
    "area ratio top left horizontal vertical rotation brightness contrast saturation hue gray blur sigma noise"
).split()


def sampling_matrices(
    draw: dict[str, torch.Tensor], policy: dict[str, torch.Tensor], scale: tuple[float, float]
) -> torch.Tensor:
    """The affine maps `[N, 2, 3]` from a view's coordinates (-1 to 1) to its image's: crop, flips and rotation.

    Crops are those of Inception: an area drawn uniformly from `scale`, an aspect ratio from 3/4 to 4/3.
    """
    area = scale[0] + (scale[1] - scale[0]) * draw["area"]
    ratio = torch.exp((2 * draw["ratio"] - 1) * math.log(4 / 3) / 2)
    width, height = (area.sqrt() * ratio).clamp(max=1), (area.sqrt() / ratio).clamp(max=1)
    x, y = (2 * draw["left"] - 1) * (1 - width), (2 * draw["top"] - 1) * (1 - height)
    mirror_x = 1 - 2 * ((draw["horizontal"] < 0.5) & (policy["horizontal_flip"] > 0)).float()
    mirror_y = 1 - 2 * ((draw["vertical"] < 0.5) & (policy["vertical_flip"] > 0)).float()
    angle = (2 * draw["rotation"] - 1) * policy["rotation"] * math.pi / 180
    cos, sin = angle.cos(), angle.sin()
    first = torch.stack([width * cos * mirror_x, -width * sin * mirror_y, x], 1)
    second = torch.stack([height * sin * mirror_x, height * cos * mirror_y, y], 1)
    return torch.stack([first, second], 1)


def blurred(views: torch.Tensor, draw: dict[str, torch.Tensor], policy: dict[str, torch.Tensor]) -> torch.Tensor:
    """A share of the views `[N, 3, s, s]` through a Gaussian of 0.3 to 1.5 pixels."""
    chosen = (draw["blur"] < policy["blur"]).nonzero()[:, 0]
    if not len(chosen):
        return views
    sigma = 0.3 + 1.2 * draw["sigma"][chosen]
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets[None] ** 2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0).to(views.device)
    side = views.shape[-1]
    flat = views[chosen.to(views.device)].reshape(1, -1, side, side)
    flat = pad(flat, [BLUR_RADIUS] * 4, mode="reflect")
    flat = conv2d(flat, kernel[:, None, :, None], groups=flat.shape[1])
    flat = conv2d(flat, kernel[:, None, None, :], groups=flat.shape[1])
    return views.index_copy(0, chosen.to(views.device), flat.view(len(chosen), 3, side, side))


def recolor(
    views: torch.Tensor,
    draw: dict[str, torch.Tensor],
    policy: dict[str, torch.Tensor],
    generator: torch.Generator,
) -> torch.Tensor:
    """Brightness, contrast, saturation, hue, grey and noise, each view `[3, s, s]` by its own policy and draws."""

    def factor(name: str) -> torch.Tensor:
        return (1 + (2 * draw[name] - 1) * policy[name]).to(views.device).view(-1, 1, 1, 1)

    weights = torch.tensor(GRAY, device=views.device).view(1, 3, 1, 1)
    views = views * factor("brightness")
    mean = (views * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    views = mean + (views - mean) * factor("contrast")
    saturation = factor("saturation")
    saturation[(draw["gray"] < policy["gray"]).to(views.device)] = 0
    turn = (2 * draw["hue"] - 1) * policy["hue"]
    matrix = color_matrices(saturation.view(-1).cpu(), turn).to(views.device)
    views = torch.einsum("nij,njhw->nihw", matrix, views)
    deviation = (draw["noise"] * policy["noise"]).to(views.device).view(-1, 1, 1, 1)
    grain = torch.randn(views.shape[0], 1, *views.shape[2:], generator=generator).to(views.device)
    return (views + deviation * grain).clamp_(0, 1)


def color_matrices(saturation: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """`[N, 3, 3]` matrices that scale the chroma of RGB by `saturation [N]` and turn it by `turn [N]` radians.

    Chroma is the plane across the grey axis (Haeberli 1993), so that grey stays grey.
    """
    cos, sin = turn.cos().view(-1, 1, 1), turn.sin().view(-1, 1, 1)
    gray = torch.tensor(GRAY).expand(3, 3)
    axis = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    chroma = torch.eye(3) - gray
    thirds = torch.full((3, 3), 1 / 3)
    rotated = cos * torch.eye(3) + (1 - cos) * thirds + sin * axis
    return gray + saturation.view(-1, 1, 1) * rotated @ chroma
