"""All contact with Hydra: search path, plugins, the grid, and translations of its errors.

`batchlab sweep` is `@hydra.main` with `--multirun`. Our Sweeper composes the whole grid; our default Launcher is for
this machine's supervisor, and launchers of other packages get the points that are left to run. The plugins are
registered at run time: an installed `hydra_plugins` package would change every other Hydra program of the environment.
"""

from batchlab.hydra_app.arguments import own_targets, refuse_options
from batchlab.hydra_app.front import compose, grid_composer, launch, point_task, request

__all__ = ["compose", "grid_composer", "launch", "own_targets", "point_task", "refuse_options", "request"]
