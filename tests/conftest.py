"""Every test: float64, strict shapes, warnings are errors, 8 CPU devices."""

import jax
import jaxtyping

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Annotations of the package are checked while the tests run, and only then.
jaxtyping.install_import_hook("dmg_jax", "typecheck.check")
