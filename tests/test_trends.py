"""Rates, years, seasons and regions: on cases worked out by hand, in simulations, and on real series."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calfin_cloud.products import read_product
from calfin_cloud.results import measure_series, read_lines
from calfin_cloud.results.series import gates_table, glacier_gate, regions_of
from calfin_cloud.timeseries import (
    break_points,
    measure_positions,
    monthly_grid,
    rates,
    regional_change,
    seasonal_cycle,
    yearly_positions,
)
from calfin_cloud.timeseries.breaks import breaks_of
from calfin_cloud.timeseries.bridging import years_of
from calfin_cloud.timeseries.processes import Asked, History, _prior_variance

WIDTH = 5000.0


def series(values, dates, *, glacier="g", sigma=10.0):
    values = np.asarray(values, dtype=float)
    return pd.DataFrame(
        {"key": [f"{glacier}/{i}" for i in range(len(values))], "glacier_id": glacier, "branch": "box",
         "datetime": pd.DatetimeIndex(dates, tz="UTC"), "position_m": values, "sigma_m": sigma,
         "area_m2": values * WIDTH}
    )  # fmt: skip


def wander(years, memory, size, rng):
    """A course whose correlation fades with time, of standard deviation `size`."""
    made = rng.normal(size=len(years)) * size
    for i in range(1, len(years)):
        kept = np.exp(-(years[i] - years[i - 1]) / memory)
        made[i] = kept * made[i - 1] + np.sqrt(1 - kept**2) * made[i]
    return made


def holds(told, sigma, truth):
    """Share of 95 % intervals that hold the truth."""
    return float((np.abs(np.asarray(told) - truth) < 1.96 * np.asarray(sigma)).mean())


def test_what_is_known_beforehand_of_a_sum_is_that_of_all_its_pairs_of_times():
    rng = np.random.default_rng(1)
    times, weights = rng.uniform(0, 9, 30), rng.normal(0, 1, (4, 30))
    memory = np.array([0.01, 1.0, 50.0])
    lags = np.abs(times[:, None] - times)
    pairs = [np.diag(weights @ np.exp(-lags / value) @ weights.T) for value in memory]
    np.testing.assert_allclose(_prior_variance(Asked(times, weights, np.zeros((4, 2))), memory), pairs)


def test_the_rate_of_a_steady_retreat_is_that_retreat_and_its_error_is_that_of_its_fronts():
    dates = pd.date_range("2010-01-01", periods=11, freq="365D")
    years = np.arange(11) * 365 / 365.25
    rate = rates(series(1000 - 50 * years, dates, sigma=30.0)).iloc[0]
    assert rate["rate_m_a"] == pytest.approx(-50)
    of_fronts = 30 / np.sqrt(((years - years.mean()) ** 2).sum())
    assert 0.95 * of_fronts < rate["rate_sigma_m_a"] < 1.8 * of_fronts


@pytest.mark.parametrize("apart", ["0s", "1ms", "24s"])
def test_scenes_of_one_pass_are_one_witness_of_rates_years_and_seasons(apart):
    dates = pd.date_range("2015-01-01", periods=14, freq="60D")
    once = series(5000 - 8 * np.arange(14) + np.random.default_rng(2).normal(size=14) * 30, dates, sigma=np.nan)
    twice = pd.concat([once, once.assign(key=once["key"] + "b", datetime=once["datetime"] + pd.Timedelta(apart))])
    counts = ["n", "first", "last"]
    for measure in (rates, yearly_positions, seasonal_cycle):
        alone, both = (measure(positions).drop(columns=counts, errors="ignore") for positions in (once, twice))
        pd.testing.assert_frame_equal(both, alone)
    alone, both = (regional_change(positions, {}).drop(columns="n") for positions in (once, twice))
    pd.testing.assert_frame_equal(both, alone)


@pytest.mark.parametrize(
    ("years", "memory"),
    [(np.linspace(0, 2.58, 159), 0.26), (np.arange(12.0), 2.0), (np.linspace(0, 20, 60), 1.0)],
    ids=["159 fronts in three years", "twelve winters", "60 fronts in twenty years"],
)
def test_the_rate_of_a_correlated_series_is_in_its_interval_as_often_as_it_says(years, memory):
    rng = np.random.default_rng(0)
    dates = pd.Timestamp("2005-01-01") + pd.to_timedelta(years * 365.25, unit="D")
    found = []
    for _ in range(150):
        values = wander(years, memory, 300, rng) + rng.normal(size=len(years)) * 30 - 100 * years
        found.append(rates(series(values, dates, sigma=np.nan)).iloc[0])
    found = pd.DataFrame(found)
    inside = (found["rate_low_m_a"] < -100) & (found["rate_high_m_a"] > -100)
    assert 0.93 - 0.015 < inside.mean() < 0.98 + 0.015  # 0.015: about the standard deviation of a share of 150


def test_the_rate_of_harald_moltke_is_as_unsure_as_its_five_independent_fronts(shared):
    fronts = read_product(shared / "data" / "harald_moltke" / "derived_fronts_2019-2021.parquet")
    rate = rates(_moltke(shared, fronts)).set_index("branch").loc["box"]
    assert rate["rate_m_a"] == pytest.approx(-759, abs=120)
    assert 50 < rate["rate_sigma_m_a"] < 160  # 13 m/a if all 159 fronts were independent


def _moltke(shared, fronts):
    folder = shared / "data"
    box = folder / "harald_moltke" / "box" / "harald_moltke_brae.shp"
    basins = folder / "greenland_basins_icemask" / "greenland_basins_polarstereo.shp"
    return measure_series(fronts, read_lines(None, fronts, boxes=str(box), ice=str(basins))).positions


def test_one_front_has_a_position_but_no_rate_and_three_no_error():
    one = rates(series([5.0, 7.0], ["2020-01-01"] * 2))
    assert one[["rate_m_a", "change_m", "change_sigma_m"]].isna().all(axis=None)
    three = rates(series([5.0, 4, 3], ["2020-01-01", "2021-01-01", "2022-01-01"])).iloc[0]
    assert three["rate_m_a"] == pytest.approx(-1, rel=0.01)
    assert np.isnan(three["rate_sigma_m_a"])


def test_the_change_of_a_series_is_the_one_observed_from_its_first_front_to_its_last():
    values = [0.0, -900, -1000, -1000, -1000, -1000, -1000]  # a straight line through them falls by 700 m
    dates = pd.date_range("2010-01-01", periods=7, freq="365D")
    change = rates(series(values, dates, sigma=12.0)).iloc[0]
    assert change["change_m"] == -1000
    assert change["change_sigma_m"] == pytest.approx(12 * np.sqrt(2))


def test_a_year_seen_in_its_retreated_months_only_is_not_covered():
    dates = pd.DatetimeIndex(["2018-08-05", "2018-08-25", "2018-09-20", "2019-08-05", "2019-09-01", "2019-09-20"])
    yearly = yearly_positions(series(-200.0 - np.arange(6), dates))
    assert yearly["reason"].tolist() == ["not_covered"] * 2
    assert yearly[["position_m", "sigma_m", "rate_m", "rate_sigma_m"]].isna().all(axis=None)
    assert yearly["n"].tolist() == [3, 3]
    assert yearly["months"].tolist() == [2, 2]


def test_means_of_years_hold_the_truth_even_of_years_seen_in_two_months_and_so_does_the_mean_year():
    rng = np.random.default_rng(2)
    days = pd.date_range("2010-01-01", "2017-12-31", freq="5D")
    when = years_of(days)
    found, errors, months = [], [], []
    for _ in range(25):
        summer = -300 * np.maximum(np.sin(2 * np.pi * (when - 0.3)), -0.3)
        true = pd.Series(wander(when, 0.8, 200, rng) - 100 * when + summer)
        seen = rng.random(len(days)) < 0.15
        in_summer = days.month.isin([8, 9])
        seen &= in_summer | ~days.year.isin([2013, 2016])
        seen[np.flatnonzero(in_summer & days.year.isin([2013, 2016]))[[2, 8, 14, 20]]] = True
        table = series(true[seen] + rng.normal(size=seen.sum()) * 40, days[seen], sigma=40.0)
        years = yearly_positions(table).set_index("year")
        found.append((years["position_m"] - true.groupby(days.year).mean()) / years["sigma_m"])
        errors.append(years["sigma_m"])
        deviation = (true - true.rolling(73, center=True).mean()).groupby(days.month).mean()
        cycle = seasonal_cycle(table).set_index("month")
        months.append((cycle["deviation_m"] - deviation) / cycle["sigma_m"])
    found, errors, months = (pd.DataFrame(part) for part in (found, errors, months))
    assert 0.9 < holds(found, 1, 0) < 0.99
    assert 0.88 < holds(found[[2013, 2016]], 1, 0) <= 1
    assert errors[[2013, 2016]].mean().min() > 1.5 * errors[[2012, 2015]].mean().max()
    assert 0.9 < holds(months, 1, 0) < 0.995


def test_the_change_between_years_is_told_only_for_years_that_follow_each_other():
    dates = pd.date_range("2017-01-10", "2020-12-20", freq="20D")
    dates = dates[dates.year != 2019]
    yearly = yearly_positions(series(-100 * years_of(dates), dates, sigma=6.0)).set_index("year")
    assert yearly.loc[2018, "rate_m"] == pytest.approx(-100, abs=8)
    assert np.isnan(yearly.loc[2020, "rate_m"])


def test_the_mean_year_of_a_series_is_found_under_its_trend():
    dates = pd.date_range("2015-01-15", "2019-12-31", freq="15D")
    year = (dates.dayofyear / 365.25).to_numpy()
    values = -200 * np.arange(len(dates)) * 15 / 365.25 + 100 * np.cos(2 * np.pi * year)
    season = seasonal_cycle(series(values, dates)).set_index("month")["deviation_m"]
    assert season[1] == pytest.approx(95, abs=12)
    assert season[7] == pytest.approx(-100, abs=12)
    rate = rates(series(values, dates)).iloc[0]
    assert rate["seasonal_m"] == pytest.approx(200, abs=5)
    assert rate["seasonal_sigma_m"] < 20


def test_fronts_of_winters_tell_no_season():
    dates = pd.date_range("2009-02-01", periods=14, freq="365D")
    assert seasonal_cycle(series(np.arange(14.0), dates)).empty
    assert np.isnan(rates(series(np.arange(14.0), dates)).iloc[0]["seasonal_m"])


def test_months_are_interpolated_between_fronts_never_beyond_them_and_less_surely_in_gaps():
    dates = pd.DatetimeIndex(["2020-01-11", "2020-03-11", "2020-05-11", "2020-07-11", "2023-07-11", "2023-09-11"])
    monthly = monthly_grid(series([100, 160, 90, 200, 0, 30], dates, sigma=5.0)).set_index("month")
    assert monthly.index[0] == pd.Timestamp("2020-02-01", tz="UTC")
    assert monthly["position_m"].iloc[0] == pytest.approx(100 + 60 * 21 / 60)
    assert monthly.index[-1] == pd.Timestamp("2023-09-01", tz="UTC")
    assert monthly["position_m"].notna().all()
    sigma = monthly["sigma_m"]
    assert sigma[pd.Timestamp("2022-01-01", tz="UTC")] > 1.1 * sigma[pd.Timestamp("2020-04-01", tz="UTC")] > 5
    assert monthly.loc[pd.Timestamp("2022-01-01", tz="UTC"), "days"] == pytest.approx(539, abs=1)


def end_of(table, region="all"):
    return table[table["region"] == region].iloc[-1]


def test_what_is_lost_in_a_gap_of_three_years_is_part_of_the_regional_mean():
    dates = ["2010-01-01", "2011-01-01", "2014-01-01", "2015-01-01"]
    lost = series([25_000, 25_000, 0, 0], dates, glacier="a")
    still = series([0.0] * 4, dates, glacier="b")
    table = regional_change(pd.concat([lost, still]), {"a": "NW", "b": "NW"})
    for region in ("NW", "all"):
        assert end_of(table, region)["change_m"] == pytest.approx(-12_500)
        assert end_of(table, region)["area_change_m2"] == pytest.approx(-25_000 * WIDTH)
    nw = table[table["region"] == "NW"]
    in_gap = nw[(nw["month"] > "2011-02-01") & (nw["month"] < "2013-12-01")]
    assert np.allclose(in_gap["change_m"].diff().dropna(), -12_500 / 36, rtol=0.11)


glaciers = st.lists(
    st.tuples(
        st.lists(st.floats(1, 40_000), min_size=2, max_size=6),
        st.floats(0, 400),
    ),
    min_size=1,
    max_size=5,
)


@given(glaciers)
@settings(max_examples=25, deadline=None)
def test_areas_sum_to_what_glaciers_changed_from_first_to_last_and_means_too_where_all_are_covered(drawn):
    together, apart = [], []
    for number, (values, late) in enumerate(drawn):
        inner = pd.Timestamp("2012-03-07") + pd.to_timedelta(np.linspace(0, 1500, len(values)), unit="D")
        together.append(series(values, inner, glacier=str(number)))
        apart.append(series(values, inner + pd.Timedelta(days=late), glacier=str(number)))
    total = sum(values[-1] - values[0] for values, _ in drawn)
    for tables in (together, apart):
        told = end_of(regional_change(pd.concat(tables), {}))
        widths = sum(t["area_m2"].iloc[-1] - t["area_m2"].iloc[0] for t in tables if (t["area_m2"] > 0).any())
        assert told["area_change_m2"] == pytest.approx(widths, abs=1.0)
    assert end_of(regional_change(pd.concat(together), {}))["change_m"] == pytest.approx(total / len(drawn), abs=0.01)


def test_regions_of_glaciers_with_one_front_each_have_no_month():
    alone = series([500], ["2015-06-01"], glacier="a")
    assert regional_change(alone, {"a": "NW"}).empty
    moved = series([0, -100], ["2014-01-01", "2016-01-01"], glacier="b")
    table = regional_change(pd.concat([alone, moved]), {"a": "NW", "b": "NE"})
    assert set(table["region"]) == {"NE", "all"}
    assert end_of(table)["change_m"] == pytest.approx(-100, abs=0.01)


def test_a_region_of_one_glacier_has_on_each_day_what_its_monthly_grid_has():
    alone = series([0, -1000, -1300], ["2010-01-01", "2011-01-16", "2011-12-31"])
    told = regional_change(alone, {}).set_index("month")["change_m"]
    monthly = monthly_grid(alone).set_index("month")["position_m"]
    assert told.index[[0, -1]].strftime("%Y-%m-%d").tolist() == ["2010-02-01", "2012-01-01"]
    assert told[monthly.index[1:]].to_numpy() == pytest.approx(monthly.to_numpy()[1:])


def test_glaciers_enter_and_leave_without_a_jump():
    early = series([0, -1000], ["2010-01-01", "2015-01-01"], glacier="a")
    late = series([9000, 8800], ["2014-01-01", "2016-01-01"], glacier="b")
    table = regional_change(pd.concat([early, late]), {"a": "NW", "b": "NW"})
    nw = table[table["region"] == "NW"].set_index("month")
    assert nw["n"].tolist() == [1] * 48 + [2] * 12 + [1] * 12
    monthly = nw["change_m"].diff().dropna()
    assert monthly.between(-18, -7).all()
    assert nw["change_m"].iloc[-1] == pytest.approx(-800 - 0.5 * (200 + 100) - 100, abs=2)


def test_the_error_of_a_regional_mean_holds_the_truth_of_its_glaciers():
    rng = np.random.default_rng(4)
    days = pd.date_range("2010-01-01", "2018-01-01", freq="10D")
    when, inside, of_area = years_of(days), [], []
    for _ in range(60):
        tables, truth = [], []
        for glacier in range(4):
            course = 5000 + wander(when, 2.0, 300, rng) - 80 * when
            seen = np.unique(np.r_[0, rng.choice(len(days), 20, replace=False), len(days) - 1])
            values = course[seen] + rng.normal(size=len(seen)) * 30
            tables.append(series(values, days[seen], glacier=str(glacier), sigma=30.0))
            truth.append(course - course[0])
        table = regional_change(pd.concat(tables), {}).iloc[5:-2:9]
        ends = years_of(table["month"].dt.tz_localize(None))
        true = np.interp(ends, when, np.mean(truth, axis=0))
        inside.append(holds(table["change_m"], table["sigma_m"], true))
        of_area.append(holds(table["area_change_m2"], table["area_sigma_m2"], true * 4 * WIDTH))
    assert 0.92 < np.mean(inside) < 0.98
    assert 0.92 < np.mean(of_area) < 0.98


def test_the_spread_of_a_region_is_the_standard_error_over_its_glaciers():
    dates = pd.date_range("2015-01-01", periods=11, freq="183D")
    in_all = np.array([-1800.0, -600, 0, 1200])
    tables = [series(np.linspace(0, end, 11), dates, glacier=str(i)) for i, end in enumerate(in_all)]
    told = end_of(regional_change(pd.concat(tables), {}))
    assert told["change_m"] == pytest.approx(in_all.mean())
    assert told["spread_m"] == pytest.approx(in_all.std(ddof=1) / 2, rel=1e-3)
    assert np.isnan(end_of(regional_change(tables[0], {}))["spread_m"])


def test_regions_of_greenland_lose_what_their_glaciers_lost(shared):
    folder = shared / "data"
    fronts = read_product(folder / "measures_termini_greenland" / "derived_termini_3413.parquet")
    basins = folder / "greenland_basins_icemask" / "greenland_basins_polarstereo.shp"
    lines = read_lines(None, fronts, ice=str(basins))
    gates, parts = [], []
    for _, of_glacier in fronts.groupby("glacier_id"):
        gate, *_ = glacier_gate(of_glacier, lines)
        if gate is not None:
            parts.append(measure_positions(of_glacier, gate=gate))
            gates.append((gate, of_glacier, parts[-1]))
    positions = pd.concat(parts, ignore_index=True)
    in_box = positions.dropna(subset="position_m")
    first, last = (getattr(in_box.sort_values("datetime").groupby("glacier_id"), f)() for f in ("first", "last"))
    area = (last["area_m2"] - first["area_m2"]).sum()
    told = regional_change(positions, regions_of(gates_table(gates, fronts.crs), gpd.read_file(basins)))
    assert end_of(told)["area_change_m2"] == pytest.approx(area, rel=1e-6)
    # Means of the first-to-last changes of the same glaciers; not all enter and leave on one day.
    for region, change in {"NO": -2533, "NE": -950, "SE": -842, "NW": -1210}.items():
        assert end_of(told, region)["change_m"] == pytest.approx(change, rel=0.09)
    whole = told[told["region"] == "all"]
    assert whole["n"].iloc[3:-1].min() > 180
    root = Path(__file__).parents[1]
    docs, readme = ((root / name).read_text(encoding="utf-8") for name in ("docs/science.md", "README.md"))
    end = told[told["month"] == pd.Timestamp("2021-03-01", tz="UTC")].set_index("region")
    for row in end.itertuples():
        areas = f"{row.area_change_m2 / 1e6:.0f} ± {row.area_sigma_m2 / 1e6:.0f}"
        line = f"| {row.Index} | {row.n} | {row.change_m:.0f} ± {row.sigma_m:.0f} | {row.spread_m:.0f} | {areas} |"
        assert line in docs
        assert f"{row.change_m:,.0f} ± {row.sigma_m:.0f} |" in readme
        assert f"{row.area_change_m2 / 1e6:,.0f} ± {row.area_sigma_m2 / 1e6:.0f} |" in readme
    boxes = gates_table(gates, fronts.crs)
    swept = (boxes["swept_m"] * boxes["width_m"]).sum()
    assert f"by {area / 1e6:,.1f} km² and the fronts swept {swept / 1e6:,.1f} km²" in docs
    assert f"the {boxes['is_doubtful'].sum()} boxes" in docs
    counts = f"{len(boxes)} get a box of their own, {in_box['glacier_id'].nunique()} of these"
    assert f"{counts} have a position in it, and {positions['position_m'].isna().sum()} fronts" in docs
    jakobshavn = rates(positions[positions["glacier_id"] == "3"]).iloc[0]
    assert jakobshavn["change_m"] == pytest.approx(-6219, abs=10)
    assert jakobshavn["rate_sigma_m_a"] > 100


def test_a_region_whose_glaciers_have_one_front_each_has_no_row():
    when = pd.to_datetime(["2021-09-27"], utc=True)
    one = pd.DataFrame({"glacier_id": ["a"], "datetime": when, "position_m": [100.0], "sigma_m": [10.0]})
    assert regional_change(one, {"a": "NW"}).empty


def course(n, *, memory, seed, years=10.0):
    """Days and positions of a glacier that retreats by 100 m a year, wanders by 300 m, seen within 60 m."""
    rng = np.random.default_rng(seed)
    when = np.sort(rng.uniform(0, years, n))
    return when, -100 * when + wander(when, memory, 300, rng) + rng.normal(size=n) * 60


@pytest.mark.parametrize("memory", [0.01, 0.5, 2.0])
def test_a_glacier_that_wanders_about_has_no_break_as_often_as_that_is_said(memory):
    series = (History(*course(30, memory=memory, seed=seed), np.full(30, 60.0)) for seed in range(120))
    assert np.mean([len(breaks_of(history)) > 0 for history in series]) < 0.11  # 0.07 of 300 at most


def test_waves_of_the_year_show_no_more_breaks_in_a_glacier_that_wanders_about():
    made = (course(60, memory=2.0, seed=seed, years=3.0) for seed in range(60))
    assert np.mean([len(breaks_of(History(*one, np.full(60, 60.0), 2))) > 0 for one in made]) < 0.11


def test_a_collapse_and_the_start_of_a_surge_are_found_with_their_dates():
    found = {"step": [], "bend": []}
    for seed in range(12):
        when, values = course(60, memory=0.05, seed=seed)
        step = breaks_of(History(when, values - 2000 * (when > 6), np.full(60, 60.0)))
        bend = breaks_of(History(when, values + 800 * np.maximum(when - 6, 0), np.full(60, 60.0)))
        for kind, rows in (("step", step), ("bend", bend)):
            found[kind] += [row for row in rows if row["kind"] == kind]
    at = pd.Timestamp("2000-01-01", tz="UTC") + pd.Timedelta(days=6 * 365.25)
    for kind, least in (("step", 12), ("bend", 10)):
        assert len(found[kind]) >= least
        assert np.mean([row["earliest"] <= at <= row["latest"] for row in found[kind]]) > 0.8
    assert np.median([row["step_m"] for row in found["step"]]) == pytest.approx(-2000, abs=100)
    assert np.median([row["bend_m_a"] for row in found["bend"]]) == pytest.approx(800, abs=60)


def test_a_whole_surge_has_the_two_bends_of_its_start_and_end():
    when, noise = course(50, memory=0.02, seed=1)
    surge = 1500 * np.clip(when - 4, 0, 2) - 50 * when
    rows = breaks_of(History(when, surge + 0.5 * noise, np.full(50, np.nan)))
    assert [row["kind"] for row in rows] == ["bend", "bend"]
    assert [row["bend_m_a"] for row in rows] == pytest.approx([1500, -1500], abs=150)
    starts = [pd.Timestamp("2000-01-01", tz="UTC") + pd.Timedelta(days=year * 365.25) for year in (4, 6)]
    assert all(row["earliest"] <= at <= row["latest"] for row, at in zip(rows, starts, strict=True))


def test_breaks_have_a_row_by_series_and_short_series_have_none():
    days = pd.to_datetime("2010-01-01") + pd.to_timedelta(np.arange(0, 3000, 100), unit="D")
    values = np.where(np.arange(30) < 12, 9000.0, 5000.0) + 20 * np.sin(np.arange(30) ** 2)
    table = break_points(pd.concat([series(values, days, glacier="a"), series(values[:8], days[:8], glacier="b")]))
    assert table["glacier_id"].unique().tolist() == ["a"]
    assert table.iloc[0]["kind"] == "step"
    assert table.iloc[0]["step_m"] == pytest.approx(-4000, abs=60)
    assert table.iloc[0]["earliest"] <= pd.Timestamp("2013-04-01", tz="UTC") <= table.iloc[0]["latest"]


def test_a_step_in_a_glacier_of_strong_seasons_is_found_on_its_date():
    days = pd.date_range("2014-01-10", periods=91, freq="20D")
    when, at = years_of(days), pd.Timestamp("2016-09-01", tz="UTC")
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(size=91) * 40
        values = 400 * np.cos(2 * np.pi * when) - 60 * when - 400 * (days > "2016-09-01") + noise
        steps = break_points(series(values, days, sigma=40.0)).set_index("kind")
        assert steps.index.tolist() == ["step"]
        assert abs(steps.loc["step", "date"] - at) < pd.Timedelta(days=40)
        assert steps.loc["step", "step_m"] == pytest.approx(-400, abs=100)


def test_the_interval_of_a_step_ends_on_the_days_of_its_fronts():
    for first in range(24, 96, 3):
        days = pd.date_range("2018-01-01", periods=30, freq="30D") + pd.Timedelta(days=first)
        step = break_points(series(np.where(np.arange(30) < 15, 0.0, -3000) + np.arange(30) % 3, days)).iloc[0]
        assert [step["earliest"], step["latest"]] == [day.tz_localize("UTC") for day in days[14:16]]


@pytest.mark.parametrize(("every", "height"), [(30, 0), (30, 400), (15, 800)])
def test_the_height_of_a_season_is_not_that_of_the_errors_of_its_fronts(every, height):
    rng, days = np.random.default_rng(3), pd.date_range("2015-01-01", periods=1800 // every, freq=f"{every}D")
    when = years_of(days)
    season = height * np.cos(2 * np.pi * when) / 2 - 50 * when
    tables = [series(season + rng.normal(size=len(days)) * 100, days, glacier=f"{k}", sigma=100.0) for k in range(50)]
    told = rates(pd.concat(tables))
    assert told["seasonal_m"].mean() == pytest.approx(height, abs=0.04 * height if height else 35)
    assert holds(told["seasonal_m"], told["seasonal_sigma_m"], height) > 0.9


def test_the_height_of_a_season_is_that_of_both_of_its_waves():
    days = pd.date_range("2015-01-01", "2019-12-31", freq="10D")
    angle = 2 * np.pi * years_of(days)
    rate = rates(series(200 * np.cos(angle) + 100 * np.cos(2 * angle), days)).iloc[0]
    assert rate["seasonal_m"] == pytest.approx(450, abs=10)  # 300 in winter, -150 where the cosine is -1/2
