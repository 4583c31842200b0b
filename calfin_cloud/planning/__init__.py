"""What a run will take, before it runs: its scenes are counted, a few are mapped, the rest is told from those."""

from calfin_cloud.planning.plans import Plan, Prices, plan_run

__all__ = ["Plan", "Prices", "plan_run"]
