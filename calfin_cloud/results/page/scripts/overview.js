// All glaciers: a dot each on the map, a line each in the list, found by name and put in order.
"use strict";

(() => {
  const about = atlas.received.about;
  const glaciers = about.glaciers;
  const change = atlas.changeScale(glaciers);
  const counts = atlas.countScale(glaciers.map((g) => g.fronts));
  const allYears = [...new Set(glaciers.flatMap((g) => g.years))].sort(d3.ascending);
  const coverage = d3.scaleSequential([0, 1], (t) => d3.interpolateYlGnBu(0.2 + 0.8 * t));
  const share = (g) => g.years.length / Math.max(1, allYears[allYears.length - 1] - allYears[0] + 1);
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const title = (g) => g.name.replaceAll("-", " ").replaceAll("_", " ").replace(/^./, (letter) => letter.toUpperCase());
  atlas.titleOf = title;
  atlas.numberOf = (g) => (g.id && !title(g).endsWith(g.id) ? (/^\d/.test(g.id) ? `No. ${g.id} · ` : `${g.id} · `) : "");

  const KINDS = {
    change: { name: "change of position", colour: (g) => (g.change == null ? null : change.colour(g.change)), ends: [`−${atlas.length(change.most)}`, "0", `+${atlas.length(change.most)}`], steps: d3.range(-1, 1.01, 0.1).map((t) => change.colour(t * change.most)), words: ["retreat", "advance"] },
    fronts: { name: "number of fronts", colour: (g) => counts(g.fronts), ends: ["0", "", String(d3.max(glaciers, (g) => g.fronts) ?? 0)], steps: d3.range(0, 1.01, 0.1).map((t) => counts(t * t * counts.domain()[1])) },
    coverage: { name: "years with a front", colour: (g) => coverage(share(g)), ends: ["0 %", "", "100 %"], steps: d3.range(0, 1.01, 0.1).map(coverage) },
  };
  let kind = "change";
  let found = glaciers;

  // Map

  const features = new Map(glaciers.map((g) => [g, new ol.Feature({ geometry: new ol.geom.Point([(g.bounds[0] + g.bounds[2]) / 2, (g.bounds[1] + g.bounds[3]) / 2]), glacier: g })]));
  atlas.layers.dots.getSource().addFeatures([...features.values()]);
  const NEAR_PX = 11;
  const FAR_M = 1500, NAME_M = 400; // resolutions: dots are small beyond, and have names below
  const radius = (g, resolution) => (3 + 4 * Math.sqrt(g.fronts / Math.max(1, counts.domain()[1]))) * Math.min(1.5, Math.max(0.75, Math.sqrt(FAR_M / resolution)));
  let pointed = null;

  function dotStyle(feature, resolution) {
    const g = feature.get("glacier");
    if (atlas.state.glacier || !found.includes(g)) return null;
    const colour = KINDS[kind].colour(g), isPointed = g === pointed;
    const ring = colour ? colours.edge : colours.ink; // a hollow dot has nothing else to be seen by
    return new ol.style.Style({
      image: new ol.style.Circle({
        radius: radius(g, resolution) + (isPointed ? 3 : 0),
        fill: new ol.style.Fill({ color: colour ?? "rgba(0,0,0,0)" }),
        stroke: new ol.style.Stroke({ color: isPointed ? colours.accent : ring, width: isPointed ? 3 : 1 }),
        declutterMode: "none",
      }),
      text: resolution < NAME_M || isPointed ? new ol.style.Text({ text: title(g), font: "600 12px system-ui, sans-serif", offsetY: -radius(g, resolution) - 10, fill: new ol.style.Fill({ color: colours.ink }), stroke: new ol.style.Stroke({ color: colours.halo, width: 3 }) }) : undefined,
      zIndex: isPointed ? Infinity : Math.abs(g.change ?? -1), // what moved most lies above
    });
  }
  let colours = {};
  function dress() {
    colours = { accent: atlas.css("--accent"), edge: atlas.css("--dotEdge"), ink: atlas.css("--ink"), halo: atlas.css("--halo") };
    atlas.layers.dots.changed();
  }
  dress();
  atlas.layers.dots.setStyle(dotStyle);
  atlas.drawDots = () => atlas.layers.dots.changed();

  atlas.glacierAt = (place) => atlas.nearest(atlas.layers.dots, place, NEAR_PX, (f) => found.includes(f.get("glacier")))?.get("glacier") ?? null;

  atlas.pointAt = (glacier) => {
    if (pointed === glacier) return;
    pointed = glacier;
    atlas.drawDots();
  };

  // List

  const rows = new Map(glaciers.map((g) => [g, listRow(g)]));

  function listRow(g) {
    const item = atlas.element("li"), button = atlas.element("button", "", { type: "button" });
    const words = atlas.element("span", "", { class: "words" });
    const told = g.fronts ? [atlas.numberOf(g).replace(/ $/, "\u00a0"), `${atlas.count(g.fronts, "front")} ·\u00a0`, atlas.years(g)].filter(Boolean) : ["no front"];
    const small = atlas.element("small"); // where there is no room, the years are on a line of their own
    small.append(...told.map((part) => atlas.element("span", part)));
    words.append(atlas.element("b", title(g)), small);
    const chip = atlas.element("span", g.change == null ? "–" : atlas.length(g.change, { sign: true }), { class: "change" });
    if (g.change != null) chip.style.setProperty("--dot", change.colour(g.change));
    button.append(words, spark(g), chip);
    button.addEventListener("click", () => atlas.openGlacier(g));
    for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => atlas.pointAt(g));
    button.addEventListener("pointerleave", () => atlas.pointAt(null));
    item.append(button);
    return item;
  }

  function spark(g) {
    const svg = atlas.element("svg:svg", "", { viewBox: "0 0 64 22", class: "spark", "aria-hidden": "true" });
    if (g.spark.length < 2) return svg;
    const x = d3.scaleLinear(d3.extent(g.spark, (p) => p[0]), [2, 62]), y = d3.scaleLinear(d3.extent(g.spark, (p) => p[1]), [20, 2]);
    svg.append(atlas.element("svg:path", "", { d: d3.line((p) => x(p[0]), (p) => y(p[1]))(g.spark) }));
    return svg;
  }

  const ORDERS = {
    number: (a, b) => collator.compare(a.id || a.name, b.id || b.name) || collator.compare(a.name, b.name),
    name: (a, b) => collator.compare(a.name, b.name),
    change: (a, b) => (a.change ?? Infinity) - (b.change ?? Infinity) || collator.compare(a.name, b.name),
    fronts: (a, b) => b.fronts - a.fronts || collator.compare(a.name, b.name),
  };

  function showList() {
    const plain = (text) => text.toLowerCase().replaceAll("æ", "ae").replaceAll("ø", "o").normalize("NFD").replace(/\p{M}/gu, ""); // as `calfin domains --glacier`
    const wanted = plain(atlas.get("search").value.trim());
    const bare = wanted.replace(/[\s-]+(glacier|gletscher|gletsjer|isbrae|brae|isstrom|sermia|gl\.?)$/, "");
    const has = (g, text) => plain(title(g)).includes(text) || plain(g.name).includes(text);
    found = glaciers.filter((g) => has(g, wanted) || has(g, bare) || g.id === wanted);
    const ordered = [...found].sort(ORDERS[atlas.get("order").value]);
    atlas.get("glaciers").replaceChildren(...ordered.map((g) => rows.get(g)));
    atlas.get("shown").textContent = wanted ? `${found.length} of ${glaciers.length}` : atlas.count(glaciers.length, "glacier");
    atlas.get("nothing").hidden = found.length > 0;
    atlas.drawDots();
  }

  atlas.neighbour = (glacier, step) => {
    const ordered = [...glaciers].sort(ORDERS[atlas.get("order").value]);
    return ordered[(ordered.indexOf(glacier) + step + ordered.length) % ordered.length];
  };

  // Legend

  atlas.showLegend = () => {
    const legend = atlas.get("legend");
    legend.hidden = Boolean(atlas.state.glacier) || glaciers.length < 2;
    const shown = KINDS[kind];
    const label = atlas.element("label", "Dots show "), select = atlas.element("select");
    for (const [value, { name }] of Object.entries(KINDS)) select.append(new Option(name, value, false, value === kind));
    select.addEventListener("change", () => { kind = select.value; atlas.showLegend(); atlas.drawDots(); legend.querySelector("select").focus(); });
    label.append(select);
    const bar = atlas.element("div", "", { class: "bar" });
    bar.style.background = `linear-gradient(90deg, ${shown.steps.join(", ")})`;
    const ends = atlas.element("div", "", { class: "ends" });
    ends.append(...shown.ends.map((text) => atlas.element("span", text)));
    legend.replaceChildren(label, bar, ends);
    if (shown.words) {
      const words = atlas.element("div", "", { class: "ends soft" });
      words.append(...shown.words.map((text) => atlas.element("span", text)));
      legend.append(words);
    }
    const notes = [kind !== "fronts" && "larger dot: more fronts", glaciers.some((g) => shown.colour(g) == null) && "hollow: not known"].filter(Boolean);
    if (notes.length) legend.append(atlas.element("small", notes.join(" · ")));
  };

  const sum = d3.sum(glaciers, (g) => g.fronts);
  const span = allYears.length ? `, ${atlas.span(allYears[0], allYears[allYears.length - 1])}` : "";
  atlas.get("summary").textContent = `${atlas.count(glaciers.length, "glacier")}, ${atlas.count(sum, "front")}${span}`;
  atlas.get("search").addEventListener("input", showList);
  atlas.get("search").addEventListener("keydown", (event) => { if (event.key === "Enter" && found.length) atlas.openGlacier([...found].sort(ORDERS[atlas.get("order").value])[0]); });
  atlas.get("order").addEventListener("change", showList);
  atlas.on("theme", dress);
  showList();
})();
