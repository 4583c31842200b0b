"""Fronts -> positions along the flow, change, rates, seasons, regional trends, and fronts that time makes doubtful."""

from calfin_cloud.domains import length_scale
from calfin_cloud.timeseries.breaks import break_points
from calfin_cloud.timeseries.courses import ORIGINS, Course, course_of
from calfin_cloud.timeseries.gates import (
    Gate,
    derive_gate,
    flow_axis,
    gate_along,
    gate_around,
    gate_of,
    ice_behind,
    seaward_of,
    swept_m,
)
from calfin_cloud.timeseries.plausibility import check_fjord, check_series, flag_fronts
from calfin_cloud.timeseries.positions import BOX, POSITION_COLUMNS, box_position, crossing, measure_positions
from calfin_cloud.timeseries.regions import regional_change
from calfin_cloud.timeseries.streams import read_velocity, stream_line
from calfin_cloud.timeseries.trends import (
    monthly_follow,
    monthly_grid,
    rates,
    relative_change,
    season_of,
    seasonal_cycle,
    yearly_positions,
)

__all__ = [
    "BOX",
    "ORIGINS",
    "POSITION_COLUMNS",
    "Course",
    "Gate",
    "box_position",
    "break_points",
    "check_fjord",
    "check_series",
    "course_of",
    "crossing",
    "derive_gate",
    "flag_fronts",
    "flow_axis",
    "gate_along",
    "gate_around",
    "gate_of",
    "ice_behind",
    "length_scale",
    "measure_positions",
    "monthly_follow",
    "monthly_grid",
    "rates",
    "read_velocity",
    "regional_change",
    "relative_change",
    "season_of",
    "seasonal_cycle",
    "seaward_of",
    "stream_line",
    "swept_m",
    "yearly_positions",
]
