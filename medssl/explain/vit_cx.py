"""ViT-CX: which regions cause a class probability (Xie et al., IJCAI 2023, arXiv 2211.03064)."""

from __future__ import annotations

import numpy as np
import torch

from medssl.errors import BundleError
from medssl.explain.causal_masks import DISTANCE_THRESHOLD, MAX_MASKS, causal_masks
from medssl.explain.explainer import EVIDENCE_SPREAD, Explainer, Saliency, View

NOISE_STD = 0.1  # of the Gaussian noise put where a mask removes the image, in normalised pixel units
NOISE_MODES = ("full", "first_order", "none")


class ViTCX(Explainer):
    """The explainer: `ViTCX(backbone, head).explain(image)`; further options of `explain` are those of `saliency`.

    Cost for N masks (10 to 60), beside 1 forward for the feature maps: 2N forwards, as published; memory for one batch
    of forwards and N masks of pixel size. Raises BundleError when head and backbone do not belong together.
    """

    method = "vit_cx"
    title = "ViT-CX"
    paper = "Xie et al., IJCAI 2023, arXiv 2211.03064"

    def saliency(
        self,
        view: View,
        noise: str = "full",
        distance_threshold: float = DISTANCE_THRESHOLD,
        max_masks: int | None = MAX_MASKS,
        batch_size: int | None = None,
        low_precision: bool = True,
    ) -> Saliency:
        """Each pixel: the mean causal impact of the masks, weighted by how much they show of it.

        A mask m's impact is f(x*m + n*(1-m)) - f(x + n*(1-m)) + f(x). `noise` is "full" for just that: the published
        method. "first_order" takes its second term from gradients and "none" leaves it out: cheaper by half, and other
        maps where the model is unsure (docs, explainers). At most `max_masks` masks are made (None: as many as the
        distance threshold gives); whether that bound was met stands in the Explanation's settings, and the precision.
        `batch_size` images are encoded at once, in the backbone's low precision, whose maps agree with the published
        ones as float32's do (docs, explainers), or (`low_precision=False`) in float32. Raises BundleError for a value
        outside these.
        """
        if noise not in NOISE_MODES:
            raise BundleError(f"There is no noise mode {noise!r}. Allowed: {', '.join(NOISE_MODES)}.")
        for name, value in (("max_masks", max_masks), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise BundleError(f"{name} is {value}; allowed: None, or a whole number from 1 on.")
        size = tuple(view.pixels.shape[-2:])
        masks = self.masks(view, distance_threshold, max_masks)
        if not len(masks):
            return Saliency(np.zeros(size, np.float32), 0, 0, False)
        impacts, passes = self.impacts(view, masks, noise, batch_size, low_precision)
        weighted = torch.einsum("n,nhw->hw", impacts, masks)
        values = (weighted / masks.sum(dim=0).clamp(min=1e-8) / len(masks)).numpy()
        evidence = len(masks) > 1 and float(impacts.max() - impacts.min()) >= EVIDENCE_SPREAD
        capped = max_masks is not None and len(masks) >= max_masks
        precision = self.backbone.score_precision if low_precision else "fp32"
        settings = {"noise": noise, "max_masks": max_masks, "capped": capped, "precision": precision}
        return Saliency(values, len(masks), passes, evidence, settings)

    def masks(self, view: View, distance_threshold: float, max_masks: int | None) -> torch.Tensor:
        """The masks `[N, h, w]` to try, from the encoding's feature maps."""
        maps, size = view.encoding.maps[0].permute(2, 0, 1), tuple(view.pixels.shape[-2:])
        return causal_masks(maps, size, distance_threshold, max_masks)

    def impacts(
        self, view: View, masks: torch.Tensor, noise: str, batch_size: int | None, low_precision: bool
    ) -> tuple[torch.Tensor, int]:
        """The causal impact `[N]` of masks `[N, h, w]` on the score, and the forward passes that took."""
        pixels, generator = view.pixels, torch.Generator().manual_seed(view.seed)
        batch = batch_size or self.backbone.batch_size(self.head.preprocess)
        passes, impacts, effect = 0, [], None
        if noise == "first_order":
            drawn = NOISE_STD * torch.randn(pixels.shape, generator=generator)
            effect, passes = self.noise_effect(view, drawn, low_precision), 3
        step = max(1, batch // 2) if noise == "full" else batch
        for start in range(0, len(masks), step):
            mask = masks[start : start + step, None]
            # Drawn mask by mask, so that the batch size has no part in the result.
            drawn = torch.stack([torch.randn(pixels.shape[1:], generator=generator) for _ in mask])
            noised = NOISE_STD * drawn * (1 - mask)
            shown = pixels * mask + noised
            if noise == "full":
                part, noisy = self.scores(view.score, torch.cat([shown, pixels + noised]), batch, low_precision).chunk(
                    2
                )
                part, passes = part - noisy + view.value, passes + 2 * len(mask)
            else:
                part, passes = self.scores(view.score, shown, batch, low_precision), passes + len(mask)
            impacts.append(part)
            view.progress(min(1.0, (start + len(mask)) / len(masks)))
        found = torch.cat(impacts)
        if effect is not None:
            found = found - torch.einsum("nhw,hw->n", (1 - masks) ** 2, effect)
        return found, passes

    def noise_effect(self, view: View, noise: torch.Tensor, low_precision: bool) -> torch.Tensor:
        """What noise at each pixel does to the score on average, `[h, w]`; (1-m)^2 of it is f(x + n*(1-m)) - f(x).

        The first-order term <grad f(x), n*(1-m)> itself has mean zero and would only add its own noise. Between the
        gradients at x + n and x - n that part cancels; what is left, <grad f(x + n) - grad f(x - n), n> / 4, is the
        mean effect of Gaussian noise to second order, pixel by pixel (Hutchinson's estimate of a Hessian's diagonal).
        """
        with torch.inference_mode(False), torch.enable_grad():
            points = torch.cat([view.pixels + noise, view.pixels - noise]).clone().requires_grad_(True)
            value = view.score.values(self.backbone.forward(points, low_precision=low_precision)).sum()
            above, below = torch.autograd.grad(value, points)[0].float().cpu()
        return ((above - below) * noise[0]).sum(dim=0) / 4
