"""Every public name has a docstring, with an example that runs."""

import doctest
import inspect

import pytest

import dmg_jax


@pytest.mark.parametrize("name", dmg_jax.__all__)
def test_example(name):
  thing = getattr(dmg_jax, name)
  space = vars(thing) if inspect.ismodule(thing) else {}
  finder = doctest.DocTestFinder(recurse=False)
  (test,) = finder.find(thing, name, globs=dict(space), module=False)
  assert test.examples, f"{name} has no example"
  said = []
  runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
  runner.run(test, out=said.append)
  assert runner.failures == 0, "".join(said)
