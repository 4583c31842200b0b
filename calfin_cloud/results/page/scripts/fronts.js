// The fronts of one glacier on the map: coloured by date, over the picture of the chosen or latest one.
"use strict";

(() => {
  const { picture, fronts, chosen, candidates, references, boxes } = atlas.layers;
  const CASING = "rgba(0,0,0,0.62)"; // fronts lie on white ice and on black water
  const stroke = (color, width, lineDash) => new ol.style.Stroke({ color, width, lineDash, lineCap: lineDash ? "butt" : "round" });
  const CANDIDATE = [stroke(CASING, 4.5), stroke("#ffffff", 2, [2, 5])].map((s) => new ol.style.Style({ stroke: s }));
  const REFERENCE = [stroke(CASING, 5), stroke("#2ee6d6", 2.5, [9, 6])].map((s) => new ol.style.Style({ stroke: s }));
  const NEAR_PX = 8;
  const cache = new Map();
  const sources = new Map(); // pictures that were shown

  atlas.placeOf = (front) => `${front.key}#${front.front}`;
  // What was said here of a front: a drawn line stays, a word about a line that has changed since is void.
  atlas.toldOf = (front) => {
    const told = atlas.state.verdicts.get(atlas.placeOf(front));
    return told?.line || told?.judged === front.line_id ? told : undefined;
  };
  atlas.verdictOf = (front) => atlas.toldOf(front)?.verdict ?? front.verdict ?? "";
  atlas.judgeOf = (front) => atlas.toldOf(front)?.author || front.reviewer || "";
  atlas.lineOf = (front) => atlas.toldOf(front)?.line ?? front.line;

  // No zIndex: features are drawn in the order in which they were added, which is that of time.
  function frontStyle(step, isOut) {
    const name = `${step} ${isOut}`;
    if (!cache.has(name)) cache.set(name, [stroke(CASING, 4), stroke(atlas.ramp[step], 2.2, isOut ? [3, 6] : undefined)].map((s) => new ol.style.Style({ stroke: s })));
    return cache.get(name);
  }

  fronts.setStyle((feature) => {
    const front = feature.get("front");
    if (!atlas.inSpan(front) || atlas.state.compare) return null;
    return frontStyle(Math.max(0, atlas.colourStep(front.day)), atlas.verdictOf(front) === "reject");
  });

  candidates.setStyle((feature) => (isShownDate(feature.get("key"), feature.get("day")) ? CANDIDATE : null));
  references.setStyle((feature) => (atlas.state.compare || !atlas.inSpan({ day: feature.get("day") }) ? null : REFERENCE));

  // Candidates of all dates at once would hide each other: those of the chosen front, else of the span.
  function isShownDate(key, day) {
    if (atlas.state.compare) return false;
    return atlas.state.chosen ? key === atlas.state.chosen.key : atlas.inSpan({ day });
  }

  atlas.drawGlacier = (data) => {
    [fronts, candidates, references, chosen].forEach((l) => l.getSource().clear(true));
    cache.clear();
    const line = (points) => new ol.geom.LineString(points);
    fronts.getSource().addFeatures(data.fronts.map((front) => new ol.Feature({ geometry: line(atlas.lineOf(front)), front })));
    candidates.getSource().addFeatures(data.candidates.map((row) => new ol.Feature({ geometry: line(row[5]), key: row[0], day: atlas.day(row[1]), row })));
    references.getSource().addFeatures(data.references.map((row) => new ol.Feature({ geometry: line(row[2]), day: atlas.day(row[0]), row })));
  };

  atlas.clearGlacier = () => {
    [fronts, candidates, references, chosen].forEach((l) => l.getSource().clear(true));
    picture.setSource(null);
    atlas.drawSea();
    atlas.get("shownPicture").hidden = true;
  };

  // A picture is a source of OpenLayers, made once and kept.
  atlas.pictureSource = (path, bounds) => {
    if (!sources.has(path)) sources.set(path, new ol.source.ImageStatic({ url: path, imageExtent: bounds, projection: atlas.map.projection, interpolate: true }));
    return sources.get(path);
  };

  atlas.shownFront = () => {
    const { chosen: looked, data } = atlas.state;
    if (looked) return looked;
    const within = data?.fronts.filter(atlas.inSpan) ?? [];
    return within.findLast((f) => data.pictures[f.key]) ?? within[within.length - 1] ?? null;
  };

  atlas.showPicture = () => {
    const front = atlas.shownFront(), { data, glacier } = atlas.state, chip = atlas.get("shownPicture");
    const path = front && data.pictures[front.key];
    picture.setSource(path && !atlas.state.compare ? atlas.pictureSource(path, glacier.bounds) : null);
    chip.hidden = !front || Boolean(atlas.state.compare);
    if (!front) return;
    chip.replaceChildren(atlas.element("span", atlas.titleOf(glacier), { class: "who" }), atlas.element("b", front.date), ` ${front.platform}`, ...(path ? [] : [atlas.element("small", " no picture in this report")]));
  };

  atlas.redrawFronts = () => {
    chosen.getSource().clear(true);
    const front = atlas.state.chosen;
    if (front && !atlas.state.compare) chosen.getSource().addFeature(new ol.Feature({ geometry: new ol.geom.LineString(atlas.lineOf(front)), front }));
    for (const feature of fronts.getSource().getFeatures()) {
      const moved = atlas.state.verdicts.get(atlas.placeOf(feature.get("front")))?.line;
      if (moved) feature.setGeometry(new ol.geom.LineString(moved));
    }
    [fronts, candidates, references, boxes].forEach((l) => l.changed());
    atlas.drawSea();
    atlas.showPicture();
  };

  chosen.setStyle((feature) => [
    new ol.style.Style({ stroke: stroke("rgba(0,0,0,0.8)", 9) }),
    new ol.style.Style({ stroke: stroke("#ffffff", 6.5) }),
    new ol.style.Style({ stroke: stroke(atlas.colourOf(feature.get("front").day), 3.2) }),
  ]);

  const isShown = (feature) => atlas.inSpan(feature.get("front"));
  atlas.frontAt = (place) => atlas.nearest(fronts, place, NEAR_PX, isShown)?.get("front") ?? null;
  atlas.rowAt = (place) => {
    for (const layer of [candidates, references]) {
      const feature = layer.getVisible() && atlas.nearest(layer, place, NEAR_PX, (f) => Boolean(layer.getStyleFunction()(f)));
      if (feature) return { row: feature.get("row"), layer };
    }
    return null;
  };
})();
