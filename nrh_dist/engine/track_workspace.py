"""A W&B workspace as code: the panels that matter for a sweep, its trials and their evaluations."""

import json
import os
from pathlib import Path
from typing import Any

from nrh_dist.engine.files import write_text
from nrh_dist.engine.progress import Say
from nrh_dist.engine.track import has_key
from nrh_dist.errors import UserError

METRIC = "val/mse"
# Where no sweep tells: the keys, and whether their axis is logarithmic.
SEARCHED = {"model.fusion_width": False, "model.freeze": False, "optim.lr": True}


def write(project: str, sweep: Path | None, say: Say) -> None:
    """Save the workspace of ``[ENTITY/]PROJECT`` at W&B; without a key, into a JSON file of the working folder.

    Its parallel coordinates are those of the ``sweep`` folder's searched keys. ``UserError`` where that is none, or the
    package wandb-workspaces is missing or W&B refuses.
    """
    entity, _, name = project.rpartition("/")
    keys, metric = _searched(sweep)
    made = workspace(entity or os.environ.get("WANDB_ENTITY", ""), name, keys, metric)
    if not has_key():
        path = Path(f"{name}-workspace.json")
        write_text(path, made._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n")
        say(f"no W&B key (wandb login, or WANDB_API_KEY), so the workspace of {name} is not saved there but in {path}")
        return
    try:
        if not made.entity:
            import wandb

            made.entity = wandb.Api().default_entity
        made.save()
    except Exception as error:  # the SDK raises many kinds
        raise UserError(f"W&B did not save the workspace of {project}: {str(error).splitlines()[0][:200]}") from None
    say(f"saved {made.url}")


def workspace(entity: str, project: str, keys: dict[str, bool], metric: str) -> Any:
    """The workspace of ``project``, for searched ``keys`` (True: on a logarithmic axis) and the trials' ``metric``."""
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2
    except ImportError:
        raise UserError("a workspace needs the package wandb-workspaces: pip install 'nrh_dist[wandb]'") from None

    column = v2.ParallelCoordinatesPlotColumn
    axes = [column(metric=v2.Config(key), display_name=key, log=is_log) for key, is_log in keys.items()]
    sizes = v2.CustomChart.from_table("size_bins", {"label": "bin", "value": "mse"}, {"title": "MSE by size of object"})
    sizes.chart_name = "wandb/bar/v0"
    sections: dict[str, list[Any]] = {
        "Trials": [
            v2.LinePlot(title=f"{metric} by trial", x="epoch", y=[metric]),
            v2.LinePlot(title="loss", x="epoch", y=["train/loss", "val/loss"]),
        ],
        "Search": [
            v2.ParallelCoordinatesPlot(title=metric, columns=[*axes, column(metric=v2.SummaryMetric(metric))]),
            v2.ParameterImportancePlot(with_respect_to=metric),
        ],
        "Samples": [v2.MediaBrowser(media_keys=["samples"], grid_x_axis="step", grid_y_axis="run")],
        "Evaluations": [sizes, v2.WeavePanelSummaryTable(table_name="per_image")],
    }
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="Sweeps and evaluations",
        sections=[workspaces.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        settings=workspaces.WorkspaceSettings(x_axis="epoch"),
    )


def _searched(sweep: Path | None) -> tuple[dict[str, bool], str]:
    """The searched keys of a sweep folder, and the metric that its best trial goes by."""
    if sweep is None:
        return SEARCHED, METRIC
    try:
        told = json.loads((sweep / "sweep.json").read_text())
        return {key: "loguniform" in values for key, values in told["space"].items()}, told["metrics"][0]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise UserError(f"{sweep} is no sweep: it holds no readable sweep.json of nrh tune") from None
