// What a person says of fronts: accept, reject, redraw; kept in the browser and saved as a file for `calfin review`.
"use strict";

(() => {
  const { get, state } = atlas;
  const about = atlas.received.about;
  const stored = `verdicts ${location.pathname}`;
  const applied = new Set(about.applied.map((parts) => JSON.stringify(parts)));
  const isNew = ({ key, front, author, time }) => !applied.has(JSON.stringify([key, front, author, time]));
  const names = new Set(about.glaciers.map((g) => g.name));
  const isOurs = ({ key }) => names.has(key.split("/")[0]);
  let ofOthers = []; // verdicts of a report that was in this place before
  const style = ["rgba(0,0,0,0.75)", "#ffe14d"].map((color, i) => new ol.style.Style({ stroke: new ol.style.Stroke({ color, width: i ? 3 : 6, lineCap: "round" }), image: i ? new ol.style.Circle({ radius: 5, fill: new ol.style.Fill({ color }), stroke: new ol.style.Stroke({ color: "#222", width: 1.5 }) }) : undefined }));
  let drawing = null;

  function remembered() {
    try { return localStorage.getItem(stored); } catch { return null; } // some browsers have none for local files
  }

  // Again before each change, since the report may be open twice.
  function recall() {
    const kept = JSON.parse(remembered() ?? "null");
    if (!kept) return;
    ofOthers = kept.filter(([, verdict]) => !isOurs(verdict));
    state.verdicts = new Map(kept.filter(([, verdict]) => isOurs(verdict) && isNew(verdict)));
  }

  function remember() {
    try { localStorage.setItem(stored, JSON.stringify([...ofOthers, ...state.verdicts])); } catch { /* then they last as long as the page */ }
  }

  function decide(verdict, line = null) {
    const front = state.chosen, author = get("author").value.trim();
    if (!author) { get("author").focus(); get("author").placeholder = "your name first"; atlas.say("Write your name first"); get("author").classList.add("wanted"); return; }
    recall();
    const time = `${new Date().toISOString().slice(0, 19)}Z`;
    state.verdicts.set(atlas.placeOf(front), { key: front.key, front: front.front, verdict, author, time, judged: front.line_id, line });
    show(front, verdict);
  }

  function takeBack() {
    recall();
    state.verdicts.delete(atlas.placeOf(state.chosen));
    show(state.chosen, "your verdict is taken back");
  }

  function show(front, words) {
    if (!state.verdicts.get(atlas.placeOf(front))?.line) resetLine(front);
    remember();
    showCount();
    atlas.showFacts();
    atlas.redrawFronts();
    atlas.say(`${front.date}: ${words}`);
  }

  // A front that was redrawn and is then accepted lies again where it was.
  function resetLine(front) {
    const feature = atlas.layers.fronts.getSource().getFeatures().find((f) => f.get("front") === front);
    feature?.setGeometry(new ol.geom.LineString(front.line));
  }

  function startDrawing({ isByKey }) {
    if (!get("author").value.trim()) { decide("redraw"); return; }
    atlas.compare(null);
    drawing = new ol.interaction.Draw({ type: "LineString", style, stopClick: true });
    drawing.on("drawend", (event) => {
      const points = event.feature.getGeometry().getCoordinates();
      stopDrawing();
      if (points.length >= 2) decide("redraw", points.map(([x, y]) => [Math.round(x * 10) / 10, Math.round(y * 10) / 10]));
    });
    atlas.map.map.addInteraction(drawing);
    get("done").disabled = true;
    drawing.on("drawstart", ({ feature }) => feature.on("change", () => { get("done").disabled = feature.getGeometry().getCoordinates().length < 3; })); // one is that under the pointer
    drawing.on("drawabort", () => { get("done").disabled = true; });
    get("drawing").hidden = false;
    document.body.classList.add("drawing");
    atlas.startCross(drawing, state.chosen, { isShown: isByKey });
    atlas.say("Draw the front on the map");
  }

  function stopDrawing() {
    if (!drawing) return;
    const isOnMap = document.querySelector("main").contains(document.activeElement);
    atlas.map.map.removeInteraction(drawing);
    atlas.stopCross();
    drawing = null;
    get("drawing").hidden = true;
    document.body.classList.remove("drawing");
    if (isOnMap) document.querySelector("[data-verdict=redraw]").focus({ preventScroll: true });
  }
  atlas.stopDrawing = stopDrawing;
  atlas.isDrawing = () => Boolean(drawing);

  function verdictsText() {
    const list = [...state.verdicts.values()].map(({ line, judged, ...verdict }) => ({ ...verdict, line: judged, ...(line && { geometry: { type: "LineString", coordinates: line } }) }));
    return JSON.stringify(list, null, 1);
  }

  function save() {
    const link = atlas.element("a", "", { download: "verdicts.json" });
    link.href = URL.createObjectURL(new Blob([verdictsText()], { type: "application/json" }));
    link.click();
    URL.revokeObjectURL(link.href);
  }

  function showCount() {
    get("save").hidden = !state.verdicts.size;
    get("save").textContent = `Save ${atlas.count(state.verdicts.size, "verdict")}`;
  }

  document.querySelectorAll("[data-verdict]").forEach((button) => button.addEventListener("click", (event) => {
    if (button.dataset.verdict === "redraw") { stopDrawing(); startDrawing({ isByKey: event.detail === 0 }); } // it counts no clicks of a key
    else if (atlas.toldOf(state.chosen)?.verdict === button.dataset.verdict) takeBack();
    else decide(button.dataset.verdict);
  }));
  get("author").addEventListener("input", () => get("author").classList.remove("wanted"));
  get("done").addEventListener("click", () => drawing?.finishDrawing());
  get("cancel").addEventListener("click", stopDrawing);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && drawing) stopDrawing(); });
  get("save").addEventListener("click", () => { recall(); save(); showCount(); });
  recall();
  showCount();
})();
