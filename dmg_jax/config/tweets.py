"""Shared config of data sets of pictures with texts.

In addition to the keys of a recipe there are ``encoders=resnet_bert`` (the
default) or ``encoders=clip``, and ``quick=true``: small pictures and small
encoders that are trained from scratch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmg_jax.config import compose
from dmg_jax.errors import InputError, unknown

BERT = "google-bert/bert-base-uncased"
CLIP = "openai/clip-vit-base-patch32"
RESNET = "timm/resnet50.tv_in1k"


def _resnet_bert(config: compose.Config) -> None:
  """ResNet-50 and BERT-base, projected to 256 features each as in AMSS."""
  config.data.update(image_size=224, tokenizer=BERT, max_words=128)
  config.encoders = {
    "image": compose.encoder(
      "resnet.ResNet", depth=50, features=256, pretrained=RESNET
    ),
    "text": compose.encoder("bert.Bert", features=256, pretrained=BERT),
  }


def _clip(config: compose.Config) -> None:
  """CLIP ViT-B/32, both towers."""
  config.data.update(image_size=224, tokenizer=CLIP, max_words=77)
  config.encoders = {
    "image": compose.encoder("clip.ClipVision", pretrained=CLIP),
    "text": compose.encoder("clip.ClipText", pretrained=CLIP),
  }


ENCODERS = {"resnet_bert": _resnet_bert, "clip": _clip}

# Trains on a laptop in minutes; no encoder is downloaded.
QUICK = {
  "data.image_size": 32,
  "data.tokenizer": "",
  "data.max_words": 40,
  "encoders.image": compose.encoder("small.ConvNet", widths=(16, 32, 64)),
  "encoders.text": compose.encoder("small.WordBag", dropout=0.2),
  "optimiser.learning_rate": 1e-3,
  "optimiser.schedule": "cosine",
  "train.epochs": 10,
  "train.batch_size": 64,
}


def get_config(
  name: str,
  load: Callable[..., Any],
  arg: str | None,
  epochs: int,
  max_words: int = 128,
) -> compose.Config:
  """The config of ``<recipe>[,key=value...]`` with the paper's settings.

  Args:
    name: name of the data set.
    load: the ``load`` function of the data set.
    arg: the string after the colon.
    epochs: number of epochs; the paper gives none.
    max_words: word pieces kept of a text, as far as the encoder takes more.
  """
  recipe, given = compose.parse(arg)
  encoders = str(given.get("encoders", "resnet_bert"))
  if encoders not in ENCODERS:
    raise unknown("encoders", encoders, ENCODERS)
  if given.get("quick") is True and "encoders" in given:
    raise InputError("quick=true has its own encoders: remove encoders=...")
  config = compose.base(arg)
  config.data.update(compose.options(load), name=name)
  config.optimiser.update(learning_rate=1e-4, schedule="plateau")
  config.train.update(epochs=epochs, batch_size=128, inner_batch_size=32)
  ENCODERS[encoders](config)
  config.data.max_words = min(config.data.max_words, max_words)
  rest = {k: v for k, v in given.items() if k != "encoders"}
  config = compose.with_recipe(config, compose.RecipeKeys(recipe, rest), QUICK)
  config.variant = str(arg or "")
  return config
