// The explorer: pick a network, a layer and a channel, and see what is known of it.
//
// An anywidget module without dependencies. The host gives `model`: get(name), set(name, value), save_changes(),
// on(event, listener) and send(message). Two names are synced: `manifest`, what there is to choose from, and `state`, what
// is shown, as a line of text that also stands behind the # of the page's address:
//
//     resnet34/layer1.0/18&with=plainnet34/19,resnet34-random/18&sort=firing_rate&order=up&only=inactive&view=mean&stimulus=2
//
// Pictures never are widget state. A layer is asked for with send({ kind: "layer", model, layer }) and comes as a custom
// message: facts, and four sheets, either as addresses or as bytes. Text that comes from users, such as the names of
// classes, only ever goes through textContent and attributes.

// Name, what it shows, and a name for little room.
const PICTURES = {
  filter: ["first-layer filter", "the filter of the first convolution, its contrast stretched", "filter"],
  mean: ["mean preferred stimulus", "the mean patch over all neurons that fire, as it is (eqs. 3 and 4)", "mean"],
  stretched: ["mean, stretched", "the mean preferred stimulus minus the mean patch, contrast stretched", "stretched"],
  strongest: ["mean over the strongest", "the mean over the strongest neurons minus the mean patch, contrast stretched", "strongest"],
  luminance: ["luminance", "of the mean over the strongest: light is more light than the mean patch, dark is less", "light"],
  "l-m": ["L − M", "of the mean over the strongest: light is towards red, dark towards green", "L − M"],
  s: ["S", "of the mean over the strongest: light is towards violet, dark towards yellow", "S"],
  maximization: ["maximization image", "what gradient ascent finds with the settings of the paper", "maximized"],
  clear: ["maximization image, clear", "what gradient ascent finds among smooth pictures", "clear"],
  stimulus: ["the chosen stimulus", "the patch of the photograph that the neuron sees", "stimulus"],
  where: ["where it was", "the photograph, with the receptive field as a frame", "where"],
};
const AVERAGES = ["mean", "stretched", "strongest", "luminance", "l-m", "s"];
const TILES = ["strongest", "stretched", "clear", "maximization", "filter", "mean"]; // best first
const MOST_BESIDE = 2;

// ---------------------------------------------------------------- small helpers

let serial = 0;
const unique = (name) => `rfviz-${name}-${(serial += 1)}`;

function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  set(element, attributes);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function s(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(element, attributes);
  element.append(...children);
  return element;
}

function set(element, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
}

function number(value, unit = "") {
  if (value === null || value === undefined) return "–";
  if (unit === "×" && value >= 1000) return "> 1,000 ×"; // over almost 0
  const size = Math.abs(value);
  let text = value.toPrecision(3);
  if (size >= 1000) text = Math.round(value).toLocaleString("en-US");
  else if (size !== 0 && size < 0.001) text = value.toExponential(1);
  else text = String(Number(text));
  return unit === "%" ? `${text} %` : unit ? `${text} ${unit}` : text;
}

// ---------------------------------------------------------------- state as text

const USUAL = { sort: "channel", order: "up", only: "all", limit: "", picture: "", view: "", stimulus: 0 };

function parse(text, manifest) {
  const [path, ...rest] = text.split("&");
  const options = new URLSearchParams(rest.join("&"));
  const [model, layer, channel] = (path || manifest.start).split("/");
  const beside = (options.get("with") ?? "").split(",").filter((each) => each);
  const state = {
    model,
    layer,
    channel: Number(channel),
    others: beside.map((each) => ({ model: each.split("/")[0], channel: Number(each.split("/")[1]) })),
  };
  for (const key of Object.keys(USUAL)) state[key] = options.get(key) ?? USUAL[key];
  return repaired({ ...state, stimulus: Number(state.stimulus) }, manifest);
}

// The layer of another network that is most like a given one: of the same name, the last of the first stage as the other
// is, or else of the nearest field.
function counterpart(manifest, model, row) {
  const rows = manifest.layers.filter((each) => each.model === model);
  const lastOf = (each) => manifest.layers.filter((other) => other.model === each.model && other.stream).at(-1) === each;
  const away = (each) => (each.key === row.key ? -2 : lastOf(each) && lastOf(row) ? -1 : Math.abs(each.size - row.size));
  return rows.reduce((best, each) => (away(each) < away(best) ? each : best), rows[0]);
}

// A link may be old or mistyped: whatever it names that is not there is replaced by something that is.
function repaired(state, manifest) {
  const known = (model) => manifest.models.some(({ key }) => key === model);
  if (!known(state.model)) state.model = manifest.models[0].key;
  const rows = manifest.layers.filter((row) => row.model === state.model);
  const row = rows.find(({ key }) => key === state.layer) ?? rows[0];
  state.layer = row.key;
  state.channel = inRange(state.channel, row.channels);
  const seen = new Set([state.model]);
  state.others = state.others
    .filter(({ model }) => known(model) && !seen.has(model) && seen.add(model))
    .slice(0, MOST_BESIDE)
    .map(({ model, channel }) => {
      const { key, channels } = counterpart(manifest, model, row);
      return { model, layer: key, channel: inRange(channel, channels) };
    });
  const keys = ["channel", ...manifest.statistics.map(({ key }) => key)];
  if (!keys.includes(state.sort)) state.sort = "channel";
  if (!["up", "down"].includes(state.order)) state.order = "up";
  if (!["all", "inactive", "active", "least", "most"].includes(state.only)) state.only = "all";
  if (!(state.view in PICTURES)) state.view = "";
  if (!Number.isInteger(state.stimulus) || state.stimulus < 0) state.stimulus = 0;
  if (!Number.isFinite(Number(state.limit))) state.limit = "";
  return state;
}

const inRange = (value, count) => (Number.isInteger(value) && value >= 0 && value < count ? value : 0);

function format(state) {
  const options = new URLSearchParams();
  if (state.others.length) options.set("with", state.others.map(({ model, channel }) => `${model}/${channel}`).join(","));
  for (const [key, value] of Object.entries(USUAL)) if (state[key] !== value) options.set(key, state[key]);
  const text = options.toString().replaceAll("%2F", "/").replaceAll("%2C", ",");
  return `${state.model}/${state.layer}/${state.channel}${text ? `&${text}` : ""}`;
}

// ---------------------------------------------------------------- pictures

// How wide pictures may become, px: they are drawn pixel by pixel and enlarged by a whole number, or not at all.
const ROOM = { view: 240, beside: 150, small: 60, tile: 60 };

function fit(canvas, width, height, room, zoom = 1) {
  canvas.width = width;
  canvas.height = height;
  canvas.style.width = `${width * Math.max(1, Math.floor(room / width)) * zoom}px`;
}

// How much of an image a neuron of a layer sees.
const seesAll = (layer) => layer.facts.field.how === "whole image";
const extent = (layer) => {
  const { size, how } = layer.facts.field;
  return seesAll(layer) ? "the whole image" : `${how === "bound" ? "at most " : ""}${size} × ${size} px`;
};

// A picture of a channel: {sheet, x, y, size}; null where there is none.
function placed(layer, key, channel) {
  const { cell, columns, rows } = layer.facts;
  const column = columns.findIndex((each) => each.key === key);
  if (column < 0) return null;
  if (AVERAGES.includes(key) && !layer.facts.channels[channel].fires) return null;
  return { sheet: layer.cells, x: (Math.floor(channel / rows) * columns.length + column) * cell, y: (channel % rows) * cell, size: columns[column].size };
}

function draw(canvas, place, empty, room, zoom) {
  const size = place?.size ?? empty;
  fit(canvas, size, size, room, zoom);
  if (place?.sheet) canvas.getContext("2d").drawImage(place.sheet, place.x, place.y, size, size, 0, 0, size, size);
}

// A stimulus comes from a sheet of its own, which may still be on its way.
async function drawStimulus(canvas, layer, channel, stimulus, room, zoom) {
  const { cell, rows } = layer.facts;
  const place = stimulus[6];
  fit(canvas, cell, cell, room, zoom);
  canvas.wanted = stimulus;
  const sheet = await layer.stimuli();
  if (canvas.wanted !== stimulus) return;
  const columns = Math.round(sheet.width / cell / Math.ceil(layer.facts.channels.length / rows));
  const x = (Math.floor(channel / rows) * columns + place) * cell;
  canvas.getContext("2d").drawImage(sheet, x, (channel % rows) * cell, cell, cell, 0, 0, cell, cell);
}

// The image that a stimulus comes from, with the receptive field to scale: black on white, to be seen on any image.
// Where the channel fires, and how much, as colour over it: one square per neuron, as large as their distance.
async function drawSource(canvas, layer, stimulus, fires, room, zoom) {
  const [, number, top, left, bottom, right, , x, y, width, height] = stimulus;
  const source = layer.facts.sources[number];
  const { size, stride, start } = layer.facts.field;
  const scale = 2;
  const shrink = layer.facts.source / Math.max(source.height, source.width);
  const sides = [source.width, source.height].map((side) => Math.max(1, Math.round(side * shrink)));
  canvas.width = sides[0] * scale;
  canvas.height = sides[1] * scale;
  canvas.style.width = `${Math.min(room, canvas.width) * zoom}px`;
  canvas.wanted = stimulus;
  const [sheet, maps] = await Promise.all([layer.sources(), fires && width ? layer.maps() : null]);
  if (canvas.wanted !== stimulus) return; // another one was asked for meanwhile
  const context = canvas.getContext("2d");
  context.drawImage(sheet, source.x, source.y, ...sides, 0, 0, canvas.width, canvas.height);
  const px = shrink * scale;
  if (maps) {
    context.fillStyle = "rgb(255 255 255 / 45%)";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false;
    const corner = (start + (size - stride) / 2) * px;
    context.drawImage(maps, x, y, width, height, corner, corner, width * stride * px, height * stride * px);
  }
  for (const [colour, thickness] of [["#000", 5], ["#fff", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = thickness;
    context.strokeRect(left * px, top * px, (right - left) * px, (bottom - top) * px);
  }
}

// ---------------------------------------------------------------- charts

// Axes with a name and two or three numbers each; `inside` draws into them with x and y from 0 to 1, y upwards.
function chart({ label, across, up, columns, rows, inside }) {
  const [width, height, left, base, right, top] = [300, 150, 66, 112, 292, 8];
  const x = (share) => left + share * (right - left);
  const y = (share) => base - share * (base - top);
  const text = (px, py, anchor, words, more = {}) => s("text", { x: px, y: py, "text-anchor": anchor, ...more }, words);
  const axis = [
    s("path", { d: `M${left},${top}V${base}H${right}`, class: "rx-axis" }),
    ...columns.map(([share, words]) => text(x(share), base + 14, share === 0 ? "start" : share === 1 ? "end" : "middle", words)),
    ...rows.map(([share, words]) => text(left - 4, y(share) + 4, "end", words)),
    text((left + right) / 2, height - 6, "middle", across),
    text(11, (top + base) / 2, "middle", up, { transform: `rotate(-90 11 ${(top + base) / 2})` }),
  ];
  return s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "rx-chart" }, ...inside(x, y), ...axis);
}

function histogram(facts, channel) {
  // Bin 0 counts silent neurons, the others one octave each; shown are the octaves that hold something.
  const counts = channel.histogram.slice(1);
  const first = counts.findIndex((count) => count > 0);
  if (first < 0) return null;
  const last = counts.findLastIndex((count) => count > 0);
  const shown = counts.slice(first, last + 1);
  const most = Math.max(...shown);
  const edge = (bin) => (bin === 0 ? 0 : facts.edges[bin - 1]);
  const end = facts.edges[Math.min(last, facts.edges.length - 1)];
  return chart({
    label:
      `Histogram of the responses above 0, by octaves from ${number(edge(first))} to ${number(end)}; ` +
      `the fullest bin has ${number(most)} neurons.`,
    across: "response, a bar per octave",
    up: "neurons",
    columns: [[0, number(edge(first))], [1, number(end)]],
    rows: [[0, "0"], [1, number(most)]],
    inside: (x, y) =>
      shown.map((count, i) => {
        const [from, to] = [x(i / shown.length) + 1, x((i + 1) / shown.length) - 1];
        const bar = s("rect", { x: from, y: y(count / most), width: Math.max(1, to - from), height: y(0) - y(count / most) });
        bar.append(s("title", {}, `${number(edge(first + i))} to ${number(edge(first + i + 1))}: ${number(count)} neurons`));
        return bar;
      }),
  });
}

const line = (points) => s("polyline", { points: points.map((point) => point.join(",")).join(" ") });

function curve(values, what) {
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const share = (value) => (value - low) / (high - low || 1);
  return chart({
    label: `The ${what} over ${values.length - 1} steps: from ${number(values[0])} to ${number(values.at(-1))}.`,
    across: "step of the maximization",
    up: "activation",
    columns: [[0, "0"], [1, String(values.length - 1)]],
    rows: low < 0 ? [[0, number(low)], [share(0), "0"], [1, number(high)]].filter(([at], i) => i !== 1 || (at > 0.15 && at < 0.85)) : [[0, "0"], [1, number(high)]],
    inside: (x, y) => [line(values.map((value, i) => [x(i / Math.max(1, values.length - 1)), y(share(value))]))],
  });
}

// How strongly each orientation of drifting gratings drives a channel.
function orientationCurve({ degrees, curve: values, preferred, frequency }) {
  if (preferred === null) return null;
  const most = Math.max(...values);
  const points = [...degrees.map((degree, i) => [degree, values[i]]), [180, values[0]]];
  return chart({
    label:
      `Tuning for orientation: the channel prefers bars at ${number(preferred)}° (0° is horizontal) with ` +
      `${number(frequency)} cycles per px; its weakest orientation gives ${number((100 * Math.min(...values)) / most)} % of the best.`,
    across: `orientation of a grating; prefers ${number(preferred)}°`,
    up: "response",
    columns: [[0, "0°"], [0.5, "90°"], [1, "180°"]],
    rows: [[0, "0"], [1, number(most)]],
    inside: (x, y) => [line(points.map(([degree, value]) => [x(degree / 180), y(value / most)]))],
  });
}

// One number among those of all channels of the layer: a thin line for each, a thick one for this.
function amongOthers(values, value, name, unit) {
  const known = values.filter((each) => each !== null && each !== undefined);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const ratio = low > 0 && high / low > 30; // else most lines would fall together
  const at = (each) => (ratio ? Math.log(each / low) / Math.log(high / low) : (each - low) / (high - low || 1));
  const [width, height] = [160, 16];
  const x = (each) => 2 + at(each) * (width - 4);
  const rank = known.filter((each) => each > value).length + 1;
  const label = `${name}: ${number(value, unit)}, rank ${rank} of ${known.length} from the top; the layer goes from ${number(low)} to ${number(high, unit)}${ratio ? ", on a logarithmic scale" : ""}.`;
  const mark = (each, className, [from, to]) => s("line", { x1: x(each), x2: x(each), y1: from, y2: to, class: className });
  const drawn = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "rx-among" });
  drawn.append(s("title", {}, label), ...known.map((each) => mark(each, "rx-each", [4, 12])), mark(value, "rx-this", [0, 16]));
  return drawn;
}

// ---------------------------------------------------------------- the explorer

class Explorer {
  constructor(model, element) {
    this.model = model;
    this.manifest = model.get("manifest");
    this.layers = new Map(); // what has come, by "model/layer"
    this.waiting = new Set();
    this.errors = new Map();
    this.made = new Map(); // maximization images that were asked for, by "model/layer/channel"
    this.places = new Map(); // which stimulus was chosen of a channel beside, by "model/layer/channel"
    this.zoom = 1;
    this.heat = true;
    this.read(model.get("state") ?? "");
    this.element = element;
    element.classList.add("rfviz-explorer");
    this.build();
    // JupyterLab would take keys for its own: "d d" deletes a cell. What is meant for it passes.
    if (this.manifest.live)
      element.addEventListener("keydown", (event) => {
        if (!event.ctrlKey && !event.metaKey && !event.altKey && !(event.shiftKey && event.key === "Enter")) event.stopPropagation();
      });
    this.onState = () => {
      const text = model.get("state") ?? "";
      if (text !== format(this.state)) {
        this.read(text);
        this.show();
      }
    };
    this.onMessage = (message, buffers) => this.receive(message, buffers);
    model.on("change:state", this.onState);
    model.on("msg:custom", this.onMessage);
    model.set("state", format(this.state));
    model.save_changes();
    this.show();
  }

  // Take over an address, and note whether what it names is there.
  read(text) {
    this.state = parse(text, this.manifest);
    const asked = text.split("&")[0];
    this.missed = asked !== "" && asked !== format(this.state).split("&")[0];
  }

  close() {
    this.model.off("change:state", this.onState);
    this.model.off("msg:custom", this.onMessage);
  }

  // -------------------------------------------------------------- what is known

  title(model) {
    return this.manifest.models.find(({ key }) => key === model)?.title ?? model;
  }

  rows(model = this.state.model) {
    return this.manifest.layers.filter((row) => row.model === model);
  }

  row(model, layer) {
    return this.manifest.layers.find((row) => row.model === model && row.key === layer);
  }

  name(model, layer, channel) {
    return `${this.title(model)}, ${this.row(model, layer).title}, channel ${channel}`;
  }

  // The layer as it came, of which the list is; undefined while it is on its way.
  get shownLayer() {
    return this.layers.get(`${this.state.model}/${this.state.layer}`);
  }

  // The last layer that has the channels of the first one: what a channel that begins silent holds there.
  last(model) {
    return this.rows(model).filter(({ stream }) => stream).at(-1);
  }

  measured(layer) {
    return this.manifest.statistics.filter(({ key }) => layer.facts.channels.some(({ statistics }) => (statistics[key] ?? null) !== null));
  }

  // -------------------------------------------------------------- asking and receiving

  want(model, layer) {
    const key = `${model}/${layer}`;
    if (this.layers.has(key)) return this.layers.get(key);
    if (!this.waiting.has(key) && !this.errors.has(key)) {
      this.waiting.add(key);
      this.model.send({ kind: "layer", model, layer });
    }
    return null;
  }

  async receive(message, buffers) {
    if (message.kind === "error") {
      this.waiting.delete(message.key);
      this.errors.set(message.key, message.text);
      this.say(message.text);
      this.show();
    } else if (message.kind === "layer") {
      try {
        const [cells, ...others] = message.sheets ?? buffers;
        const [stimuli, sources, maps] = others.map(once); // fetched when they are to be shown
        this.layers.set(message.key, { facts: message.facts, cells: await loaded(cells), key: message.key, stimuli, sources, maps });
      } catch {
        this.errors.set(message.key, `The pictures of ${message.key} could not be read.`);
      }
      this.waiting.delete(message.key);
      if (this.sides().some(({ model, layer }) => `${model}/${layer}` === message.key)) this.show();
      else {
        for (const fill of this.strips) fill();
        this.showFinder();
      }
    } else if (message.kind === "maximized") {
      try {
        this.made.set(message.key, { ...message, image: await loaded(buffers[0]) });
        this.refills.get(message.key)?.();
        this.say(message.text);
      } catch {
        this.say("The picture could not be read.");
      }
    } else if (message.kind === "failed") this.say(message.text);
  }

  // -------------------------------------------------------------- the controls, built once

  build() {
    const { manifest } = this;
    const change = (values) => this.change(values);
    const button = (text, action, title) => h("button", { type: "button", onclick: action, title, "aria-label": title }, text);
    this.modelMenu = this.menu("Network", manifest.models.map(({ key, title }) => [key, title]), (model) => change({ model }));
    this.layerMenu = this.menu("Layer", [], (layer) => change({ layer }));
    this.channelField = h("input", {
      type: "number", min: 0, step: 1, id: unique("channel"), inputmode: "numeric",
      oninput: () => this.typed(this.channelField, (channel) => change({ channel, stimulus: 0 })),
      onchange: () => this.typedLast(this.channelField, this.state.channel),
    });
    this.before = button("◂", () => this.step(-1), "Layer before");
    this.after = button("▸", () => this.step(1), "Layer after");
    const random = h("button", { type: "button", onclick: () => {
      const shown = this.shown();
      if (shown.length) change({ channel: shown[Math.floor(Math.random() * shown.length)], stimulus: 0 });
    } }, "Random");
    this.besideMenu = this.menu("Put beside it", [], (model) => {
      if (model) change({ others: [...this.state.others, { model, channel: this.state.channel }] });
    });
    // Of a statistic, people want to see the most; of numbers, the first.
    this.sortMenu = this.menu("Sort by", [], (sort) => change({ sort, order: sort === "channel" ? "up" : "down" }));
    this.turn = button("⇅", () => change({ order: this.state.order === "up" ? "down" : "up" }), "Turn the order round");
    this.onlyMenu = this.menu("Show", [], (only) => change({ only }));
    this.limitField = h("input", {
      type: "number", step: "any", id: unique("limit"),
      oninput: () => change({ limit: this.limitField.value }),
    });
    this.limitLabel = h("label", { for: this.limitField.id }, "Limit");
    this.limit = h("span", { class: "rx-field" }, this.limitLabel, this.limitField);
    const copy = manifest.live ? null : h("button", { type: "button", onclick: () => this.copy() }, "Copy link");
    const joined = (...parts) => h("span", { class: "rx-joined" }, parts);
    this.status = h("p", { class: "rx-status", role: "status", "aria-live": "polite" });
    this.panels = h("div", { class: "rx-panels" });
    this.element.append(
      h(
        "div", { class: "rx-bar", role: "group", "aria-label": "What to show" },
        this.modelMenu.field,
        joined(this.layerMenu.field, this.before, this.after),
        h("span", { class: "rx-field" }, h("label", { for: this.channelField.id }, "Channel"), this.channelField),
        joined(this.sortMenu.field, this.turn),
        this.onlyMenu.field, this.limit,
      ),
      h("div", { class: "rx-line" }, this.status, joined(manifest.models.length > 1 ? this.besideMenu.field : null, copy)),
      h("div", { class: "rx-body" }, this.buildFinder(random), this.panels),
    );
  }

  menu(label, options, action) {
    const select = h("select", { id: unique(label.toLowerCase().replaceAll(" ", "-")), onchange: () => action(select.value) });
    const field = h("span", { class: "rx-field" }, h("label", { for: select.id }, label), select);
    const fill = (entries, value) => {
      select.replaceChildren(...entries.map(([key, text]) => h("option", { value: key }, text)));
      if (value !== undefined) select.value = value;
    };
    fill(options);
    return { field, select, fill };
  }

  buildFinder(random) {
    this.pictureMenu = this.menu("Picture", [], (picture) => this.change({ picture }));
    this.heading = h("h3", { id: unique("finder") });
    this.explained = h("p", { class: "rx-note" });
    this.tiles = h("div", {
      class: "rx-tiles", role: "listbox", "aria-labelledby": this.heading.id, tabindex: -1,
      onkeydown: (event) => this.key(event),
      onclick: (event) => {
        const tile = event.target.closest("[data-channel]");
        if (!tile) return;
        this.change({ channel: Number(tile.dataset.channel), stimulus: 0 });
        this.bringIntoView();
      },
    });
    return h(
      "section", { class: "rx-finder", "aria-labelledby": this.heading.id },
      this.heading, this.tiles, h("div", { class: "rx-joined" }, this.pictureMenu.field, random), this.explained,
    );
  }

  // -------------------------------------------------------------- what people do

  change(values) {
    const before = this.state;
    const wanted = { ...before, ...values };
    if (!["least", "most"].includes(wanted.only)) wanted.limit = "";
    const place = before.others.findIndex(({ model }) => model === wanted.model);
    if (place >= 0) {
      wanted.channel = before.others[place].channel; // the two change places
      wanted.others = before.others.with(place, { model: before.model, channel: before.channel });
    }
    this.state = repaired(wanted, this.manifest);
    this.errors.clear(); // what failed is asked for again
    this.model.set("state", format(this.state));
    this.model.save_changes();
    this.show();
  }

  // On a phone the list stands above the channel: what was picked comes into view.
  bringIntoView() {
    const { top } = this.panels.getBoundingClientRect();
    if (top > innerHeight * 0.7) this.panels.scrollIntoView({ block: "start" });
  }

  // A number that is being typed; one that is not there is said to be so, and nothing changes.
  typed(field, action) {
    const { value, valueAsNumber, max } = field;
    const there = Number.isInteger(valueAsNumber) && valueAsNumber >= 0 && valueAsNumber <= Number(max);
    field.setAttribute("aria-invalid", String(value !== "" && !there));
    if (there) action(valueAsNumber);
    else if (value !== "") this.say(`There is no channel ${value}: this layer has channels 0 to ${max}.`);
  }

  // Once a field is left, it shows the channel that is shown.
  typedLast(field, channel) {
    field.value = channel;
    field.setAttribute("aria-invalid", "false");
  }

  step(by) {
    const rows = this.rows();
    const next = rows[rows.findIndex(({ key }) => key === this.state.layer) + by];
    if (next) this.change({ layer: next.key });
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const tiles = [...this.tiles.querySelectorAll("[data-channel]")];
    const here = tiles.indexOf(event.target.closest("[data-channel]"));
    if (here < 0) return;
    const { offsetTop } = tiles[0];
    const across = tiles.filter((tile) => tile.offsetTop === offsetTop).length;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, Home: -here, End: tiles.length - 1 - here };
    this.wantsTile = true; // the tile may only come with its layer
    if (event.key === "PageDown" || event.key === "PageUp") this.step(event.key === "PageDown" ? 1 : -1);
    else if (event.key in moves) {
      const next = tiles[here + moves[event.key]];
      if (next) this.change({ channel: Number(next.dataset.channel), stimulus: 0 });
    } else return;
    event.preventDefault();
    this.focusTile();
  }

  focusTile() {
    const tile = this.tiles.querySelector("[tabindex='0']");
    (tile ?? this.tiles).focus();
    if (tile) this.wantsTile = false;
  }

  async copy() {
    const link = location.href;
    try {
      await navigator.clipboard.writeText(link);
      this.say(`Copied: ${link}`);
    } catch {
      // Without permission there is still the address itself.
      this.say(`Copy the address of this page: ${link}`);
    }
  }

  say(text) {
    this.status.textContent = text;
  }

  // -------------------------------------------------------------- drawing

  // What stands side by side, the channel that was picked first.
  sides() {
    const { model, layer, channel, others } = this.state;
    return [{ model, layer, channel }, ...others].map((side, place) => ({ ...side, place }));
  }

  show() {
    const { state } = this;
    const row = this.row(state.model, state.layer);
    this.modelMenu.select.value = state.model;
    this.layerMenu.fill(this.rows().map(({ key, title }) => [key, title]), state.layer);
    this.channelField.max = row.channels - 1;
    if (document.activeElement !== this.channelField) this.channelField.value = state.channel;
    const rows = this.rows();
    // Not disabled, which would take the focus away from a button that has just been pressed.
    this.before.setAttribute("aria-disabled", String(rows[0] === row));
    this.after.setAttribute("aria-disabled", String(rows.at(-1) === row));
    const shown = [state.model, ...state.others.map(({ model }) => model)];
    const room = state.others.length < MOST_BESIDE;
    this.besideMenu.fill([["", room ? "another network …" : "no room for more"], ...(room ? this.manifest.models.filter(({ key }) => !shown.includes(key)).map(({ key, title }) => [key, title]) : [])]);
    const sides = this.sides();
    this.strips = []; // what is filled as further layers come, without touching the rest
    this.refills = new Map(); // and as maximization images come
    const within = [...this.panels.children].findIndex((panel) => panel.contains(document.activeElement));
    const focused = within < 0 ? null : document.activeElement.dataset.focus;
    this.panels.replaceChildren(...sides.map((side) => this.panel(side, sides.length)));
    // What had the focus is gone with the channel before; something of the same kind may be there.
    if (within >= 0) {
      const panel = this.panels.children[Math.min(within, sides.length - 1)];
      (focused && panel.querySelector(`[data-focus="${focused}"]`) || panel.querySelector("h3")).focus({ preventScroll: true });
    }
    this.panels.style.setProperty("--rx-sides", sides.length);
    this.panels.classList.toggle("rx-several", sides.length > 1);
    this.showFinder();
    const layer = this.shownLayer;
    if (layer) {
      const seen = format(state);
      if (seen !== this.said || this.missed) this.say(`${this.missed ? "The address names something that is not here. " : ""}${this.summary(layer)}`);
      this.said = seen;
      this.missed = false;
      setTimeout(() => this.prepare()); // after the picture that was asked for
    }
  }

  // The same channel in the other layers: fetched once the picture asked for is there. A live kernel would have to
  // compute them, so there it takes a click.
  prepare() {
    if (this.manifest.live) return;
    for (const { model } of this.sides())
      for (const { key, stream } of this.rows(model)) if (stream) this.want(model, key);
  }

  summary(layer) {
    const { model, layer: key, channel } = this.state;
    const { statistics, fires } = layer.facts.channels[channel];
    const largest = statistics.maximum === undefined ? "" : `largest response ${number(statistics.maximum)}, `;
    const said = fires ? `${largest}${number(statistics.firing_rate, "%")} of its neurons fire` : "never fires on these images";
    return `${this.name(model, key, channel)}: ${said}.`;
  }

  panel({ model, layer: of, channel, place }, count) {
    const key = `${model}/${of}`;
    const heading = h("h3", { id: unique("panel"), tabindex: -1 }, this.name(model, of, channel));
    const panel = h("section", { class: "rx-panel", "aria-labelledby": heading.id, "data-view": `${key}/${channel}` });
    panel.append(place ? h("div", { class: "rx-beside" }, heading, this.besideControls(model, of, channel, place)) : heading);
    const layer = this.want(model, of);
    if (!layer) {
      const words = this.errors.get(key) ?? (this.manifest.live ? "Computing; this can take a while …" : "Loading …");
      panel.append(h("p", { class: "rx-note" }, words));
      return panel;
    }
    const side = { layer, model, of, channel, place, alone: count === 1 };
    const parts = [
      this.badges(side), this.view(side), this.stimuli(side), this.numbers(side),
      this.otherLayers(side), this.neighbours(side), this.manifest.live ? this.maximizer(side) : null,
    ];
    panel.append(...parts.flat().filter((part) => part !== null));
    return panel;
  }

  besideControls(model, of, channel, place) {
    const replaced = (value) => this.change({ others: value === null ? this.state.others.toSpliced(place - 1, 1) : this.state.others.with(place - 1, { model, channel: value }) });
    const field = h("input", {
      type: "number", min: 0, max: this.row(model, of).channels - 1, step: 1, value: channel, inputmode: "numeric", id: unique("beside"),
      "data-focus": "channel",
      onchange: () => this.typed(field, replaced),
    });
    return h(
      "span", { class: "rx-joined" },
      h("span", { class: "rx-field" }, h("label", { for: field.id }, `Channel of ${this.title(model)}`), field),
      h("button", { type: "button", title: "Take it away", "aria-label": `Take ${this.title(model)} away`, onclick: () => replaced(null) }, "✕"),
    );
  }

  // What kind of channel this is, and where a silent one leads.
  badges({ layer, model, of, channel, place }) {
    const { fires, inactive } = layer.facts.channels[channel];
    const { size, stride, how } = layer.facts.field;
    const line = h("p", { class: "rx-note" }, `Sees ${extent(layer)}${how === "measured" ? " (measured)" : ""}; a neuron every ${stride} px. `);
    const first = this.row(this.state.model, this.state.layer);
    if (place && first.size !== size && !seesAll(layer)) line.append(`It has no layer of ${first.size} px; this one is nearest. `);
    if (layer.facts.cell < size) line.append(`Pictures are reduced to ${layer.facts.cell} px. `);
    if (inactive) line.append(h("strong", { class: "rx-badge" }, "inactive"), " Its response is 0 at every position of every evaluation image (Table 1). ");
    if (!fires) line.append(h("strong", { class: "rx-badge" }, "never fires"), " No neuron of it responds to any of the images in which stimuli were looked for. ");
    const last = this.last(model);
    if ((fires && !inactive) || !this.row(model, of).stream || !last || last.key === of) return [line];
    const held = h("div", { class: "rx-held" });
    const fill = () => {
      const there = this.layers.get(`${model}/${last.key}`);
      if (!there || there.facts.channels.length !== layer.facts.channels.length) return;
      const rate = there.facts.channels[channel].statistics.firing_rate;
      held.replaceChildren(
        this.link(there, model, last.key, channel, last.title, place),
        h("p", { class: "rx-note" }, `Silent here; in ${last.title} the same channel ${rate > 0 ? `fires at ${number(rate, "%")} of positions and holds this` : "is silent, too"}.`),
      );
    };
    fill();
    this.strips.push(fill);
    return [line, held];
  }

  // -------------------------------------------------------------- the pictures of a channel

  kinds(layer, channel) {
    const there = layer.facts.columns.map(({ key }) => key).filter((key) => key in PICTURES && placed(layer, key, channel));
    return layer.facts.channels[channel].stimuli.length ? [...there, "stimulus", "where"] : there;
  }

  stimulusOf({ layer, model, of, channel, place }) {
    const { stimuli } = layer.facts.channels[channel];
    const chosen = place ? this.places.get(`${model}/${of}/${channel}`) ?? 0 : this.state.stimulus;
    return stimuli[Math.min(chosen, stimuli.length - 1)];
  }

  paint(canvas, side, kind, room, zoom = 1) {
    const { layer, model, of, channel } = side;
    const made = kind === "maximization" ? this.made.get(`${model}/${of}/${channel}`) : null;
    if (kind === "stimulus") drawStimulus(canvas, layer, channel, this.stimulusOf(side), room, zoom).catch(() => {});
    else if (kind === "where") drawSource(canvas, layer, this.stimulusOf(side), this.heat, room, zoom).catch(() => this.say("The image it was in could not be read."));
    else if (made) draw(canvas, { sheet: made.image, x: 0, y: 0, size: made.image.width }, 0, room, zoom);
    else draw(canvas, placed(layer, kind, channel), layer.facts.cell, room, zoom);
  }

  view(side) {
    const box = h("div", { class: "rx-view" });
    const key = `${side.model}/${side.of}/${side.channel}`;
    const fill = () => box.replaceChildren(...this.viewed(side));
    fill();
    this.refills.set(key, fill);
    return box;
  }

  viewed(side) {
    const { layer, model, of, channel } = side;
    const kinds = this.kinds(layer, channel);
    if (!kinds.length) return [h("p", { class: "rx-none" }, "There is no picture of it: this layer is shown by photographs, and none drives it.")];
    const { gains, positive, fires, curve: values } = layer.facts.channels[channel];
    const first = fires ? TILES : ["filter", ...TILES];
    const chosen = kinds.includes(this.state.view) ? this.state.view : first.find((kind) => kinds.includes(kind)) ?? kinds[0];
    const made = this.made.get(`${model}/${of}/${channel}`);
    const note = (kind) => {
      if (kind === "maximization" && made) return made.made_with;
      if (["maximization", "clear"].includes(kind) && values && Math.max(...values) <= 0) return "it did not fire: a flat picture is where the ascent began";
      if (kind === "mean") return `N = ${number(positive)}`;
      return gains?.[kind] === undefined ? "" : `gain ${number(gains[kind])}`;
    };
    const told = kinds.includes("stimulus") ? this.told(layer, this.stimulusOf(side)) : "";
    const described = (kind) => `${this.name(model, of, channel)}: ${PICTURES[kind][0]}${kind === "where" ? `: ${told}` : note(kind) && `, ${note(kind)}`}`;
    const large = h("canvas", { role: "img", "aria-label": described(chosen), class: chosen === "where" ? "rx-place" : null });
    this.paint(large, side, chosen, side.alone ? ROOM.view : ROOM.beside, this.zoom);
    const zoom = (by, text, title) => h("button", {
      type: "button", title, "aria-label": title, "data-focus": title, "aria-disabled": String(this.zoom + by < 1 || this.zoom + by > 4),
      onclick: () => {
        if (this.zoom + by < 1 || this.zoom + by > 4) return;
        this.zoom += by;
        this.show();
      },
    }, text);
    const thumbs = kinds.map((kind) => {
      const canvas = h("canvas", { "aria-hidden": "true" });
      this.paint(canvas, side, kind, ROOM.small);
      return h("button", {
        type: "button", class: "rx-stimulus", "data-picture": kind, "data-focus": kind, "aria-pressed": String(kind === chosen),
        "aria-label": described(kind), title: PICTURES[kind][0], onclick: () => this.change({ view: kind }),
      }, canvas, h("small", { "aria-hidden": "true" }, PICTURES[kind][2]));
    });
    const what = layer.facts.objective === "response" ? "response" : "activation before the ReLU";
    const steps = made?.curve ?? values;
    const climbing = steps && chosen === "maximization" ? h("figure", { class: "rx-curve" }, curve(steps, what)) : null;
    return [
      h("figure", { class: "rx-large" }, h("div", { class: "rx-scroll", tabindex: this.zoom > 1 ? 0 : false }, large),
        h("figcaption", {}, h("b", {}, PICTURES[chosen][0]), `: ${PICTURES[chosen][1]}${note(chosen) && `; ${note(chosen)}`}. `,
          ["stimulus", "where"].includes(chosen) ? h("span", { class: "rx-told" }, `${told[0].toUpperCase()}${told.slice(1)}. `) : null,
          h("span", { class: "rx-zoom" }, zoom(-1, "−", "Smaller"), zoom(1, "+", "Larger"))),
        chosen === "where" ? this.heatSwitch(side) : null),
      h("div", { class: "rx-strip", role: "group", "aria-label": "Pictures of the channel" }, thumbs),
      climbing,
    ].filter((part) => part !== null);
  }

  stimuli(side) {
    const { layer, model, of, channel, place } = side;
    const { stimuli } = layer.facts.channels[channel];
    const { ranges, sources } = layer.facts;
    const instead = (words) => h("p", { class: "rx-stimuli rx-none" }, words);
    if (!ranges.length) return instead("No photograph of these networks is kept: their pictures are means, or made by the network.");
    if (!stimuli.length) return instead("It has no preferred stimuli: no neuron responds to any image.");
    const rangeOf = (stimulus) => ranges.findLastIndex(({ first }) => stimulus[6] >= first);
    const chosen = this.stimulusOf(side);
    const button = (stimulus, rank) => {
      const small = h("canvas", { "aria-hidden": "true" });
      drawStimulus(small, layer, channel, stimulus, ROOM.small).catch(() => {});
      const label = `${this.name(model, of, channel)}: ${this.called(layer, stimulus)} stimulus, ${extent(layer)}, response ${number(stimulus[0])}`;
      return h("button", {
        type: "button", class: "rx-stimulus", "aria-label": label, "aria-pressed": String(stimulus === chosen), "data-focus": `stimulus ${rank}`,
        onclick: () => {
          if (place) this.places.set(`${model}/${of}/${channel}`, rank);
          this.change({ view: "where", ...(place ? {} : { stimulus: rank }) });
          this.say(this.told(layer, stimulus));
        },
      }, small, h("small", { "aria-hidden": "true" }, number(stimulus[0])));
    };
    const whole = layer.facts.field.size <= Math.min(...sources.map(({ height, width }) => Math.min(height, width)));
    const strips = ranges.map(({ name }, range) => {
      const members = stimuli.map((stimulus, i) => [stimulus, i]).filter(([stimulus]) => rangeOf(stimulus) === range);
      const title = range ? `Near ${name}` : `Strongest (${members.length})${whole ? ", of neurons that see only the image" : ""}`;
      return members.length ? [h("h4", {}, title), h("div", { class: "rx-strip" }, members.map((each) => button(...each)))] : [];
    });
    return h("div", { class: "rx-stimuli" }, strips.flat());
  }

  called(layer, stimulus) {
    const { ranges } = layer.facts;
    const range = ranges.findLastIndex(({ first }) => stimulus[6] >= first);
    return range ? `near ${ranges[range].name}` : ["strongest", "2nd strongest", "3rd strongest"][stimulus[6]] ?? `${stimulus[6] + 1}th strongest`;
  }

  // Where a stimulus was, in words.
  told(layer, stimulus) {
    const [value, source, top, left, bottom, right] = stimulus;
    const image = layer.facts.sources[source];
    const where = `rows ${top} to ${bottom - 1}, columns ${left} to ${right - 1} of ${image.file ?? `image ${image.image}`} (${image.height} × ${image.width} px)`;
    return `${this.called(layer, stimulus)}: response ${number(value)}; ${where}${image.class === null ? "" : `; class: ${image.class}`}`;
  }

  heatSwitch() {
    const box = h("input", {
      type: "checkbox", id: unique("heat"), "data-focus": "heat",
      onchange: () => {
        this.heat = box.checked;
        this.show();
      },
    });
    box.checked = this.heat;
    return h(
      "span", { class: "rx-check" }, box, h("label", { for: box.id }, "where the channel fires"),
      h("span", { class: "rx-from" }, "0", h("span", { class: "rx-key", "aria-hidden": "true" }), "largest response"),
    );
  }

  numbers({ layer, channel }) {
    const facts = layer.facts.channels[channel];
    const rows = this.measured(layer).map(({ key, name, unit, explanation }) => {
      const value = facts.statistics[key] ?? null;
      const all = layer.facts.channels.map(({ statistics }) => statistics[key]);
      return h("div", {}, h("dt", { title: explanation }, name), h("dd", {}, value === null ? null : amongOthers(all, value, name, unit), h("span", {}, number(value, unit))));
    });
    const drawings = [facts.histogram && histogram(layer.facts, facts), facts.orientation && orientationCurve(facts.orientation)];
    const charts = drawings.filter((drawing) => drawing).map((drawing) => h("figure", { class: "rx-curve" }, drawing));
    return [h(
      "div", { class: "rx-responses" },
      h("h4", {}, `Among the ${layer.facts.channels.length} channels of the layer${layer.facts.images ? `, on ${number(layer.facts.images)} images` : ""}`),
      h("dl", { class: "rx-numbers" }, rows),
      facts.colour ? h("p", { class: "rx-note" }, facts.colour === "silent" ? "Colour: no spot and no grating drives it." : `Colour: ${facts.colour}.`) : null,
    ), charts.length ? h("div", { class: "rx-charts" }, charts) : null];
  }

  // A small picture that leads to another channel or layer.
  link(layer, model, key, channel, words, place, more = []) {
    const canvas = h("canvas", { "aria-hidden": "true" });
    draw(canvas, this.tilePlace(layer, channel), layer.facts.cell, ROOM.small);
    const go = () =>
      place ? this.change({ layer: key, others: this.state.others.with(place - 1, { model, channel }) }) : this.change({ layer: key, channel, stimulus: 0 });
    return h(
      "button", { type: "button", class: "rx-stimulus", onclick: go, "aria-label": [this.name(model, key, channel), ...more].join(", ") },
      canvas, [words, ...more].map((line) => h("small", { "aria-hidden": "true" }, line)),
    );
  }

  neighbours({ layer, model, of, channel, place }) {
    const { nearest } = layer.facts.channels[channel];
    if (!nearest.length) return null;
    return h(
      "div", { class: "rx-nearest" }, h("h4", {}, "Nearest channels of the layer, by correlation of the mean over the strongest"),
      h("div", { class: "rx-strip" }, nearest.map(([other, r]) => this.link(layer, model, of, other, String(other), place, [`r ${r.toFixed(2)}`]))),
    );
  }

  otherLayers({ layer, model, of, channel, place }) {
    const rows = this.rows(model).filter(({ stream, channels }) => stream && channels === layer.facts.channels.length);
    if (rows.length < 2 || !rows.some(({ key }) => key === of)) return null;
    const strip = h("div", { class: "rx-strip" });
    const entry = ({ key, title }) => {
      const there = this.layers.get(`${model}/${key}`);
      if (!there) return h("button", { type: "button", class: "rx-stimulus", onclick: () => this.change({ layer: key }) }, title);
      const { firing_rate: rate, wrote, removal } = there.facts.channels[channel].statistics;
      const lines = [`fires ${number(rate, "%")}`];
      if ((wrote ?? null) !== null) lines.push(`block wrote ${number(wrote, "%")}`);
      if ((removal ?? null) !== null) lines.push(`removal ${number(removal, "nats")}`);
      const link = this.link(there, model, key, channel, title, place, lines);
      if (key === of) link.setAttribute("aria-current", "true");
      return link;
    };
    const fill = () => {
      const focused = [...strip.children].indexOf(document.activeElement);
      strip.replaceChildren(...rows.map(entry));
      strip.children[focused]?.focus();
    };
    fill();
    this.strips.push(fill);
    return h("div", { class: "rx-layers" }, h("h4", {}, `Channel ${channel} from layer to layer`), strip);
  }

  // -------------------------------------------------------------- the list of channels

  tilePlace(layer, channel) {
    for (const key of [this.state.picture, ...TILES]) {
      const place = key && placed(layer, key, channel);
      if (place) return place;
      if (AVERAGES.includes(key) && layer.facts.columns.some((column) => column.key === key)) return null; // it never fires
    }
    return null;
  }

  value(facts, channel) {
    return this.state.sort === "channel" ? channel : facts.channels[channel].statistics[this.state.sort] ?? null;
  }

  silent(facts, channel) {
    const { inactive, fires } = facts.channels[channel];
    return inactive ?? !fires;
  }

  shown() {
    const layer = this.shownLayer;
    if (!layer) return [];
    const { only, limit, order } = this.state;
    const { facts } = layer;
    const kept = facts.channels.map((_, channel) => channel).filter((channel) => {
      const value = this.value(facts, channel);
      if (only === "inactive") return this.silent(facts, channel);
      if (only === "active") return !this.silent(facts, channel);
      if (only === "all" || limit === "") return true;
      return value !== null && (only === "least" ? value >= Number(limit) : value <= Number(limit));
    });
    const direction = order === "down" ? -1 : 1;
    return kept.sort((a, b) => {
      const [first, second] = [this.value(facts, a), this.value(facts, b)];
      if (first === null || second === null) return (first === null) - (second === null) || a - b; // unknown goes last
      return direction * (first - second) || a - b;
    });
  }

  showFinder() {
    const { state } = this;
    const layer = this.shownLayer;
    const { title } = this.row(state.model, state.layer);
    const statistics = layer ? this.measured(layer) : this.manifest.statistics;
    this.sortMenu.fill([["channel", "channel number"], ...statistics.map(({ key, name }) => [key, name])], state.sort);
    if (this.sortMenu.select.value === "") this.sortMenu.select.value = "channel"; // not measured in this layer
    const defined = layer?.facts.channels[0]?.inactive !== null; // inactivity is, of the first pooling layer
    const all = layer ? layer.facts.channels.map((_, channel) => channel) : [];
    const silent = all.filter((channel) => this.silent(layer.facts, channel)).length;
    this.onlyMenu.fill([
      ["all", "all channels"],
      ["inactive", `${defined ? "inactive only" : "those that never fire"} (${silent || "none"})`],
      ["active", `${defined ? "active only" : "those that fire"} (${all.length - silent || "none"})`],
      ["least", "at least"],
      ["most", "at most"],
    ], state.only);
    this.limit.hidden = !["least", "most"].includes(state.only);
    if (document.activeElement !== this.limitField) this.limitField.value = state.limit;
    const statistic = statistics.find(({ key }) => key === state.sort);
    this.limitLabel.textContent = `Limit: ${statistic ? statistic.name : "channel number"}${statistic?.unit ? ` (${statistic.unit})` : ""}`;
    const explained = statistic ? `${statistic.name[0].toUpperCase()}${statistic.name.slice(1)}: ${statistic.explanation}. ` : "";
    this.explained.textContent = `${explained}Arrow keys move through the list, Page Up and Page Down through the layers.`;
    this.heading.textContent = `${this.title(state.model)}, ${title}`;
    if (!layer) {
      this.tiles.replaceChildren();
      this.drawn = null;
      return;
    }
    const channels = this.shown();
    this.heading.textContent += `: ${channels.length === all.length ? "all" : `${channels.length} of`} ${all.length} channels`;
    const keys = layer.facts.columns.map(({ key }) => key).filter((key) => key in PICTURES);
    this.pictureMenu.fill(keys.map((key) => [key, PICTURES[key][0]]), keys.includes(state.picture) ? state.picture : TILES.find((key) => keys.includes(key)));
    this.pictureMenu.field.hidden = keys.length < 2;
    // Tiles are drawn anew only when the list changes, not with every channel that is picked.
    const last = this.last(state.model);
    const held = last && last.key !== state.layer && this.row(state.model, state.layer).stream ? this.layers.get(`${state.model}/${last.key}`) : null;
    const drawn = JSON.stringify([layer.key, channels, state.sort, this.pictureMenu.select.value, Boolean(held)]);
    if (drawn !== this.drawn) {
      this.wantsTile ||= this.tiles.contains(document.activeElement); // a tile that has the focus goes, too
      this.fillTiles(layer, channels, statistic, held?.facts.channels.length === all.length ? [held, last.title] : []);
      this.drawn = drawn;
    }
    let current = null;
    const tiles = this.tiles.querySelectorAll("[data-channel]");
    for (const tile of tiles) {
      const selected = Number(tile.dataset.channel) === state.channel;
      tile.setAttribute("aria-selected", String(selected));
      tile.tabIndex = -1;
      if (selected) current = tile;
    }
    current ??= tiles[0];
    if (current) {
      current.tabIndex = 0;
      const [box, list] = [current.getBoundingClientRect(), this.tiles.getBoundingClientRect()];
      if (box.top < list.top || box.bottom > list.bottom) this.tiles.scrollTop += box.top - list.top - 8;
      if (box.left < list.left || box.right > list.right) this.tiles.scrollLeft += box.left - list.left - 8;
    } else {
      this.tiles.replaceChildren(h("p", { class: "rx-note", role: "option", "aria-selected": "false" }, "No channel is like that."));
      this.drawn = null;
    }
    if (this.wantsTile && [this.tiles, document.body].includes(document.activeElement)) this.focusTile();
  }

  // Silent channels are a class of their own, shown with what they hold further up.
  fillTiles(layer, channels, statistic, [held, title]) {
    const silent = channels.filter((channel) => this.silent(layer.facts, channel));
    const group = (name, members, pictures) => {
      const heading = h("span", { class: "rx-group", id: unique("group") }, name);
      return h("div", { role: "group", "aria-labelledby": heading.id, class: "rx-members" }, heading, members.map((channel) => this.tile(layer, channel, statistic, pictures)));
    };
    const tiles = silent.length && silent.length < channels.length
      ? [
          group(`fire: ${channels.length - silent.length}`, channels.filter((channel) => !silent.includes(channel)), layer),
          group(`silent: ${silent.length}${held ? `, shown as in ${title}` : ""}`, silent, held ?? layer),
        ]
      : [h("div", { role: "presentation", class: "rx-members" }, channels.map((channel) => this.tile(layer, channel, statistic, layer)))];
    this.tiles.style.setProperty("--rx-tile", `${Math.max(ROOM.tile, layer.facts.cell, held?.facts.cell ?? 0) + 8}px`);
    this.tiles.replaceChildren(...tiles);
  }

  tile(layer, channel, statistic, pictures) {
    const canvas = h("canvas", { "aria-hidden": "true" });
    const place = this.tilePlace(pictures, channel);
    draw(canvas, place, pictures.facts.cell, ROOM.tile);
    const stimulus = place ? null : pictures.facts.channels[channel].stimuli[0];
    if (stimulus) drawStimulus(canvas, pictures, channel, stimulus, ROOM.tile).catch(() => {});
    const silent = this.silent(layer.facts, channel);
    const value = statistic ? number(layer.facts.channels[channel].statistics[statistic.key], statistic.unit) : "";
    const label = `channel ${channel}${statistic ? `, ${statistic.name} ${value}` : ""}${silent ? `, ${layer.facts.channels[channel].inactive === null ? "never fires" : "inactive"}` : ""}`;
    return h(
      "div", { role: "option", class: silent ? "rx-tile rx-silent" : "rx-tile", "data-channel": channel, "aria-label": label },
      canvas, h("span", { "aria-hidden": "true" }, String(channel), statistic ? h("small", {}, value) : null),
    );
  }

  // -------------------------------------------------------------- only with a kernel

  maximizer({ model, of, channel }) {
    const fields = {};
    const field = (key, label, value, attributes) => {
      fields[key] = h("input", { type: "number", required: true, id: unique(key), value: this.asked?.[key] ?? value, ...attributes });
      return h("span", { class: "rx-field" }, h("label", { for: fields[key].id }, label), fields[key]);
    };
    return h(
      "form", {
        class: "rx-bar rx-maximizer", "aria-label": "Maximize again",
        onsubmit: (event) => {
          event.preventDefault();
          this.asked = Object.fromEntries(Object.entries(fields).map(([key, input]) => [key, input.valueAsNumber]));
          this.say("Maximizing …");
          this.model.send({ kind: "maximize", model, layer: of, channel, ...this.asked });
        },
      },
      field("steps", "Steps", 31, { min: 1, max: 2000, step: 1 }),
      field("learning_rate", "Learning rate", 0.1, { min: 0, step: "any" }),
      field("l2", "L2 weight", 1e-6, { min: 0, step: "any" }),
      field("variation", "Total variation weight", 0, { min: 0, step: "any" }),
      field("jitter", "Jitter (px)", 0, { min: 0, max: 32, step: 1 }),
      h("button", { type: "submit" }, "Maximize again"),
    );
  }
}

// What is fetched when it is first asked for; again, if that failed.
function once(sheet) {
  let promised = null;
  const forget = (error) => {
    promised = null;
    throw error;
  };
  return () => (promised ??= loaded(sheet).catch(forget));
}

// A sheet comes as an address or as bytes; it is decoded before anything is drawn from it.
async function loaded(sheet) {
  const image = new Image();
  const own = typeof sheet === "string" ? null : URL.createObjectURL(new Blob([sheet], { type: "image/webp" }));
  image.src = own ?? sheet;
  try {
    await image.decode();
  } finally {
    if (own) URL.revokeObjectURL(own);
  }
  return image;
}

function render({ model, el }) {
  const explorer = new Explorer(model, el);
  return () => explorer.close();
}

export default { render };
