// The page: opens glaciers, chooses fronts, listens to pointer and keys.
"use strict";

(() => {
  const { get, state } = atlas;
  const about = atlas.received.about;
  const map = atlas.map.map;
  const only = about.glaciers.length === 1;

  atlas.openGlacier = async (glacier, { quick = false } = {}) => {
    let data;
    try { data = await atlas.load(glacier); } catch (error) { atlas.say(error.message); return; }
    leave();
    Object.assign(state, { glacier, data });
    show("glacier");
    document.title = only ? about.title : `${atlas.titleOf(glacier)} · ${about.title}`;
    atlas.showNumbers(glacier);
    atlas.showTime();
    atlas.showSeasonal();
    atlas.drawGlacier(data);
    atlas.showPanel();
    atlas.showFacts();
    atlas.redrawFronts();
    atlas.map.map.updateSize();
    atlas.map.locate(glacier.bounds);
    atlas.map.fit(glacier.bounds, { quick });
    if (!quick) get("name").focus({ preventScroll: true });
    get("side").scrollTop = 0;
    window.scrollTo(0, 0); // on a phone the list is below the map
    atlas.say(`${atlas.titleOf(glacier)}: ${atlas.count(glacier.fronts, "front")}`);
    atlas.tell("opened", { isStep: !quick });
  };

  atlas.openOverview = async ({ quick = false } = {}) => {
    const last = state.glacier;
    leave();
    Object.assign(state, { glacier: null, data: null });
    atlas.clearGlacier();
    show("overview");
    document.title = about.title;
    atlas.map.map.updateSize();
    atlas.map.locate(null);
    atlas.map.fit(atlas.map.wide, { quick });
    if (last && !quick) get("search").focus({ preventScroll: true });
    atlas.tell("opened", { isStep: !quick });
  };

  function leave() {
    atlas.stopPlaying();
    atlas.stopDrawing();
    if (state.compare) atlas.compare(null);
    state.chosen = null;
    atlas.pointAt(null);
    atlas.hideTip();
  }

  function show(view) {
    document.body.dataset.view = view;
    const isGlacier = view === "glacier";
    get("list").hidden = isGlacier;
    get("glacier").hidden = !isGlacier;
    get("time").hidden = !isGlacier || !state.glacier.fronts;
    get("compare").hidden = !isGlacier || state.data.byKey.size < 2;
    atlas.layers.boxes.setVisible(true);
    atlas.showLegend();
    atlas.drawDots();
  }

  atlas.choose = (front) => {
    if (state.chosen === front) { atlas.showFacts(); return; }
    atlas.stopDrawing();
    state.chosen = front;
    if (front && state.compare) atlas.compare([state.compare[0], front.key]);
    atlas.showFacts();
    atlas.redrawFronts();
    if (front) { atlas.showTab("front"); atlas.say(atlas.describe(front).join(", ")); }
    atlas.tell("chosen");
  };

  // The next front in time; from none the last or the first.
  function step(by) {
    const within = state.data.fronts.filter(atlas.inSpan);
    const at = within.indexOf(state.chosen);
    const next = at < 0 ? (by > 0 ? 0 : within.length - 1) : Math.max(0, Math.min(within.length - 1, at + by));
    if (within[next]) atlas.choose(within[next]);
  }

  function pointer(event) {
    if (event.dragging) { atlas.hideTip(); return; }
    const { clientX, clientY } = event.originalEvent;
    const glacier = state.glacier ? null : atlas.glacierAt(event.coordinate);
    const front = state.glacier && !atlas.isDrawing() ? atlas.frontAt(event.coordinate) : null;
    const row = state.glacier && !front ? atlas.rowAt(event.coordinate) : null;
    map.getTargetElement().style.cursor = glacier || front ? "pointer" : "";
    if (!state.glacier) atlas.pointAt(glacier);
    if (glacier) atlas.showTip(clientX, clientY, [atlas.titleOf(glacier), `${atlas.count(glacier.fronts, "front")}${glacier.first ? `, ${glacier.first.slice(0, 4)}–${glacier.last.slice(0, 4)}` : ""}`, glacier.change == null ? "" : `change ${atlas.length(glacier.change, { sign: true })}`].filter(Boolean));
    else if (front) atlas.showTip(clientX, clientY, atlas.describe(front));
    else if (row) atlas.showTip(clientX, clientY, describeRow(row));
    else atlas.hideTip();
  }

  function describeRow({ row, layer }) {
    if (layer === atlas.layers.references) return [`Reference, ${row[0]}`, row[1]].filter(Boolean);
    return [`Rejected line, ${row[1]}`, about.reasons[row[2]] ?? row[2], row[4]].filter(Boolean);
  }

  map.on("pointermove", pointer);
  map.getTargetElement().addEventListener("pointerleave", atlas.hideTip);
  map.on("click", (event) => {
    if (atlas.isDrawing()) return;
    if (state.glacier) atlas.choose(atlas.frontAt(event.coordinate));
    else { const glacier = atlas.glacierAt(event.coordinate); if (glacier) atlas.openGlacier(glacier); }
  });
  get("back").addEventListener("click", () => atlas.openOverview());
  get("before").addEventListener("click", () => atlas.openGlacier(atlas.neighbour(state.glacier, -1)));
  get("after").addEventListener("click", () => atlas.openGlacier(atlas.neighbour(state.glacier, 1)));
  get("earlier").addEventListener("click", () => step(-1));
  get("later").addEventListener("click", () => step(1));
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea, [role=tab]") || event.ctrlKey || event.metaKey || event.altKey || atlas.isDrawing()) return;
    if (event.key === "/") { event.preventDefault(); (state.glacier ? atlas.openOverview() : Promise.resolve()).then(() => get("search").focus()); }
    if (!state.glacier) return;
    if (event.key === "," || event.key === "<") step(-1);
    if (event.key === "." || event.key === ">") step(1);
  });

  // On paper all is light, and the map has the width of the paper and shows what it showed.
  let theme = "";
  const asPrinted = (isPrinted) => () => {
    const { dataset } = document.documentElement;
    if (isPrinted) theme = dataset.theme ?? "";
    dataset.theme = isPrinted ? "light" : theme;
    atlas.tell("theme");
    const [width, height] = map.getSize(), resolution = atlas.map.view.getResolution();
    document.body.classList.toggle("printed", isPrinted);
    map.updateSize();
    const shares = [width / map.getSize()[0], height / map.getSize()[1]];
    atlas.map.view.setResolution(resolution * (isPrinted ? Math.max(...shares) : Math.min(...shares)));
    map.renderSync();
  };
  window.addEventListener("beforeprint", asPrinted(true));
  window.addEventListener("afterprint", asPrinted(false));

  // Light and dark: the system's, until a person says otherwise.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : dark.matches);
  get("theme").addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; atlas.tell("theme"); });
  dark.addEventListener("change", () => atlas.tell("theme"));

  document.title = get("title").textContent = about.title;
  get("back").hidden = get("before").hidden = get("after").hidden = only;
  if (only && !location.hash) atlas.openGlacier(about.glaciers[0], { quick: true });
  else atlas.readAddress();
})();
