"""The fields that every config has, and their defaults."""

from __future__ import annotations

from typing import Any

from ml_collections import config_dict

DEFAULTS: dict[str, Any] = {
  "recipe": "",
  "variant": "",  # All that follows the colon; names the run's folder.
  "seed": 0,
  "seeds": 1,
  # Of what encoders compute: "float32" or "bf16"; see
  # dmg_jax/model/precision.py.
  "precision": "float32",
  # Compute activations anew for the gradient instead of keeping them.
  "remat": False,
  # Weights and moments on several devices: "replicated", or "fsdp", which
  # divides them; see dmg_jax/training/sharding.py.
  "sharding": "replicated",
  "vmap_seeds": "off",  # Or "on", "auto"; see dmg_jax/training/seeds.py.
  "report": "on",  # Or "off": no page and pictures at the end.
  "data": {
    "name": "",
    "dir": "data",
    # Modalities hidden at random: "image:0.5+text:0.3"; in some splits only:
    # "train+outer"; see data_pipelines/core/hidden.py.
    "drop": "",
    "drop_seed": 0,
    "drop_splits": "",
  },
  "loader": {"resident": "auto", "workers": -1},
  "encoders": {},
  "fusion": {"name": "concat"},
  "method": {},
  "optimiser": {
    "name": "adam",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup_epochs": 0,
    # Read by schedule "step" alone: after these epochs the rate is multiplied
    # by the factor. (70,) is torch's StepLR(70) in a run of 100 epochs.
    "step": {"epochs": (), "factor": 0.1},
    # Read by schedule "plateau" alone.
    "plateau": {"factor": 0.1, "patience": 11, "threshold": 1e-4},
    "momentum": 0.9,
    "weight_decay": 0.0,
    "clip_norm": config_dict.placeholder(float),
  },
  "train": {
    "epochs": 30,
    "batch_size": 64,
    # Parts of a batch that are in memory one after another; see
    # dmg_jax/training/inputs/accumulate.py.
    "accumulate": 1,
    # Steps that the device does in one call, without the host in between.
    "steps_per_execution": 1,
    # Outer step: samples of the training batch, and held-out samples.
    "inner_batch_size": 64,
    "outer_batch_size": 256,
    # Factor of each class in the cross-entropies: "", "balanced" or a table,
    # "cat=1,dog=2.5"; see dmg_jax/config/class_weights.py.
    "class_weights": "",
    # How an epoch's samples are drawn: "shuffle" takes each once, "balanced"
    # takes all classes equally often, with replacement.
    "sampler": "shuffle",
    # Chance in [0, 1) to hide each modality of a training sample (ModDrop);
    # see dmg_jax/training/inputs/modality_dropout.py.
    "modality_dropout": 0.0,
    "select": "best",  # Or "last".
    # Score of the fused prediction on val that "best" goes by: accuracy,
    # balanced_accuracy, macro_f1, map or loss.
    "select_by": "accuracy",
    "checkpoint_steps": 0,
    "keep": (),  # Epochs whose checkpoint is not deleted.
    "log_steps": 10,
  },
  "eval": {
    "batch_size": 256,
    "split": "test",
    "test": True,
    # Mode predict: new samples instead of the split; the file to write.
    "manifest": "",
    "output": "",
  },
  "track": "",
}
