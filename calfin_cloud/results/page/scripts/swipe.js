// Two dates side by side: their pictures and fronts, parted by a seam that a person moves.
"use strict";

(() => {
  const sides = ["left", "right"].map((side, i) => {
    const picture = new ol.layer.Image({ zIndex: 10, className: `swipe-${side}` });
    const line = new ol.layer.Vector({ source: new ol.source.Vector(), zIndex: 11, className: `swipe-${side}` });
    [picture, line].forEach((layer) => {
      layer.setVisible(false);
      atlas.map.map.addLayer(layer);
      layer.on("prerender", (event) => clip(event, i));
      layer.on("postrender", (event) => event.context.restore());
    });
    line.setStyle((feature) => {
      const stroke = (color, width) => new ol.style.Style({ stroke: new ol.style.Stroke({ color, width, lineCap: "round" }) });
      return [stroke("rgba(0,0,0,0.75)", 6), stroke(atlas.colourOf(feature.get("front").day), 3.2)];
    });
    return { picture, line, select: atlas.get(`${side}Date`) };
  });
  const range = atlas.get("swipeAt");
  const share = () => range.value / 1000;

  function clip(event, i) {
    const [width, height] = atlas.map.map.getSize(), ink = event.context, seam = width * share();
    const corners = (i ? [[seam, 0], [width, 0], [width, height], [seam, height]] : [[0, 0], [seam, 0], [seam, height], [0, height]]).map((p) => ol.render.getRenderPixel(event, p));
    ink.save();
    if (atlas.state.compare.every((key) => !atlas.state.data.pictures[key])) return; // then the seam would only hide fronts
    ink.beginPath();
    corners.forEach(([x, y], n) => (n ? ink.lineTo(x, y) : ink.moveTo(x, y)));
    ink.closePath();
    ink.clip();
  }

  function fill() {
    const { data, compare } = atlas.state;
    sides.forEach(({ picture, line, select }, i) => {
      const key = compare[i], mine = data.byKey.get(key) ?? [];
      select.value = key;
      const path = data.pictures[key];
      picture.setSource(path ? atlas.pictureSource(path, atlas.state.glacier.bounds) : null);
      line.getSource().clear(true);
      line.getSource().addFeatures(mine.map((front) => new ol.Feature({ geometry: new ol.geom.LineString(atlas.lineOf(front)), front })));
    });
    moveSeam();
  }

  function moveSeam() {
    atlas.get("seam").style.left = `${share() * 100}%`;
    range.setAttribute("aria-valuetext", `${Math.round(share() * 100)} percent from the left`);
    atlas.map.map.render();
  }

  atlas.compare = (keys) => {
    const isOn = Boolean(keys);
    atlas.state.compare = keys;
    atlas.get("swipe").hidden = !isOn;
    atlas.get("compare").setAttribute("aria-pressed", isOn);
    sides.forEach(({ picture, line }) => [picture, line].forEach((layer) => layer.setVisible(isOn)));
    if (isOn) {
      const perDay = d3.rollup(atlas.state.data.byKey, (rows) => rows.length, ([, [front]]) => front.date);
      const options = [...atlas.state.data.byKey].map(([key, [front]]) => [perDay.get(front.date) > 1 ? `${front.date} ${front.time} ${front.platform}` : front.date, key]);
      sides.forEach(({ select }) => select.replaceChildren(...options.map(([text, key]) => new Option(text, key))));
      fill();
      atlas.say(`Comparing ${sides.map((s) => s.select.selectedOptions[0]?.text).join(" with ")}`);
    }
    atlas.redrawFronts();
    atlas.tell("changed");
  };

  // Begins with the first and the last date of the span; with the chosen one on the right.
  atlas.startCompare = () => {
    const within = atlas.state.data.fronts.filter(atlas.inSpan);
    const seen = within.filter((f) => atlas.state.data.pictures[f.key]);
    const list = seen.length > 1 ? seen : within;
    if (!list.length) return;
    const right = atlas.state.chosen ?? list[list.length - 1];
    const left = list[0].key === right.key ? list[list.length - 1] : list[0];
    atlas.compare([left.key, right.key]);
  };

  atlas.get("compare").addEventListener("click", () => (atlas.state.compare ? atlas.compare(null) : atlas.startCompare()));
  range.addEventListener("input", moveSeam);
  sides.forEach(({ select }, i) => select.addEventListener("change", () => {
    const keys = [...atlas.state.compare];
    keys[i] = select.value;
    atlas.compare(keys);
  }));
})();
