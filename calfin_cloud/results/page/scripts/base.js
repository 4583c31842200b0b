// What all other scripts stand on: state, events, elements, numbers as text. Scripts are plain ones, no modules,
// because a browser loads no module from disk.
"use strict";

const atlas = {
  state: {
    glacier: null, // line of the overview of the one that is shown
    data: null, // its fronts and all that goes with them
    chosen: null, // the front that is looked at
    from: 0, // days since 1970: the span of time that is shown
    to: 0,
    compare: null, // [left, right]: keys of two scenes side by side
    verdicts: new Map(),
  },
  received: {},
};

(() => {
  const listeners = new Map();
  const waiting = new Map(); // glaciers that are being loaded

  atlas.on = (event, then) => listeners.set(event, [...(listeners.get(event) ?? []), then]);
  atlas.tell = (event, detail) => (listeners.get(event) ?? []).forEach((then) => then(detail));

  // Data comes as scripts that call this.
  atlas.receive = (name, data) => {
    if (name !== "glacier") { atlas.received[name] = data; return; }
    waiting.get(data.number)?.(data);
    waiting.delete(data.number);
  };

  const loaded = new Map();
  atlas.load = (glacier) => {
    if (!loaded.has(glacier)) loaded.set(glacier, new Promise((found, failed) => {
      waiting.set(Number(glacier.file.match(/(\d+)\.js$/)[1]), found);
      const script = atlas.element("script", "", { src: glacier.file });
      script.addEventListener("error", () => { loaded.delete(glacier); failed(new Error(`${glacier.file} is missing`)); });
      document.head.append(script);
    }).then(unpack));
    return loaded.get(glacier);
  };

  // Scenes come as their places in a list of names.
  function unpack(data) {
    const key = (place) => `${data.domain}/${data.scenes[place]}`;
    const picture = (place) => data.embedded?.[place] ?? `pictures/${padded(data.number)}/${padded(place)}.avif`;
    data.pictures = Object.fromEntries(data.pictures.map((place) => [key(place), picture(place)]));
    data.positions.forEach((branch) => branch.points.forEach((point) => { point[0] = key(point[0]); }));
    data.without.forEach((row) => { row[0] = data.scenes[row[0]]; row[2] = atlas.satellite(row[2]); });
    data.fronts.forEach((front, i) => {
      front.index = i;
      front.key = key(front.scene);
      front.scene = data.scenes[front.scene];
      front.platform = atlas.satellite(front.platform);
      front.day = atlas.day(front.date);
      front.line = atlas.points(front.line);
    });
    data.candidates.forEach((row) => { row[0] = key(row[0]); row[5] = atlas.points(row[5]); });
    data.references.forEach((row) => { row[2] = atlas.points(row[2]); });
    for (const rows of Object.values(data.features ?? {})) rows.forEach((row) => { row.day = atlas.day(row.date); row.outlines = row.outlines.map(atlas.points); });
    data.byKey = d3.group(data.fronts, (f) => f.key);
    return data;
  }

  const padded = (number) => String(number).padStart(5, "0");

  // Lines are stored as steps in whole metres.
  atlas.points = (steps) => {
    const points = [];
    let x = 0, y = 0;
    for (let i = 0; i < steps.length; i += 2) points.push([(x += steps[i]), (y += steps[i + 1])]);
    return points;
  };

  atlas.get = (id) => document.getElementById(id);
  atlas.element = (name, text = "", attributes = {}) => {
    const isSvg = name.startsWith("svg:");
    const made = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) : document.createElement(name);
    if (text) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  atlas.fillTable = (table, rows, head = null) => {
    const row = (cells, kind) => {
      const made = atlas.element("tr");
      cells.forEach((cell) => made.append(atlas.element(kind, String(cell ?? ""))));
      return made;
    };
    table.replaceChildren(...(head ? [row(head, "th")] : []), ...rows.map((cells) => row(cells, "td")));
  };
  atlas.say = (text) => { atlas.get("news").textContent = text; };

  atlas.day = (date) => Date.parse(date) / 864e5;
  atlas.date = (day) => new Date(Math.round(day) * 864e5).toISOString().slice(0, 10);
  atlas.length = (metres, { sign = false } = {}) => {
    if (metres == null) return "–";
    const size = Math.abs(metres);
    const text = size >= 995 ? `${(size / 1e3).toFixed(size >= 9950 ? 1 : 2)} km` : `${Math.round(size)} m`;
    return (metres < 0 && text !== "0 m" ? "−" : sign && text !== "0 m" ? "+" : "") + text;
  };
  // Catalogues write landsat-8, SENTINEL-1A, sentinel-2a: shown alike.
  atlas.satellite = (text) => text.replace(/^landsat-(\d)$/i, "Landsat $1").replace(/^sentinel-(\d.)$/i, (_, name) => `Sentinel-${name.toUpperCase()}`);
  atlas.span = (first, last) => (first === last ? `${first}` : `${first}–${last}`);
  atlas.years = (glacier) => atlas.span(glacier.first.slice(0, 4), glacier.last.slice(0, 4));
  atlas.count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  atlas.inSpan = (front) => front.day >= atlas.state.from && front.day <= atlas.state.to;
  atlas.css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
})();
