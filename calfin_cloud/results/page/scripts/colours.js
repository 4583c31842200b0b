// Colours: dates from blue to yellow, lighter all the way and far from any grey; change by a scale around zero.
"use strict";

(() => {
  const STEPS = 64;
  const dates = d3.piecewise(d3.interpolateLab, ["#4b3df0", "#a33ae0", "#e64a8d", "#fb8b3c", "#f9ee3a"]);
  const ramp = d3.range(STEPS).map((i) => d3.color(dates(i / (STEPS - 1))).formatHex());

  atlas.ramp = ramp;
  atlas.colourStep = (day) => {
    const fronts = atlas.state.data?.fronts ?? [];
    if (!fronts.length) return STEPS - 1;
    const first = fronts[0].day, last = fronts[fronts.length - 1].day;
    return last > first ? Math.round(((STEPS - 1) * (day - first)) / (last - first)) : STEPS - 1;
  };
  atlas.colourOf = (day) => ramp[Math.max(0, Math.min(STEPS - 1, atlas.colourStep(day)))];

  // Retreat is warm, advance is blue; a colour stands for the same length on every glacier of the store.
  atlas.changeScale = (glaciers) => {
    const sizes = glaciers.map((g) => Math.abs(g.change ?? 0)).filter((v) => v > 0).sort(d3.ascending);
    const most = sizes.length ? Math.max(d3.quantile(sizes, 0.9), 100) : 1000;
    const nice = d3.scaleLinear().domain([0, most]).nice(2).domain()[1];
    const scale = d3.scaleDiverging([-nice, 0, nice], d3.piecewise(d3.interpolateLab, ["#b2182b", "#e8743b", "#f3d9c9", "#e9eef2", "#c5dcec", "#4393c3", "#1f5fa8"])).clamp(true);
    return { most: nice, colour: scale };
  };
  atlas.countScale = (values) => d3.scaleSequentialSqrt([0, Math.max(1, ...values)], (t) => d3.interpolateYlGnBu(0.2 + 0.8 * t));
})();
