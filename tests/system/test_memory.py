"""After the start the only weights on the devices are the state's."""

import gc

import jax

from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment
from dmg_jax.training.loop import Trainer

# Sizes that nothing else has.
FIELDS = {
  "encoders.image.widths": (24,),
  "encoders.image.features": 13,
  "encoders.text.features": 13,
  "encoders.text.width": 17,
}


def test_no_copy_of_the_weights(tiny, tmp_path):
  before = {id(x) for x in jax.live_arrays()}
  setup = experiment.assemble(tiny("joint", FIELDS))
  trainer = Trainer([setup], Console(quiet=True))
  state = trainer.open([tmp_path], 0)
  gc.collect()
  own = {id(x) for x in jax.tree.leaves(state)}
  shapes = {x.shape for x in jax.tree.leaves(state.params)}
  made = [x for x in jax.live_arrays() if id(x) not in before]
  copies = [x.shape for x in made if x.shape in shapes and id(x) not in own]
  trainer.close()
  assert shapes and not copies


def test_the_same_first_weights_each_time(tiny):
  setup = experiment.assemble(tiny("joint", FIELDS))
  one, two = (jax.device_get(setup.fresh()) for _ in range(2))
  same = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), one, two)
  assert jax.tree.all(same)
