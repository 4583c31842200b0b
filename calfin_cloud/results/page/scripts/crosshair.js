// Drawing by keyboard: arrows move a cross-hair over the map, Enter sets a point, Backspace takes the last one back.
"use strict";

(() => {
  const { map, view, showPlace, placeText } = atlas.map;
  const target = map.getTargetElement();
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const STEP_PX = 10, FINE_PX = 1; // fine with Shift
  const RIM_PX = 30; // where the cross-hair comes nearer to the rim, the map follows it
  const SILENCE_MS = 400; // a place is said when the cross-hair rests
  const MAP_WORDS = target.getAttribute("aria-label");
  const WORDS = "Map: arrows move the cross-hair, with Shift a little; Enter sets a point, a second Enter there ends the line, Backspace takes the last point back, Escape cancels";
  const cross = new ol.Overlay({ element: atlas.element("div", "", { class: "cross" }), positioning: "center-center", stopEvent: false });
  map.addOverlay(cross);
  let draw = null, sketch = null, line = null, resting = 0;

  const points = () => sketch?.getGeometry().getCoordinates().slice(0, -1) ?? []; // the last follows the pointer
  const words = (place) => `${placeText(place)}, ${atlas.length(Math.hypot(...line.getClosestPoint(place).map((v, i) => v - place[i])))} from the front`;

  // The cross-hair begins at an end of the front that is drawn anew.
  atlas.startCross = (interaction, front, { isShown }) => {
    draw = interaction;
    line = new ol.geom.LineString(atlas.lineOf(front));
    draw.on("drawstart", ({ feature }) => { sketch = feature; });
    draw.on("drawabort", () => { sketch = null; });
    target.setAttribute("aria-label", WORDS);
    target.focus();
    if (isShown) put(line.getFirstCoordinate());
  };

  atlas.stopCross = () => {
    draw = sketch = null;
    clearTimeout(resting);
    cross.setPosition(undefined);
    target.setAttribute("aria-label", MAP_WORDS);
  };

  function put(place) {
    cross.setPosition(place);
    const [x, y] = map.getPixelFromCoordinate(place), [width, height] = map.getSize();
    if (Math.min(x, y, width - x, height - y) < RIM_PX) { view.setCenter(place); map.renderSync(); }
    showPlace(place);
    clearTimeout(resting);
    resting = setTimeout(() => atlas.say(words(place)), SILENCE_MS);
  }

  function move([right, down], by) {
    const [x, y] = map.getPixelFromCoordinate(cross.getPosition());
    put(map.getCoordinateFromPixel([x + right * by, y + down * by]));
  }

  function setPoint() {
    const place = cross.getPosition(), set = points(), last = set[set.length - 1];
    clearTimeout(resting);
    if (last && last[0] === place[0] && last[1] === place[1]) {
      if (set.length > 1) draw.finishDrawing();
      return;
    }
    draw.appendCoordinates([place]);
    atlas.say(`Point ${points().length}: ${words(place)}`);
  }

  function takeBack() {
    draw.removeLastPoint();
    atlas.say(`Point taken back, ${atlas.count(points().length, "point")} left`);
  }

  // Before OpenLayers, which would move the map by arrows.
  target.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!draw || event.ctrlKey || event.metaKey || event.altKey || !(step || event.key === "Enter" || event.key === "Backspace")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!cross.getPosition()) put(line.getFirstCoordinate());
    else if (step) move(step, event.shiftKey ? FINE_PX : STEP_PX);
    else if (event.key === "Enter") setPoint();
    else takeBack();
  }, { capture: true });
})();
