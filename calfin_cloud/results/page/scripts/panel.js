// The panel beside the map: numbers of a glacier, the chosen front, its scenes; and the dialog on data and method.
"use strict";

(() => {
  const { get, element } = atlas;
  const about = atlas.received.about;
  const SHEET_STEP = 40;
  const FLAGS = { 0: "drawn by a person", 3: "drawn by a person, Landsat 7 with stripes", 10: "automatic", 13: "automatic, Landsat 7 with stripes" };
  const TABS = ["front", "scenes", "sea", "without"];
  let nShown = SHEET_STEP;

  atlas.showNumbers = (glacier) => {
    get("name").textContent = atlas.titleOf(glacier);
    get("names").replaceChildren(element("bdi", atlas.numberOf(glacier)), `${glacier.resolution} m pixels · ${about.crs}`);
    const speed = (metres) => `${metres < 0 ? "−" : "+"}${Math.abs(Math.round(metres))}`;
    const rate = glacier.rate == null ? "–" : `${speed(glacier.rate)} m/yr`;
    const facts = [
      [`${glacier.fronts.toLocaleString("en")}`, `${glacier.fronts === 1 ? "front" : "fronts"} in ${atlas.count(glacier.scenes, "scene")}${glacier.rejected ? `, ${glacier.rejected} rejected` : ""}`],
      [glacier.first ? atlas.years(glacier) : "–", `${atlas.count(glacier.years.length, "year")} with a front`],
      [atlas.length(glacier.change, { sign: true }), "change, first to last year"],
      [rate, `rate${glacier.rate_range ? `, 95 %: ${glacier.rate_range.map(speed).join(" to ")} m/yr` : ""}`],
    ];
    get("numbers").replaceChildren(...facts.map(([value, words]) => {
      const box = element("div");
      box.append(element("dt", words), element("dd", value));
      return box;
    }));
  };

  // The chosen front

  atlas.showFacts = () => {
    const front = atlas.state.chosen;
    get("hint").hidden = Boolean(front);
    get("facts").hidden = !front;
    if (!front) return;
    get("factTitle").textContent = front.date;
    get("factTitle").style.setProperty("--dot", atlas.colourOf(front.day));
    const position = atlas.measuredOf(front);
    const rows = [["Satellite", `${front.platform}, ${front.time} UTC`], ["Scene", front.scene]];
    if (position) rows.push(["Advance since the start", atlas.advance(position)]);
    rows.push(["Length", atlas.length(front.length_m)]);
    if (front.sigma_m != null) rows.push(["Uncertainty", `± ${Math.round(front.sigma_m)} m (68 %)`]);
    if (front.score != null) rows.push(["Score", `${front.score.toFixed(2)} of 1${front.score_reasons ? ` (${front.score_reasons})` : ""}`]);
    if (front.choice) rows.push(["By all dates", `${front.choice}: ${front.choice_why}`]);
    rows.push(...atlas.seaDoubt(front));
    rows.push(["Quality flag", FLAGS[front.quality_flag] ? `${front.quality_flag}: ${FLAGS[front.quality_flag]}` : front.quality_flag], ["Verdict", [atlas.verdictOf(front) || "none yet", atlas.judgeOf(front)].filter(Boolean).join(", by ")]);
    get("factTable").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", name), element("dd", String(value ?? "–"))]));
    get("doubt").hidden = !front.flags;
    get("doubt").textContent = front.flags ? `Doubtful: ${front.flags}: ${front.flag_details}` : "";
    document.querySelectorAll("[data-verdict]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.verdict === atlas.verdictOf(front)));
  };

  // Scenes

  function showSheet() {
    const { data, glacier } = atlas.state;
    if (!data) return;
    const list = [...data.byKey.values()].filter(([f]) => atlas.inSpan(f)).reverse();
    const [left, bottom, right, top] = glacier.bounds;
    get("sheet").replaceChildren(...list.slice(0, nShown).map((fronts) => {
      const front = fronts[0], path = data.pictures[front.key];
      const button = element("button", "", { type: "button", "aria-label": `${front.date} ${front.platform}` });
      const frame = element("span", "", { class: path ? "frame" : "frame blank" });
      if (path) frame.append(element("img", "", { loading: "lazy", alt: "", src: path }));
      const svg = element("svg:svg", "", { viewBox: `0 0 ${right - left} ${top - bottom}`, "aria-hidden": "true" });
      for (const f of fronts) {
        const d = `M${atlas.lineOf(f).map(([x, y]) => `${Math.round(x - left)} ${Math.round(top - y)}`).join("L")}`;
        svg.append(element("svg:path", "", { d, class: "under" }), element("svg:path", "", { d, stroke: atlas.colourOf(f.day) }));
      }
      frame.append(svg);
      button.append(frame, element("b", front.date), element("small", `${front.platform}${front.flags ? " · doubtful" : ""}`));
      button.addEventListener("click", () => { atlas.choose(front); showTab("front"); });
      return button;
    }));
    get("more").hidden = list.length <= nShown;
  }

  function showWithout() {
    const { without } = atlas.state.data;
    const counts = d3.rollups(without, (rows) => rows.length, (row) => about.reasons[row[4]] ?? row[4]).sort((a, b) => b[1] - a[1]);
    get("reasons").replaceChildren(...(counts.length ? counts.map(([words, n]) => { const li = element("li"); li.append(element("b", String(n)), ` ${words}`); return li; }) : [element("li", atlas.state.glacier.scenes ? "Every scene has a front." : "No scene was mapped yet.", { class: "empty" })]));
    atlas.fillTable(get("without"), without.map(([scene, date, platform, state, reason, detail]) => [`${date}\n${platform}`, `${state === "failed" ? "failed: " : ""}${about.reasons[reason] ?? reason}${detail ? ` (${detail})` : ""}`, scene]), without.length ? ["Date, satellite", "Why", "Scene"] : null);
  }

  function showTab(name, { focus = false } = {}) {
    for (const tab of TABS) {
      const isOn = tab === name;
      get(`tab-${tab}`).setAttribute("aria-selected", isOn);
      get(`tab-${tab}`).tabIndex = isOn ? 0 : -1;
      get(`pane-${tab}`).hidden = !isOn;
    }
    if (name === "sea") atlas.showSea();
    if (name === "scenes") { nShown = SHEET_STEP; showSheet(); }
    if (focus) get(`tab-${name}`).focus();
  }
  atlas.showTab = showTab;

  TABS.forEach((tab) => {
    get(`tab-${tab}`).addEventListener("click", () => showTab(tab));
    get(`tab-${tab}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const open = TABS.filter((name) => !get(`tab-${name}`).hidden);
      if (step) showTab(open[(open.indexOf(tab) + step + open.length) % open.length], { focus: true });
    });
  });
  get("more").addEventListener("click", () => { nShown += SHEET_STEP; showSheet(); });

  atlas.showPanel = () => {
    const has = atlas.state.data.fronts.length > 0;
    get("tab-front").hidden = get("tab-scenes").hidden = !has;
    get("tab-sea").hidden = !atlas.state.data.features;
    get("tab-without").textContent = `Without front (${atlas.state.data.without.length})`;
    showWithout();
    showTab(has ? "front" : "without");
  };
  atlas.on("span", () => { if (!get("pane-scenes").hidden) showSheet(); });

  // Tip beside the pointer

  atlas.showTip = (x, y, lines) => {
    const tip = get("tip");
    tip.replaceChildren(...lines.map((text, i) => element(i ? "span" : "b", text)));
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${y + 18 + height > innerHeight ? y - height - 12 : y + 18}px`;
  };
  atlas.hideTip = () => { get("tip").hidden = true; };

  // Dialog

  atlas.fillTable(get("provenance"), about.provenance);
  const WORDS = { "fronts.geojson": "all fronts as lines, longitude and latitude (RFC 7946)", "scenes.csv": "every scene and its fronts, or why it has none", "positions.csv": "position of each front", "rates.csv": "rate of each glacier", "yearly.csv": "mean position of each year", "seasonal.csv": "mean year: position by month", "flags.csv": "doubtful fronts", "features.csv": "icebergs, mélange and plumes of each scene", "icebergs.geojson": "outlines of icebergs", "melange.geojson": "mélange: ice packed before the front", "plumes.geojson": "outlines of plumes of turbid water" };
  get("downloads").append(...about.downloads.map((name) => {
    const item = element("li");
    item.append(element("a", name, { href: name, download: name }), ` ${WORDS[name] ?? ""}`);
    return item;
  }));
  get("about").addEventListener("click", () => get("dialog").showModal());
  get("close").addEventListener("click", () => get("dialog").close());
})();
