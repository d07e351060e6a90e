"""Begin a training with another model's weights, also where the new network has another form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from jsqa_metric import JSQAModel, load_model
from jsqa_metric.layers import MaskedConvolution
from training.checkpoints import read_model

CONVOLUTIONS, FLATTEN, ATTENTION = "encoder.convolutions.", "encoder.flatten.", "encoder.attention."
"""Where in a model's weights these layers are."""
_WAYS = "'new', 'wider', 'low-rank'"


def begin(model: JSQAModel, start: str | dict[str, Any]) -> None:
    """Take over another model's weights: of a checkpoint, or of what `load_model` gives for these arguments.

    Beside those arguments, `convolutions` says what to take where the two have other ones:

    - "new": all but the convolutions and the layer that flattens them;
    - numbers of some of the other's (`[0, 1, 3]`): these in their place, and of its self-attention layers the first;
    - "wider": all, where no layer has fewer channels than the other's or other strides, nor are there fewer
      self-attention layers. What is new does not yet change what the network says, and has random weights for its input
      to learn from;
    - "low-rank": all, with each kernel where the network has a `LowRankConvolution` as near as its rank allows, of the
      other's self-attention layers the first, and of what is inside their perceptrons that with the largest weights.
      Strides are the other's.

    Raises:
        ValueError: If it is another kind of model, or `convolutions` something else.
    """
    # no weight's shape depends on their values
    changed: dict[str, Any] = {"floor_db": 0, "level_db": 0, "threshold_db": -100, "dropout": 0.0, "hidden": 0}
    changed |= {"window_seconds": 12.0, "revision": ""}
    arguments, chosen = (dict(start), start.get("convolutions")) if isinstance(start, dict) else ({}, None)
    arguments.pop("convolutions", None)
    other = load_model(**arguments) if isinstance(start, dict) else read_model(start)
    taken, wanted = dict(other.state_dict()), model.state_dict()
    if chosen == "new":
        changed |= {"width": 1, "convolutions": ()}
        own = {name: tensor for name, tensor in wanted.items() if name.startswith((CONVOLUTIONS, FLATTEN))}
        taken = {name: tensor for name, tensor in taken.items() if not name.startswith((CONVOLUTIONS, FLATTEN))} | own
    elif isinstance(chosen, list) or chosen in ("wider", "low-rank"):
        changed |= {"width": 1, "convolutions": (), "layers": 0}
        if chosen == "wider":
            taken = _widened(taken, wanted)
        else:
            low_rank = chosen == "low-rank"
            taken = _decomposed(taken, wanted) if low_rank else _renumbered(taken, CONVOLUTIONS, chosen)
            taken = _renumbered(taken, ATTENTION, list(range(model.config.layers)))
            taken = _pruned(taken, wanted) if low_rank else taken
    elif chosen is not None:
        raise ValueError(f"`convolutions` of `start` can be {_WAYS} or numbers of the other's, got {chosen!r}")
    shapes, other_shapes = ({name: t.shape for name, t in tensors.items()} for tensors in (wanted, taken))
    alike = replace(other.config, **changed) == replace(model.config, **changed) and shapes == other_shapes
    if not alike or (chosen in ("wider", "low-rank") and _strides(other) != _strides(model)):
        raise ValueError(f"{start} holds another model, {other.config}, than the recipe's")
    model.load_state_dict(taken)


def _strides(model: JSQAModel) -> list[tuple[int, ...]]:
    return [layer.stride for layer in model.encoder.modules() if isinstance(layer, MaskedConvolution)]


def _renumbered(tensors: dict[str, Tensor], prefix: str, chosen: list[int]) -> dict[str, Tensor]:
    """Of a model's numbered parts under `prefix`, only the chosen ones, in this order; and all that is elsewhere."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    for new, old in enumerate(chosen):
        part = f"{prefix}{old}."
        own = {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
        kept |= {f"{prefix}{new}.{name}": tensor for name, tensor in own.items()}
    return kept


def _widened(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """A model's weights inside those of a wider, deeper one that says the same (Chen et al. 2016, "Net2Net").

    New channels are as in `wanted`, and what comes after has zeros for them; new layers add zeros.
    """
    result = dict(tensors)
    for name, own in wanted.items():
        if name not in tensors and name.startswith(ATTENTION):
            adds = name.split(".", 3)[-1].startswith(("project.", "mlp.3."))
            result[name] = torch.zeros_like(own) if adds else own
        elif name in tensors and all(new >= old for new, old in zip(own.shape, tensors[name].shape, strict=True)):
            rows = tensors[name].shape[:1]
            result[name] = own.clone()
            result[name][tuple(map(slice, rows))] = 0
            result[name][tuple(map(slice, tensors[name].shape))] = tensors[name]
    return result


def _decomposed(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """A model's weights with the kernels that are of low rank in `wanted` as the nearest ones of that rank."""
    result, end = dict(tensors), ".column.weight"
    places = {name: name.removesuffix(end) + ".convolution.weight" for name in wanted if name.endswith(end)}
    for name, place in places.items():
        if place not in tensors or tensors[place].dim() != 4:  # another model, which its shapes will tell
            continue
        kernel, rank = tensors[place], len(wanted[name])
        if name in tensors:  # of low rank already
            kernel = torch.einsum("nrot,rcbo->ncbt", kernel, tensors[name])
        new, channels, bands, times = kernel.shape
        # time goes with the channels that come out, bands with those that go in
        matrix = kernel.permute(0, 3, 1, 2).reshape(new * times, channels * bands)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        root = values[:rank].sqrt()
        result[name] = (root[:, None] * right[:rank]).view(-1, channels, bands, 1)
        result[place] = (left[:, :rank] * root).view(new, times, -1).transpose(1, 2)[:, :, None]
    return result


def _pruned(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """A model's weights with as many features inside each perceptron as in `wanted`, those with the largest weights."""
    result, first, last = dict(tensors), "mlp.0.", "mlp.3."
    for name in (name for name in wanted if name.endswith(first + "weight") and name in tensors):
        place = name.removesuffix(first + "weight")
        into, out_of = tensors[name], tensors[place + last + "weight"]
        by_size = (into.norm(dim=1) * out_of.norm(dim=0)).argsort(descending=True)
        kept = by_size[: len(wanted[name])].sort().values
        result[name], result[place + first + "bias"] = into[kept], tensors[place + first + "bias"][kept]
        result[place + last + "weight"] = out_of[:, kept]
    return result
