"use strict";
const BRANCH_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"];
const MONTHS = "JFMAMJJASOND";
const SHEET_STEP = 60;
const NEAR_PX = 12;
const $ = (id) => document.getElementById(id);
const day = (date) => Date.parse(date) / 864e5;

let domain = null; // the one that is shown
let dates = []; // of its fronts, sorted, each once
let chosen = null; // the front that is looked at
let drawn = null; // points of a line being drawn, px of the picture
let playing = null;
let nShown = SHEET_STEP;
const image = new Image();
const stored = `verdicts ${location.pathname} ${DATA.title}`; // pages of other stores have domains of the same name
const verdicts = new Map(JSON.parse(remembered() || "[]"));

function remembered() {
  try { return localStorage.getItem(stored); } catch { return null; } // some browsers have none for local files
}

function remember() {
  try { localStorage.setItem(stored, JSON.stringify([...verdicts])); } catch { /* then they last as long as the page */ }
}

function element(name, text = "", attributes = {}) {
  const made = name.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) : document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function fillTable(table, rows, head = null) {
  table.replaceChildren();
  if (head) table.append(rowOf(head, "th"));
  for (const row of rows) table.append(rowOf(row, "td"));
}

function rowOf(cells, kind) {
  const row = element("tr");
  cells.forEach((cell) => row.append(element(kind, String(cell ?? ""))));
  return row;
}

// Time

function within(date) {
  return date >= dates[+$("from").value] && date <= dates[+$("to").value];
}

function colourOf(date) {
  const first = day(dates[0]), last = day(dates[dates.length - 1]);
  const share = last > first ? (day(date) - first) / (last - first) : 1;
  return DATA.colours[Math.round(share * (DATA.colours.length - 1))];
}

function showSpan() {
  $("span").textContent = dates.length ? `${dates[+$("from").value]} to ${dates[+$("to").value]}` : "no front";
}

// Map

function drawMap() {
  const canvas = $("map"), ink = canvas.getContext("2d");
  ink.clearRect(0, 0, canvas.width, canvas.height);
  if (image.complete && image.naturalWidth) ink.drawImage(image, 0, 0, canvas.width, canvas.height);
  const scale = canvas.width / domain.size[0];
  for (const front of domain.fronts) {
    if (within(front.date)) strokeLine(ink, lineOf(front), scale, colourOf(front.date), front === chosen ? 4 : 1.5, isOut(front));
  }
  if (chosen) strokeLine(ink, lineOf(chosen), scale, "#ffffff", 2, false);
  if (drawn) strokeLine(ink, drawn, scale, "#ff5a36", 2.5, false);
}

function lineOf(front) {
  return verdicts.get(placeOf(front))?.line ?? front.line;
}

function isOut(front) {
  return (verdicts.get(placeOf(front))?.verdict ?? front.verdict) === "reject";
}

function strokeLine(ink, line, scale, colour, width, dashed) {
  ink.beginPath();
  for (let i = 0; i < line.length; i += 2) ink.lineTo(line[i] * scale, line[i + 1] * scale);
  ink.strokeStyle = colour;
  ink.lineWidth = width;
  ink.setLineDash(dashed ? [3, 5] : []);
  ink.stroke();
}

function pointOf(event) {
  const box = $("map").getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * domain.size[0], ((event.clientY - box.top) / box.height) * domain.size[1]];
}

function nearestFront([x, y]) {
  let best = null, least = (NEAR_PX * domain.size[0]) / $("map").getBoundingClientRect().width;
  for (const front of domain.fronts) {
    if (!within(front.date)) continue;
    const line = lineOf(front);
    for (let i = 0; i + 3 < line.length; i += 2) {
      const apart = distanceTo(x, y, line[i], line[i + 1], line[i + 2], line[i + 3]);
      if (apart < least) { least = apart; best = front; }
    }
  }
  return best;
}

function distanceTo(x, y, x0, y0, x1, y1) {
  const dx = x1 - x0, dy = y1 - y0, size = dx * dx + dy * dy;
  const share = size ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / size)) : 0;
  return Math.hypot(x - x0 - share * dx, y - y0 - share * dy);
}

// One front and what a person says of it

function placeOf(front) {
  return `${front.key}#${front.front}`;
}

function choose(front) {
  chosen = front;
  drawn = null;
  $("hint").hidden = Boolean(front);
  $("facts").hidden = !front;
  $("drawing").hidden = $("done").hidden = true;
  if (front) showFacts(front);
  drawMap();
}

function showFacts(front) {
  const picture = DATA.pictures[front.key];
  $("picture").hidden = !picture;
  if (picture) $("picture").src = picture;
  const said = verdicts.get(placeOf(front));
  const rows = [["scene", front.scene], ["date", front.date], ["satellite", front.platform], ["length", `${Math.round(front.length_m)} m`]];
  if (front.sigma_m != null) rows.push(["mean uncertainty", `${Math.round(front.sigma_m)} m (68 %)`]);
  if (front.score != null) rows.push(["score", `${front.score} ${front.score_reasons ? `(${front.score_reasons})` : ""}`]);
  if (front.flags) rows.push(["doubtful", `${front.flags}: ${front.flag_details}`]);
  rows.push(["quality flag", front.quality_flag], ["verdict", said?.verdict ?? front.verdict ?? ""]);
  fillTable($("factTable"), rows);
  document.querySelectorAll("[data-verdict]").forEach((b) => b.classList.toggle("on", b.dataset.verdict === (said?.verdict ?? front.verdict)));
}

function decide(verdict, line = null) {
  if (!$("author").value.trim()) { $("author").focus(); return; }
  const time = new Date().toISOString().slice(0, 19) + "Z";
  const author = $("author").value.trim();
  verdicts.set(placeOf(chosen), { key: chosen.key, front: chosen.front, verdict, author, time, line });
  remember();
  showCount();
  showFacts(chosen);
  drawMap();
}

function toMap(line, transform) {
  const [left, a, b, top, d, e] = transform, points = [];
  for (let i = 0; i < line.length; i += 2) points.push([left + a * line[i] + b * line[i + 1], top + d * line[i] + e * line[i + 1]]);
  return points;
}

function verdictsText() {
  const transforms = Object.fromEntries(DATA.domains.map((d) => [d.name, d.transform]));
  const list = [...verdicts.values()].map(({ line, ...verdict }) =>
    line ? { ...verdict, geometry: { type: "LineString", coordinates: toMap(line, transforms[verdict.key.split("/")[0]]) } } : verdict);
  return JSON.stringify(list, null, 1);
}

function saveVerdicts() {
  const link = element("a", "", { download: "verdicts.json" });
  link.href = URL.createObjectURL(new Blob([verdictsText()], { type: "application/json" }));
  link.click();
  URL.revokeObjectURL(link.href);
}

function showCount() {
  $("save").disabled = !verdicts.size;
  $("count").textContent = verdicts.size ? `${verdicts.size} verdicts` : "";
}

// Charts

function axes(svg, xs, ys, ticksX, ticksY) {
  const width = svg.clientWidth || 600, height = svg.clientHeight || 260;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const x = (v) => 48 + ((v - xs[0]) / (xs[1] - xs[0] || 1)) * (width - 60);
  const y = (v) => height - 24 - ((v - ys[0]) / (ys[1] - ys[0] || 1)) * (height - 36);
  svg.append(element("svg:path", "", { d: `M48 8V${height - 24}H${width - 8}`, fill: "none", class: "axis" }));
  for (const [value, text] of ticksX) svg.append(element("svg:text", text, { x: Math.min(x(value), width - 24), y: height - 8, "text-anchor": "middle" }));
  for (const value of ticksY) svg.append(element("svg:text", String(value), { x: 44, y: y(value) + 4, "text-anchor": "end" }));
  return [x, y];
}

function niceTicks(low, high) {
  const rough = (high - low || 1) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((f) => f * power >= rough) * power;
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high; v += step) ticks.push(Number(v.toFixed(6)));
  return ticks;
}

function drawSeries() {
  const svg = $("series"), all = domain.positions.flatMap((b) => b.points);
  if (!all.length) { svg.replaceChildren(element("svg:text", "no position was measured", { x: 20, y: 30 })); return; }
  const days = all.map((p) => day(p[1])), values = all.flatMap((p) => [(p[2] - 2 * (p[3] || 0)) / 1e3, (p[2] + 2 * (p[3] || 0)) / 1e3]);
  const xs = [Math.min(...days), Math.max(...days)], ys = [Math.min(...values), Math.max(...values)];
  const years = [];
  for (let t = xs[0]; t <= xs[1]; t += Math.max((xs[1] - xs[0]) / 5, 1)) years.push([t, new Date(t * 864e5).toISOString().slice(0, 7)]);
  const [x, y] = axes(svg, xs, ys, years, niceTicks(...ys));
  svg.append(element("svg:text", "advance since the start [km]", { x: 52, y: 12 }));
  domain.positions.forEach((branch, i) => drawBranch(svg, branch, BRANCH_COLOURS[i % BRANCH_COLOURS.length], x, y, i));
}

function drawBranch(svg, branch, colour, x, y, i) {
  const at = (p, side) => `${x(day(p[1]))},${y((p[2] + side * 2 * (p[3] || 0)) / 1e3)}`;
  const band = [...branch.points.map((p) => at(p, 1)), ...branch.points.map((p) => at(p, -1)).reverse()];
  svg.append(element("svg:polygon", "", { points: band.join(" "), fill: colour, opacity: 0.18 }));
  svg.append(element("svg:polyline", "", { points: branch.points.map((p) => at(p, 0)).join(" "), fill: "none", stroke: colour }));
  svg.append(element("svg:text", branch.branch, { x: (svg.clientWidth || 600) - 10, y: 14 + 14 * i, "text-anchor": "end", style: `fill:${colour}` }));
  for (const point of branch.points) {
    const [cx, cy] = at(point, 0).split(",");
    const dot = element("svg:circle", "", { cx, cy, r: 3, fill: colour });
    dot.append(element("svg:title", `${point[1]}: ${Math.round(point[2])} m`));
    dot.addEventListener("click", () => choose(domain.fronts.find((f) => f.key === point[0]) ?? null));
    svg.append(dot);
  }
}

function drawSeasonal() {
  const svg = $("seasonal"), months = domain.seasonal;
  if (!months.length) { svg.replaceChildren(element("svg:text", "too few fronts in a year", { x: 20, y: 30 })); return; }
  const values = months.flatMap((m) => [m[1] - 2 * (m[2] || 0), m[1] + 2 * (m[2] || 0), 0]);
  const ys = [Math.min(...values), Math.max(...values)];
  const [x, y] = axes(svg, [0.5, 12.5], ys, [...MONTHS].map((m, i) => [i + 1, m]), niceTicks(...ys));
  svg.append(element("svg:text", "deviation [m]", { x: 52, y: 12 }));
  for (const [month, value, error] of months) {
    const top = Math.min(y(value), y(0));
    svg.append(element("svg:rect", "", { x: x(month) - 6, y: top, width: 12, height: Math.abs(y(value) - y(0)), fill: "#0072b2", opacity: 0.7 }));
    if (error) svg.append(element("svg:path", "", { d: `M${x(month)} ${y(value - 2 * error)}V${y(value + 2 * error)}`, class: "axis" }));
  }
}

// Scenes

function drawSheet() {
  const scenes = new Map(domain.fronts.filter((f) => within(f.date) && DATA.pictures[f.key]).map((f) => [f.key, f]));
  const list = [...scenes.values()].sort((a, b) => (a.date < b.date ? 1 : -1));
  $("sheet").replaceChildren(...list.slice(0, nShown).map((front) => {
    const figure = element("figure"), picture = element("img", "", { loading: "lazy", alt: front.scene, src: DATA.pictures[front.key] });
    figure.append(picture, element("figcaption", `${front.date} ${front.platform}${front.flags ? " (doubtful)" : ""}`));
    figure.addEventListener("click", () => { choose(front); $("panel").scrollIntoView({ behavior: "smooth" }); });
    return figure;
  }));
  $("more").hidden = list.length <= nShown;
}

function drawRamp() {
  const ink = $("ramp").getContext("2d");
  DATA.colours.forEach((colour, i) => { ink.fillStyle = colour; ink.fillRect((i * 256) / DATA.colours.length, 0, 256 / DATA.colours.length + 1, 10); });
  $("first").textContent = dates[0] ?? "";
  $("last").textContent = dates[dates.length - 1] ?? "";
}

// The page

function redraw() {
  showSpan();
  drawMap();
  drawSheet();
}

function showDomain(index) {
  domain = DATA.domains[index];
  dates = [...new Set(domain.fronts.map((f) => f.date))].sort();
  for (const id of ["from", "to"]) $(id).max = Math.max(dates.length - 1, 0);
  $("from").value = 0;
  $("to").value = Math.max(dates.length - 1, 0);
  $("map").width = 1000;
  $("map").height = Math.round((1000 * domain.size[1]) / domain.size[0]);
  nShown = SHEET_STEP;
  image.src = domain.picture;
  choose(null);
  drawSeries();
  drawSeasonal();
  drawRamp();
  const reasons = domain.without.map(([scene, date, platform, state, reason, detail]) => [date, scene, platform, state, DATA.reasons[reason] ?? reason, detail]);
  fillTable($("without"), reasons, ["date", "scene", "satellite", "state", "reason", "detail"]);
  redraw();
}

function moveTime(id) {
  const from = $("from"), to = $("to");
  if (+from.value > +to.value) (id === "from" ? to : from).value = $(id).value;
  nShown = SHEET_STEP;
  redraw();
}

function play() {
  $("play").textContent = playing ? "Play" : "Stop";
  if (playing) { clearInterval(playing); playing = null; return; }
  $("to").value = $("from").value;
  playing = setInterval(() => {
    if (+$("to").value >= dates.length - 1) play();
    else { $("to").value = +$("to").value + 1; redraw(); }
  }, Math.max(40, 8000 / dates.length));
}

function start() {
  document.title = $("title").textContent = DATA.title;
  DATA.domains.forEach((d, i) => $("domain").append(element("option", `${d.name} (${d.fronts.length})`, { value: i })));
  fillTable($("provenance"), DATA.provenance);
  for (const name of DATA.downloads) $("downloads").append(element("a", name, { href: name, download: name }), " ");
  $("domain").addEventListener("change", (event) => showDomain(+event.target.value));
  for (const id of ["from", "to"]) $(id).addEventListener("input", () => moveTime(id));
  $("play").addEventListener("click", play);
  $("more").addEventListener("click", () => { nShown += SHEET_STEP; drawSheet(); });
  $("map").addEventListener("click", (event) => {
    if (drawn) { drawn.push(...pointOf(event).map((v) => Math.round(v * 10) / 10)); drawMap(); } else choose(nearestFront(pointOf(event)));
  });
  document.querySelectorAll("[data-verdict]").forEach((button) => button.addEventListener("click", () => {
    if (button.dataset.verdict !== "redraw") { decide(button.dataset.verdict); return; }
    drawn = [];
    $("drawing").hidden = $("done").hidden = false;
    drawMap();
  }));
  $("done").addEventListener("click", () => {
    const line = drawn;
    $("drawing").hidden = $("done").hidden = true;
    drawn = null;
    if (line.length >= 4) decide("redraw", line);
    drawMap();
  });
  $("save").addEventListener("click", saveVerdicts);
  image.addEventListener("load", drawMap);
  window.addEventListener("resize", () => { drawSeries(); drawSeasonal(); });
  showCount();
  showDomain(0);
}

start();
