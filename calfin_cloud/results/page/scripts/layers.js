// The layers that a person switches on and off, and the background from the network, which is off.
"use strict";

(() => {
  // NASA's GIBS serves tiles in both polar projections: a clear summer of MODIS.
  const ONLINE = {
    "EPSG:3413": { where: "epsg3413", day: "2020-08-01" },
    "EPSG:3031": { where: "epsg3031", day: "2020-01-15" },
  };
  const RESOLUTIONS = [8192, 4096, 2048, 1024, 512, 256];
  const EDGE_M = 4194304;

  const layer = (zIndex, options = {}) => new ol.layer.Vector({ source: new ol.source.Vector(), zIndex, className: `layer${zIndex}`, ...options });
  const picture = new ol.layer.Image({ zIndex: 3, className: "picture" });
  const BOX_M = 500; // resolution above which boxes are hidden by their dots
  const boxes = layer(2, { maxResolution: BOX_M }), references = layer(5), candidates = layer(6), fronts = layer(7), chosen = layer(8), dots = layer(9, { declutter: true });
  [picture, boxes, references, candidates, fronts, chosen, dots].forEach((l) => atlas.map.map.addLayer(l));
  atlas.layers = { picture, boxes, references, candidates, fronts, chosen, dots, online: null };

  // The feature of a layer that is nearest to a place of the map, if it is as near as so many pixels.
  atlas.nearest = (layer, place, px, filter) => {
    if (!layer.getVisible()) return null;
    const feature = layer.getSource().getClosestFeatureToCoordinate(place, filter);
    if (!feature) return null;
    const [x, y] = feature.getGeometry().getClosestPoint(place);
    return Math.hypot(x - place[0], y - place[1]) <= px * atlas.map.view.getResolution() ? feature : null;
  };

  // What no glacier of the report has is not promised: references, where none were given.
  const has = (what) => atlas.received.about.glaciers.some((g) => g[what]);
  const choices = [
    { name: "Fronts", layers: [fronts, chosen], sign: "front" },
    { name: "Picture of the date", layers: [picture], sign: "picture" },
    ...(has("candidates") ? [{ name: "Rejected lines", layers: [candidates], sign: "candidate", off: true }] : []),
    ...(has("references") ? [{ name: "Reference fronts", layers: [references], sign: "reference" }] : []),
    { name: "Outlines of the domains", layers: [boxes], sign: "box" },
    { name: "Longitude and latitude", layers: [atlas.map.graticule], sign: "grid" },
  ];

  function addChoice({ name, layers, sign, off, note, change }) {
    const label = atlas.element("label"), box = atlas.element("input", "", { type: "checkbox" });
    box.checked = !off;
    const show = () => (change ? change(box.checked) : layers.forEach((l) => l.setVisible(box.checked)));
    box.addEventListener("change", () => { show(); atlas.tell("layers"); });
    if (!change) show();
    label.append(box, atlas.element("span", "", { class: `sign ${sign}`, "aria-hidden": "true" }), atlas.element("span", name));
    if (note) label.append(atlas.element("small", note));
    atlas.get("layers").append(label);
  }

  function showOnline(isOn) {
    const tiles = ONLINE[atlas.received.about.crs];
    if (isOn && !atlas.layers.online) {
      const grid = new ol.tilegrid.WMTS({ origin: [-EDGE_M, EDGE_M], resolutions: RESOLUTIONS, matrixIds: RESOLUTIONS.map((_, i) => String(i)), tileSize: 512 });
      const source = new ol.source.WMTS({
        url: `https://gibs.earthdata.nasa.gov/wmts/${tiles.where}/best/wmts.cgi?TIME=${tiles.day}`,
        layer: "MODIS_Terra_CorrectedReflectance_TrueColor",
        format: "image/jpeg",
        matrixSet: "250m",
        projection: atlas.map.projection,
        tileGrid: grid,
        wrapX: false,
      });
      atlas.layers.online = new ol.layer.Tile({ source, zIndex: 0.5, className: "online" });
      atlas.map.map.addLayer(atlas.layers.online);
    }
    atlas.layers.online?.setVisible(isOn);
  }

  atlas.addLayerChoice = addChoice;
  choices.forEach(addChoice);
  if (ONLINE[atlas.received.about.crs]) {
    addChoice({ name: "Online background", sign: "net", off: true, note: "MODIS by NASA GIBS; loaded from the internet", change: showOnline });
  }

  const button = atlas.get("layersButton"), card = atlas.get("layers");
  const toggle = (isOpen) => { card.hidden = !isOpen; button.setAttribute("aria-expanded", isOpen); };
  button.addEventListener("click", () => { toggle(card.hidden); if (!card.hidden) card.querySelector("input").focus(); });
  card.addEventListener("keydown", (event) => { if (event.key === "Escape") { toggle(false); button.focus(); } });
  atlas.map.map.on("click", () => toggle(false));

  // A box around each domain, and its name where there is room.
  boxes.getSource().addFeatures(atlas.received.about.glaciers.map((g) => new ol.Feature({ geometry: ol.geom.Polygon.fromExtent(g.bounds), glacier: g })));
  function dress() {
    boxes.setStyle(new ol.style.Style({ stroke: new ol.style.Stroke({ color: atlas.css("--box"), width: 1, lineDash: [4, 4] }) }));
  }
  atlas.on("theme", dress);
  dress();
})();
