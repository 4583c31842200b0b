// The map in the projection of the store: land, graticule, scale bar, north arrow, coordinates.
"use strict";

(() => {
  const about = atlas.received.about;
  const LEAST_AROUND_M = 150_000;
  const NEAR_M = 150; // below this resolution land is only a hint: it is drawn at the scale of a region
  const LEGEND_PX = 104; // on a phone it lies above the map's middle
  const ROUND = 7; // significant places of a resolution in the address

  proj4.defs(about.crs, about.proj4);
  ol.proj.proj4.register(proj4);
  const projection = ol.proj.get(about.crs);
  const toLonLat = (point) => proj4(about.crs, "EPSG:4326", point);
  const toMap = (lonlat) => proj4("EPSG:4326", about.crs, lonlat);

  const land = new ol.source.Vector();
  const landLayer = new ol.layer.Vector({ source: land, className: "land", zIndex: 0, updateWhileAnimating: true, updateWhileInteracting: true });
  for (const [kind, polygons] of Object.entries(atlas.received.land)) {
    for (const rings of polygons) land.addFeature(new ol.Feature({ geometry: new ol.geom.Polygon(rings.map(atlas.points)), kind }));
  }

  const graticule = new ol.layer.Vector({ source: new ol.source.Vector(), className: "graticule", zIndex: 1 });
  graticule.getSource().addFeatures(gridLines());

  const scaleLine = new ol.control.ScaleLine({ bar: false, minWidth: 90, className: "scale" });
  const view = new ol.View({ projection, center: ol.extent.getCenter(about.bounds), resolution: 1000, minResolution: 0.5, maxResolution: 20000, extent: about.window, constrainResolution: false, enableRotation: true });
  const map = new ol.Map({
    target: "map",
    layers: [landLayer, graticule],
    view,
    controls: [scaleLine],
    interactions: ol.interaction.defaults.defaults({ doubleClickZoom: true, altShiftDragRotate: true }),
    keyboardEventTarget: atlas.get("map"),
  });
  // Where on the whole the shown glacier is.
  const locatorLayer = new ol.layer.Vector({ source: land });
  const here = new ol.layer.Vector({ source: new ol.source.Vector() });
  const locator = new ol.Map({ target: "locator", layers: [locatorLayer, here], view: new ol.View({ projection, center: [0, 0], resolution: 1000 }), controls: [], interactions: [] });
  const wide = ol.extent.buffer(about.bounds, Math.max(LEAST_AROUND_M, 0.03 * (about.bounds[2] - about.bounds[0])));
  function locate(bounds) {
    atlas.get("locator").hidden = !bounds;
    if (!bounds) return;
    here.getSource().clear(true);
    here.getSource().addFeature(new ol.Feature(new ol.geom.Point(ol.extent.getCenter(bounds))));
    locator.updateSize();
    locator.getView().fit(wide);
  }

  atlas.map = { wide, locate, map, view, projection, toLonLat, toMap, graticule, fit, turnNorthUp, showPlace, placeText };

  // Meridians and parallels, dense enough to bend as they do.
  function gridLines() {
    const [left, bottom, right, top] = about.window;
    const middle = toLonLat([(left + right) / 2, (bottom + top) / 2]);
    const half = Math.max(12, (top - bottom) / 2e5); // in degrees of latitude, and some more
    const isPolar = Math.abs(middle[1]) > Math.min(55, 75 - half);
    const corners = [[left, bottom], [left, top], [right, bottom], [right, top]].map((corner) => Math.abs(toLonLat(corner)[1]));
    const lats = isPolar ? [Math.sign(middle[1]) * Math.floor(Math.min(50, ...corners) / 5) * 5, Math.sign(middle[1]) * 89.5] : [middle[1] - half, middle[1] + half];
    const [south, north] = [Math.min(...lats), Math.max(...lats)];
    const lons = isPolar ? d3.range(-180, 180, 10) : d3.range(Math.floor(middle[0] / 2 - half) * 2, middle[0] + 2 * half, 2);
    const line = (points, text) => new ol.Feature({ geometry: new ol.geom.LineString(points.map(toMap)), text });
    const name = (value, [plus, minus]) => `${Math.abs(value)}°${value === 0 ? "" : value > 0 ? plus : minus}`;
    const meridians = lons.map((lon) => line(d3.range(south, north + 0.01, 0.5).map((lat) => [lon, lat]), name(lon, ["E", "W"])));
    const step = isPolar ? 5 : 1;
    const parallels = d3.range(Math.ceil(south / step) * step, north, step).map((lat) =>
      line(d3.range(lons[0], lons[lons.length - 1] + (isPolar ? 10.1 : 0.1), isPolar ? 1 : 0.1).map((lon) => [lon, lat]), name(lat, ["N", "S"])));
    return [...meridians, ...parallels];
  }

  function dress() {
    const colour = (name) => atlas.css(`--${name}`);
    const stroke = new ol.style.Stroke({ color: colour("shore"), width: 0.8 });
    const styles = Object.fromEntries(["land", "ice"].map((kind) => [kind, new ol.style.Style({ fill: new ol.style.Fill({ color: colour(kind) }), stroke, zIndex: kind === "ice" ? 1 : 0 })]));
    landLayer.setStyle((feature) => styles[feature.get("kind")]);
    const grid = new ol.style.Stroke({ color: colour("grid"), width: 1 });
    graticule.setStyle((feature) => new ol.style.Style({
      stroke: grid,
      text: new ol.style.Text({ text: feature.get("text"), placement: "line", font: "11px system-ui, sans-serif", repeat: 420, textBaseline: "bottom", fill: new ol.style.Fill({ color: colour("soft") }), stroke: new ol.style.Stroke({ color: colour("halo"), width: 2.5 }) }),
    }));
    map.getTargetElement().style.background = colour("sea");
    locatorLayer.setStyle(landLayer.getStyle());
    locator.getTargetElement().style.background = colour("sea");
    here.setStyle(new ol.style.Style({ image: new ol.style.Circle({ radius: 4.5, fill: new ol.style.Fill({ color: "#d6336c" }), stroke: new ol.style.Stroke({ color: "#fff", width: 1.5 }) }) }));
  }

  function fit(bounds, { quick = false } = {}) {
    const isSmall = window.matchMedia("(max-width: 760px), (max-height: 560px)").matches;
    view.fit(bounds, { padding: isSmall ? [bounds === wide ? LEGEND_PX : 50, 56, 40, 12] : [56, 72, 48, 40], duration: quick || atlas.isStill() ? 0 : 450, maxZoom: 30 });
  }

  // True north is not up on a polar map: where it points at the middle of the view.
  function northAt(point) {
    const [lon, lat] = toLonLat(point);
    const [x, y] = toMap([lon, Math.min(lat + 0.01, 89.999)]);
    return Math.atan2(x - point[0], y - point[1]);
  }

  function turnNorthUp() {
    const wanted = -northAt(view.getCenter());
    const isUp = Math.abs(Math.sin((view.getRotation() - wanted) / 2)) < 0.005;
    view.animate({ rotation: isUp ? 0 : wanted, duration: atlas.isStill() ? 0 : 350 });
    atlas.say(isUp ? "The grid of the map is up" : "North is up");
  }

  atlas.isStill = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

  function turnArrow() {
    const angle = northAt(view.getCenter()) + view.getRotation();
    atlas.get("arrow").style.transform = `rotate(${angle}rad)`;
  }

  function placeText(point) {
    const [lon, lat] = toLonLat(point);
    const text = (value, [plus, minus]) => `${Math.abs(value).toFixed(4)}° ${value < 0 ? minus : plus}`;
    return Number.isFinite(lon) ? `${text(lat, "NS")}  ${text(lon, "EW")}` : "";
  }

  function showPlace([x, y]) {
    const text = placeText([x, y]);
    atlas.get("place").textContent = text ? `${text}  ·  ${Math.round(x).toLocaleString("en")}, ${Math.round(y).toLocaleString("en")} m  ·  ${about.crs}` : "";
  }

  atlas.viewText = () => [...view.getCenter().map(Math.round), Number(view.getResolution().toPrecision(ROUND)), Number(view.getRotation().toFixed(4))].join(",");
  atlas.showView = (text) => {
    const [x, y, resolution, rotation] = text.split(",").map(Number);
    if (![x, y, resolution].every(Number.isFinite)) return false;
    view.setCenter([x, y]);
    view.setResolution(resolution);
    view.setRotation(rotation || 0);
    return true;
  };

  view.on("change:resolution", () => landLayer.setOpacity(Math.max(0.3, Math.min(1, view.getResolution() / NEAR_M))));
  view.on(["change:center", "change:rotation"], turnArrow);
  map.on("pointermove", (event) => { if (!event.dragging) showPlace(event.coordinate); });
  map.on("moveend", () => atlas.tell("moved"));
  atlas.get("in").addEventListener("click", () => view.animate({ zoom: view.getZoom() + 1, duration: 200 }));
  atlas.get("out").addEventListener("click", () => view.animate({ zoom: view.getZoom() - 1, duration: 200 }));
  atlas.get("fit").addEventListener("click", () => fit(atlas.state.glacier?.bounds ?? wide));
  atlas.get("north").addEventListener("click", turnNorthUp);
  atlas.on("theme", dress);
  dress();
})();
