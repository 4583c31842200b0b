// Each view has an address: #glacier=NAME&span=A/B&front=SCENE#N&compare=SCENE,SCENE&view=X,Y,RESOLUTION,ROTATION
"use strict";

(() => {
  let written = "";
  const within = (key) => encodeURIComponent(key.slice(atlas.state.glacier.name.length + 1)); // the scene without its domain

  // A glacier that a person opens is a step of the browser's history; all else of a view changes the step in place.
  function write({ isStep = false } = {}) {
    const { glacier, data, chosen, compare, from, to } = atlas.state;
    const parts = [];
    if (glacier) parts.push(["glacier", encodeURIComponent(glacier.name)]);
    if (data?.fronts.length && (from > data.fronts[0].day || to < data.fronts[data.fronts.length - 1].day)) parts.push(["span", `${atlas.date(from)}/${atlas.date(to)}`]);
    if (chosen) parts.push(["front", within(atlas.placeOf(chosen))]);
    if (compare) parts.push(["compare", compare.map(within).join(",")]);
    parts.push(["view", atlas.viewText()]);
    written = `#${parts.map((part) => part.join("=")).join("&")}`;
    if (location.hash === written) return;
    try { history[isStep ? "pushState" : "replaceState"](null, "", written); } catch { /* a page within another has no address of its own */ }
  }

  function decoded(text) {
    try { return decodeURIComponent(text); } catch { return text; } // a link that was cut leads to the overview
  }

  async function read() {
    const parts = new Map(location.hash.slice(1).split("&").filter(Boolean).map((part) => part.split("=")));
    const told = (name) => decoded(parts.get(name) ?? "");
    const glacier = atlas.received.about.glaciers.find((g) => g.name === told("glacier"));
    if (!glacier) { await atlas.openOverview({ quick: true }); if (parts.has("view")) atlas.showView(parts.get("view")); return; }
    await atlas.openGlacier(glacier, { quick: true });
    const { data } = atlas.state;
    const span = parts.get("span")?.split("/").map(atlas.day);
    if (span?.every(Number.isFinite)) atlas.setSpan(...span);
    const front = data.fronts.find((f) => atlas.placeOf(f) === `${glacier.name}/${told("front")}`);
    if (front) atlas.choose(front);
    const keys = parts.get("compare")?.split(",").map((scene) => `${glacier.name}/${decoded(scene)}`);
    if (keys?.length === 2 && keys.every((key) => data.byKey.has(key))) atlas.compare(keys);
    if (parts.has("view")) atlas.showView(parts.get("view"));
  }

  atlas.readAddress = read;
  for (const event of ["moved", "changed", "chosen"]) atlas.on(event, () => write());
  atlas.on("opened", write);
  window.addEventListener("hashchange", () => { if (location.hash !== written) read(); });
})();
