"""An encoder with a linear layer over its embedding, of which some weights are tuned."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from medssl.backbones.backbone import Backbone, blocks
from medssl.backbones.encoding import Encoding
from medssl.data.labelled import Labelled
from medssl.errors import PretrainError
from medssl.heads.fit_linear import choose_linear
from medssl.pretrain.encoder import Encoder
from medssl.pretrain.finetune_recipe import LAST_BLOCKS, LORA, FineTuneRecipe
from medssl.pretrain.schedule import NEVER_DECAYED

TRANSFORMERS = ("vit", "dinov2", "dinov2_with_registers")
CONVOLUTIONAL = ("resnet",)
BELOW_ALL_BLOCKS = ("embeddings.", "embedder.")


def stages_of(model: nn.Module) -> Sequence[nn.Module]:
    """The blocks of a transformer, or the stages of a ResNet, in order. Raises PretrainError for other models."""
    kind = model.config.model_type
    if kind in TRANSFORMERS:
        return blocks(model)
    if kind in CONVOLUTIONAL:
        return model.encoder.stages
    raise PretrainError(
        f"A backbone of the family {kind!r} cannot be fine-tuned here. Allowed: "
        f"{', '.join((*TRANSFORMERS, *CONVOLUTIONAL))}."
    )


@dataclass(frozen=True)
class StartingLayer:
    """Where the linear layer starts: `weight [C, D]` and `bias [C]` on embeddings from which `center [D]` was taken and
    which were divided by `scale [D]`, so that one learning rate suits encoders of any scale.
    """

    weight: np.ndarray
    bias: np.ndarray
    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def fitted(cls, train: Labelled, validation: Labelled, classes: int) -> StartingLayer:
        """The linear head that is fitted on frozen embeddings, see `choose_linear`."""
        weight, bias, _, _ = choose_linear(train, validation, classes)
        center, scale = train.embeddings.mean(axis=0), train.embeddings.std(axis=0)
        scale = np.where(scale > 0, scale, 1)
        return cls(weight * scale, bias + weight @ center, center, scale)


class FineTuned(nn.Module):
    """Logits `[B, C]` of standardized pixels `[B, 3, h, w]`: a linear layer over an encoder's standardized embedding.

    The layer starts as the head that was fitted on the frozen embeddings, so that tuning begins where the frozen
    encoder ends and does not first spoil its features (Kumar et al. 2022, arXiv 2202.10054).
    """

    def __init__(self, backbone: Backbone, pooling: str, start: StartingLayer) -> None:
        super().__init__()
        model = copy.deepcopy(backbone.model).to("cpu").requires_grad_(True)
        self.stages = list(stages_of(model))  # a plain list: the modules belong to the encoder
        self.encoder = Encoder(model, backbone.prefix, backbone.stride or None)
        self.encoder.use_fast_attention()
        self.pooling = pooling
        self.layer = nn.Linear(*reversed(start.weight.shape))
        with torch.no_grad():
            self.layer.weight.copy_(torch.from_numpy(start.weight))
            self.layer.bias.copy_(torch.from_numpy(start.bias))
        for name in ("center", "scale"):
            self.register_buffer(name, torch.from_numpy(getattr(start, name)).float())
        self.adapters: list[PeftModel] = []  # in a list, so that the encoder's weights are not counted twice

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The logits."""
        vector, patches = self.encoder(pixels)
        if patches is not None:
            vector = Encoding(vector, patches.unsqueeze(1)).pool(self.pooling)
        return self.layer((vector - self.center) / self.scale)

    def choose_weights(self, recipe: FineTuneRecipe) -> None:
        """Leave a gradient to the weights that the mode tunes, and put adapters in where it has them.

        Raises PretrainError for a mode that the encoder does not have.
        """
        model = self.encoder.model
        if self.encoder.can_mask:
            model.embeddings.mask_token.requires_grad_(False)
        if recipe.mode == LORA:
            self.adapters.append(with_adapters(model, recipe))
        elif recipe.mode == LAST_BLOCKS:
            if recipe.blocks > len(self.stages):
                raise PretrainError(
                    f"blocks is {recipe.blocks} and the backbone has {len(self.stages)}. Give as many or fewer."
                )
            first = len(self.stages) - recipe.blocks + 1
            depth = self.depths()
            for name, parameter in self.encoder.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and depth[f"encoder.{name}"] >= first)

    def merge(self) -> None:
        """Fold the adapters into the weights they adapt; nothing is done where there are none."""
        while self.adapters:
            self.encoder.model = self.adapters.pop().merge_and_unload()

    def depths(self) -> dict[str, int]:
        """How high each weight lies: 0 below all blocks, i in the i-th block, one more above all of them."""
        of_block = {id(p): number for number, stage in enumerate(self.stages, 1) for p in stage.parameters()}
        top = len(self.stages) + 1
        found = {}
        for name, parameter in self.named_parameters():
            below = name.removeprefix("encoder.model.").startswith(BELOW_ALL_BLOCKS)
            found[name] = of_block.get(id(parameter), 0 if below else top)
        return found

    def parameter_groups(self, recipe: FineTuneRecipe) -> list[dict]:
        """Groups of tuned weights for an optimizer; `scale` is the share of the learning rate that each gets."""
        groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
        depth, top = self.depths(), len(self.stages) + 1
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim > 1 and not any(word in name for word in NEVER_DECAYED)
                groups.setdefault((depth[name], decays), []).append(parameter)
        return [
            {
                "params": parameters,
                "scale": recipe.layer_decay ** (top - level),
                "weight_decay": recipe.weight_decay if decays else 0.0,
            }
            for (level, decays), parameters in groups.items()
        ]

    def train(self, mode: bool = True) -> FineTuned:
        """Training mode, but for batch norms, which keep the statistics of pretraining: batches are small."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def tuned(self) -> dict[str, nn.Parameter]:
        """The weights that are tuned, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def tuned_weights(self) -> dict[str, torch.Tensor]:
        """The weights that are tuned, as copies on the CPU."""
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in self.tuned().items()}

    def put(self, weights: dict[str, torch.Tensor]) -> None:
        """Put tuned weights in their place. Raises PretrainError where one is missing or unknown."""
        own = self.tuned()
        if set(own) != set(weights):
            raise PretrainError("The weights kept are of another mode or backbone. Remove the run's folder.")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(weights[name])


def with_adapters(model: nn.Module, recipe: FineTuneRecipe) -> PeftModel:
    """The model with adapters in every linear layer of its blocks, all else frozen. Raises PretrainError for a ResNet.

    They are put in place: the model itself now runs through them.
    """
    if model.config.model_type not in TRANSFORMERS:
        raise PretrainError(
            f"Adapters are for transformers; a backbone of the family {model.config.model_type!r} has none of their "
            "blocks. Use the mode last-blocks or full."
        )
    inner = {id(module) for block in blocks(model) for module in block.modules() if isinstance(module, nn.Linear)}
    names = [name for name, module in model.named_modules() if id(module) in inner]
    config = LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, lora_dropout=0.0, target_modules=names)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        torch.manual_seed(recipe.seed)
        return get_peft_model(model, config)
