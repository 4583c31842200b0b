// Time: the series of positions with its band, over a slider whose track is the legend of the colours.
"use strict";

(() => {
  const EDGE = { left: 56, right: 16, top: 12, bottom: 22 };
  const BRANCHES = ["var(--series)", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
  const WORDS = { box: "mean over a box", center: "on the centreline" };
  const svg = d3.select("#series");
  const from = atlas.get("from"), to = atlas.get("to");
  const PLAY_MS = 9000, QUICKEST_MS = 60, SLOWEST_MS = 700; // for all dates; for one
  let scales = null;
  let playing = null;
  let chart = [];

  const points = () => (atlas.state.data.positions[0]?.points ?? []);
  const measured = (key) => points().find((p) => p[0] === key);
  atlas.measuredOf = (front) => measured(front.key);
  // Both ends of an advance are uncertain.
  atlas.advance = (point) => {
    const sigma = Math.hypot(point[3] ?? 0, points()[0][3] ?? 0);
    return `${atlas.length(point[2], { sign: true })}${point !== points()[0] && sigma ? ` ± ${Math.round(2 * sigma)} m (2 sigma)` : ""}`;
  };

  function drawSeries() {
    const { data } = atlas.state, node = svg.node();
    const width = Math.max(node.clientWidth, 200), height = Math.max(node.clientHeight, 90);
    svg.attr("viewBox", `0 0 ${width} ${height}`).selectAll("*").remove();
    if (!data.fronts.length) { empty("no front was found"); return; }
    const all = data.positions.flatMap((b) => b.points);
    const x = d3.scaleLinear(reach(), [EDGE.left, width - EDGE.right]);
    const time = d3.scaleUtc(x.domain().map((d) => new Date(d * 864e5)), x.range());
    const band = (p, side) => (p[2] + side * 2 * (p[3] ?? 0)) / 1e3;
    // The band of the first branch and the lines of the others: a wide band of another branch would flatten all.
    const heights = data.positions.flatMap((b, i) => b.points.flatMap((p) => (i ? [p[2] / 1e3] : [band(p, -1), band(p, 1)])));
    const ends = all.length ? d3.extent(heights) : [-1, 1];
    const y = d3.scaleLinear(ends, [height - EDGE.bottom, EDGE.top]).nice(4);
    scales = { x, y };
    const axis = svg.append("g").attr("class", "axis");
    axis.append("g").attr("transform", `translate(0,${height - EDGE.bottom})`).call(d3.axisBottom(time).ticks(Math.max(2, width / 110)).tickFormat(dated(time)).tickSizeOuter(0));
    if (all.length) {
      axis.append("g").attr("transform", `translate(${EDGE.left},0)`).call(d3.axisLeft(y).ticks(4).tickSize(-(width - EDGE.left - EDGE.right)).tickPadding(9));
      axis.append("text").attr("class", "title").attr("x", -(EDGE.top + height - EDGE.bottom) / 2).attr("y", 11).attr("transform", "rotate(-90)").attr("text-anchor", "middle").text("advance (km)");
    } else {
      svg.append("text").attr("class", "nothing").attr("x", width / 2).attr("y", height / 2 - 14).attr("text-anchor", "middle").text("No position could be measured: the series needs ice polygons or a centreline");
    }
    svg.append("clipPath").attr("id", "inside").append("rect").attr("x", EDGE.left).attr("y", EDGE.top - 6).attr("width", width - EDGE.left - EDGE.right).attr("height", height - EDGE.top - EDGE.bottom + 6);
    data.positions.forEach((branch, i) => drawBranch(branch, i, x, y, band));
    drawDots(x, y, height);
    svg.append("line").attr("class", "cursor");
    svg.append("rect").attr("class", "veil before");
    svg.append("rect").attr("class", "veil after");
    markSpan();
    tellSeries();
  }

  // The first date has its year, which d3 writes at the turn of a year only.
  function dated(time) {
    const format = time.tickFormat();
    return (when, i) => (i || /\d{4}/.test(format(when)) ? format(when) : `${format(when)} ${when.getUTCFullYear()}`);
  }

  function reach() {
    const days = atlas.state.data.fronts.map((f) => f.day);
    const [first, last] = d3.extent(days);
    return last > first ? [first, last] : [first - 30, first + 30];
  }

  function empty(text) {
    svg.append("text").attr("class", "nothing").attr("x", "50%").attr("y", "50%").attr("text-anchor", "middle").text(text);
  }

  function drawBranch(branch, i, x, y, band) {
    const at = (p) => x(atlas.day(p[1]));
    const group = svg.append("g").attr("class", i ? "branch other" : "branch").attr("clip-path", "url(#inside)").style("color", BRANCHES[i % BRANCHES.length]);
    if (!i) group.append("path").attr("class", "band").attr("d", d3.area(at, (p) => y(band(p, -1)), (p) => y(band(p, 1)))(branch.points));
    group.append("path").attr("class", "line").attr("d", d3.line(at, (p) => y(p[2] / 1e3))(branch.points));
  }

  // A dot a scene: on the first branch, or on the base line where its position is not known.
  function drawDots(x, y, height) {
    const known = new Map(points().map((p) => [p[0], p]));
    chart = [...atlas.state.data.byKey.values()].map(([front]) => {
      const p = known.get(front.key);
      return { front, p, x: x(front.day), y: p ? y(p[2] / 1e3) : height - EDGE.bottom - 3 };
    });
    const size = chart.length > 400 ? 2.2 : 3.6;
    svg.append("g").attr("class", "dots").selectAll("circle").data(chart).join("circle")
      .attr("cx", (d) => d.x).attr("cy", (d) => d.y).attr("r", size)
      .attr("fill", (d) => (d.p ? atlas.colourOf(d.front.day) : "none"))
      .attr("class", (d) => (d.front.flags ? "doubtful" : null));
  }

  function nearest(event) {
    const [px, py] = d3.pointer(event, svg.node());
    const open = chart.filter((d) => atlas.inSpan(d.front));
    return d3.least(open, (d) => Math.hypot(d.x - px, (d.y - py) * 0.35));
  }

  atlas.describe = (front) => {
    const p = measured(front.key);
    return [`${front.date}${front.platform ? ` · ${front.platform}` : ""}`, p ? atlas.advance(p) : "", front.flags ? `doubtful: ${front.flags}` : ""].filter(Boolean);
  };

  svg.on("pointermove", (event) => {
    const hit = nearest(event);
    if (hit) atlas.showTip(event.clientX, event.clientY, atlas.describe(hit.front));
  });
  svg.on("pointerleave", () => atlas.hideTip());
  svg.on("click", (event) => { const hit = nearest(event); if (hit) atlas.choose(hit.front); });

  function markSpan() {
    if (!scales) return;
    const { x } = scales, height = svg.node().clientHeight - EDGE.bottom - EDGE.top, [left, right] = x.range();
    const veil = (name, a, b) => svg.select(`.${name}`).attr("x", a).attr("y", EDGE.top).attr("width", Math.max(0, b - a)).attr("height", Math.max(0, height));
    veil("before", left - 6, x(atlas.state.from) - 6);
    veil("after", x(atlas.state.to) + 6, right + 6);
    const front = atlas.state.chosen;
    svg.select(".cursor").attr("visibility", front ? "visible" : "hidden").attr("x1", front ? x(front.day) : 0).attr("x2", front ? x(front.day) : 0).attr("y1", EDGE.top - 4).attr("y2", EDGE.top + height);
    svg.selectAll(".dots circle").classed("on", (d) => front?.key === d.front.key);
  }

  function tellSeries() {
    const { glacier } = atlas.state;
    const rate = glacier.rate == null ? "" : `, ${Math.round(glacier.rate)} m a year`;
    atlas.get("seriesText").textContent = `Position of the front from ${glacier.first} to ${glacier.last}: ${glacier.change == null ? "change unknown" : `${atlas.length(glacier.change, { sign: true })} in all`}${rate}. Band: ± 2 sigma.`;
    const flagged = atlas.state.data.fronts.some((f) => f.flags);
    const lacking = points().length && chart.some((d) => !d.p);
    const [first, ...others] = atlas.state.data.positions.map((b) => WORDS[b.branch] ?? b.branch);
    atlas.get("key").textContent = [points().length > 1 && `line: ${first}, band: ± 2 sigma`, points().length > 1 && others.length && `dashed: ${others.join(", ")}`, flagged && "ringed: doubtful", lacking && "hollow: no position"].filter(Boolean).join(" · ");
  }

  // Slider

  function showSpan() {
    const { data } = atlas.state;
    const shown = data.fronts.filter(atlas.inSpan).length;
    atlas.get("span").textContent = data.fronts.length === 1 ? `${data.fronts[0].date} · 1 front` : data.fronts.length ? `${atlas.date(atlas.state.from)} to ${atlas.date(atlas.state.to)} · ${shown === data.fronts.length ? "all" : `${shown} of`} ${atlas.count(data.fronts.length, "front")}` : "no front";
    for (const input of [from, to]) input.setAttribute("aria-valuetext", atlas.date(input.value));
  }

  atlas.setSpan = (first, last, { quiet = false } = {}) => {
    const [low, high] = reach();
    const within = (day) => Math.max(low, Math.min(high, day));
    atlas.state.from = within(Math.min(first, last));
    atlas.state.to = within(Math.max(first, last));
    from.value = atlas.state.from;
    to.value = atlas.state.to;
    showSpan();
    if (quiet) return;
    if (atlas.state.chosen && !atlas.inSpan(atlas.state.chosen)) atlas.choose(null);
    markSpan();
    atlas.redrawFronts();
    atlas.tell("span");
  };

  function moved(input) {
    stop();
    if (+from.value > +to.value) (input === from ? to : from).value = input.value;
    atlas.setSpan(+from.value, +to.value);
  }

  function stop() {
    if (!playing) return;
    clearInterval(playing);
    playing = null;
    atlas.get("play").replaceChildren(atlas.element("span", "▶", { "aria-hidden": "true" }), " Play");
    atlas.get("play").setAttribute("aria-pressed", "false");
    atlas.tell("changed");
  }

  function play() {
    if (playing) { stop(); return; }
    atlas.choose(null);
    const days = [...new Set(atlas.state.data.fronts.map((f) => f.day))];
    const first = atlas.state.from;
    let at = atlas.state.to >= days[days.length - 1] ? 0 : days.findIndex((d) => d > atlas.state.to);
    const every = Math.min(SLOWEST_MS, Math.max(QUICKEST_MS, PLAY_MS / days.length));
    atlas.get("play").replaceChildren(atlas.element("span", "❚❚", { "aria-hidden": "true" }), " Stop");
    atlas.get("play").setAttribute("aria-pressed", "true");
    playing = setInterval(() => {
      while (days[at] < first) at += 1;
      atlas.setSpan(first, days[at]);
      at += 1;
      if (at >= days.length) stop();
    }, every);
  }
  atlas.stopPlaying = stop;

  atlas.showTime = () => {
    stop();
    const [low, high] = reach();
    const has = atlas.state.data.fronts.length > 0;
    atlas.get("play").disabled = from.disabled = to.disabled = atlas.state.data.byKey.size < 2;
    for (const input of [from, to]) { input.min = has ? low : 0; input.max = has ? high : 1; input.step = 1; }
    atlas.get("ramp").style.background = `linear-gradient(90deg, ${atlas.ramp.filter((_, i) => i % 7 === 0).join(", ")})`;
    if (has) atlas.setSpan(low, high, { quiet: true });
    else showSpan();
    drawSeries();
  };

  from.addEventListener("input", () => moved(from));
  to.addEventListener("input", () => moved(to));
  for (const input of [from, to]) input.addEventListener("change", () => atlas.tell("changed"));
  atlas.get("play").addEventListener("click", play);
  atlas.on("chosen", markSpan);
  const again = () => { if (atlas.state.data) drawSeries(); };
  atlas.on("theme", again);
  new ResizeObserver(again).observe(svg.node().parentElement);
})();
