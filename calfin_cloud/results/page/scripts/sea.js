// What else the scenes show: icebergs, melange and plumes of the shown date on the map, and their series in time.
"use strict";

(() => {
  const { get, element } = atlas;
  const NAMES = { icebergs: "Icebergs", melange: "Ice before the front", plumes: "Plume (relative)" };
  const COLOURS = { icebergs: "#ffe14d", melange: "#7fd4ff", plumes: "#ff9a3c" };
  const SERIES = {
    icebergs: { head: "Area of icebergs (km²)", of: (row) => row.area_m2 / 1e6 },
    melange: { head: "Extent of ice from the front (km)", of: (row) => row.extent_m / 1e3 },
    plumes: { head: "Area of the plume (km²)", of: (row) => row.area_m2 / 1e6 },
  };
  const WIDTH = 330, HEIGHT = 110, EDGE = { left: 40, right: 22, top: 22, bottom: 24 };
  const layers = {};
  const km2 = (m2) => `${(m2 / 1e6).toFixed(m2 < 1e6 ? 3 : 2)} km²`;

  // The layers are made when a glacier has features at all, so that a report without them is what it was.
  function layer(name) {
    if (layers[name]) return layers[name];
    const style = [
      new ol.style.Style({ stroke: new ol.style.Stroke({ color: "rgba(0,0,0,0.55)", width: 2.6 }) }),
      new ol.style.Style({ stroke: new ol.style.Stroke({ color: COLOURS[name], width: 1.3 }), fill: new ol.style.Fill({ color: `${COLOURS[name]}2e` }) }),
    ];
    layers[name] = new ol.layer.Vector({ source: new ol.source.Vector(), zIndex: 4, className: `sea-${name}`, style });
    atlas.map.map.addLayer(layers[name]);
    atlas.addLayerChoice({ name: NAMES[name], layers: [layers[name]], sign: `sea ${name}` });
    return layers[name];
  }

  const rowOf = (name, key) => atlas.state.data?.features?.[name]?.find((row) => row.key === key);

  atlas.drawSea = () => {
    Object.values(layers).forEach((l) => l.getSource().clear(true));
    const front = atlas.state.data?.features && !atlas.state.compare ? atlas.shownFront() : null;
    if (!front) return;
    for (const name of Object.keys(atlas.state.data.features)) {
      const row = rowOf(name, front.key);
      layer(name).getSource().addFeatures((row?.outlines ?? []).map((ring) => new ol.Feature({ geometry: new ol.geom.Polygon([ring]) })));
    }
    if (!get("pane-sea").hidden) showFacts(front);
  };

  // Where ice is packed before the front, the front itself is to be doubted.
  atlas.seaDoubt = (front) => {
    const row = rowOf("melange", front.key);
    if (row?.state !== "measured" || !row.touches_front) return [];
    return [["Ice before the front", `${Math.round(100 * row.fraction_at_front)} % of the first 500 m: the front may be its edge`]];
  };

  function words(name, row) {
    if (!row) return "not asked for";
    if (row.state !== "measured") return `not seen: ${atlas.received.about.featureReasons[row.reason] ?? row.reason}`;
    if (name === "icebergs") return `${atlas.count(row.icebergs, "iceberg")}, ${km2(row.area_m2)}${row.exponent == null ? "" : `, exponent ${row.exponent.toFixed(2)} ± ${row.exponent_sigma.toFixed(2)}`}`;
    if (name === "melange") return row.touches_front ? `reaches ${atlas.length(row.extent_m)} from the front` : "none at the front";
    return row.area_m2 ? `${km2(row.area_m2)}, reaches ${atlas.length(row.extent_m)}, relative turbidity ${Math.round(row.relative_turbidity_median_fnu)}` : "none";
  }

  function showFacts(front) {
    const names = Object.keys(atlas.state.data.features);
    get("seaFacts").replaceChildren(...names.flatMap((name) => [element("dt", NAMES[name]), element("dd", words(name, rowOf(name, front.key)))]));
    get("seaNote").textContent = `On ${front.date}. These measurements were tested on synthetic scenes only.`;
  }

  function chart(name) {
    const { head, of } = SERIES[name];
    const rows = atlas.state.data.features[name].filter((row) => row.state === "measured");
    const node = element("svg:svg", "", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${head}: ${atlas.count(rows.length, "scene")}` });
    const svg = d3.select(node);
    svg.append("text").attr("class", "head").attr("x", 0).attr("y", 12).text(head);
    if (!rows.length) {
      svg.append("text").attr("class", "nothing").attr("x", WIDTH / 2).attr("y", HEIGHT / 2).attr("text-anchor", "middle").text("in no scene");
      return node;
    }
    const [first, last] = d3.extent(atlas.state.data.fronts, (f) => f.day);
    const x = d3.scaleLinear([first, Math.max(last, first + 1)], [EDGE.left, WIDTH - EDGE.right]);
    const y = d3.scaleLinear([0, d3.max(rows, of) || 1], [HEIGHT - EDGE.bottom, EDGE.top]).nice(3);
    const axis = svg.append("g").attr("class", "axis");
    axis.append("g").attr("transform", `translate(0,${HEIGHT - EDGE.bottom})`).call(d3.axisBottom(x).tickValues([first, last]).tickFormat((d) => atlas.date(d).slice(0, 4)).tickSize(0).tickPadding(10));
    axis.append("g").attr("transform", `translate(${EDGE.left},0)`).call(d3.axisLeft(y).ticks(3).tickSize(-(WIDTH - EDGE.left - EDGE.right)).tickPadding(8));
    svg.append("g").selectAll("circle").data(rows).join("circle").attr("cx", (r) => x(r.day)).attr("cy", (r) => y(of(r))).attr("r", 3.4)
      .attr("fill", COLOURS[name]).attr("stroke", "rgba(0,0,0,.6)").style("cursor", "pointer")
      .on("pointermove", (event, r) => atlas.showTip(event.clientX, event.clientY, [r.date, words(name, r)])).on("pointerleave", atlas.hideTip)
      .on("click", (event, r) => { const [front] = atlas.state.data.byKey.get(r.key) ?? []; if (front) { atlas.choose(front); atlas.showTab("sea"); } });
    return node;
  }

  atlas.showSea = () => {
    if (!atlas.state.data?.features) return;
    get("seaCharts").replaceChildren(...Object.keys(atlas.state.data.features).map(chart));
    const front = atlas.shownFront();
    if (front) showFacts(front);
  };
  atlas.on("theme", () => { if (!get("pane-sea").hidden) atlas.showSea(); });
})();
